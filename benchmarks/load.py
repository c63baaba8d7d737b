"""Time and memory at sizes far above those of most competitions, beside what a user would run instead.

    python benchmarks/load.py [--cases runs tests rows classes pixels] [--scale 1] [--folder FOLDER]

    runs     1,000 runs of 2,000 validation and 10,000 test rows, and a fourth of them: how the cost grows
    tests    300,000 test images of 32 pixels
    rows     1,000,000 labelled images of 16 pixels in a table
    classes  20,000 classes: most have one image, some ten; 2,000 validation rows
    pixels   20 GB of decoded pixels: 132,860 photos of 224 pixels

The data are random and are made in a temporary folder, which needs 30 GB for all cases. Each step is a process of
its own. CPU is the time of the process and of those that it started; memory is the largest of one process, with the
files that it maps. `--scale` multiplies all sizes.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
NAME, EPOCHS, VALIDATION, TESTS = "load", 20, 2000, 10_000
SIZES = {"runs": 1000, "tests": 300_000, "rows": 1_000_000, "classes": 20_000, "pixels": 132_860}
SETTINGS = """
title = "Load"
[data]
source = "{source}"
test = "{test}"
[validation]
rows = {rows}
[ensemble]
threshold = 0.1
"""
RECIPE = """
architecture = "resnet34"
seeds = {seeds}
epochs = 1
learning_rate = 0.1
stored_pixels = {pixels}
"""
GOALS = "help demo all train prepare runs ensemble report check"


class Step(NamedTuple):
    """A command of Podium, and what a user would run instead."""

    what: str
    command: Sequence[str]  # empty: the step before does this too
    beside: str = ""
    other: Sequence[str] = ()


class Cost(NamedTuple):
    """What a process needed, with the processes that it started."""

    status: int
    cpu: float  # seconds
    wall: float  # seconds
    memory: int  # bytes, of the largest process


def measure(command: Sequence[str], folder: Path) -> Cost:
    """Run a command in a folder; its output goes to a file, of which the end is printed if the command fails."""
    unset = ("PODIUM_DATA", "PODIUM_CACHE", "MAKEFLAGS", "COMPETITION")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["PYTHONPATH"] = str(ROOT / "src")
    log = folder.with_name(f"{folder.name}.log")
    started = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(*log.read_text().splitlines()[-6:], sep="\n")
    wall = time.perf_counter() - started
    return Cost(process.returncode, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024)


def podium(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "podium", *arguments, "--competition", NAME]


def child(name: str, *arguments: object) -> list[str]:
    """The command that runs one of CHILDREN: data are made, and other programs measured, in processes of their own."""
    return [sys.executable, "-W", "ignore", __file__, "--child", name, *map(str, arguments)]


def make(folder: Path, name: str, *arguments: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert measure(child(name, *arguments), folder).status == 0


# Data. Each function runs in the folder of the project.
def write_settings(*, source: str, test: str, rows: int, pixels: int, seeds: Sequence[Sequence[int]] = ((1,),)) -> None:
    competition = Path("competitions", NAME)
    competition.mkdir(parents=True, exist_ok=True)
    (competition / "competition.toml").write_text(SETTINGS.format(source=source, test=test, rows=rows))
    for number, of_recipe in enumerate(seeds):
        (competition / f"net{number}.toml").write_text(RECIPE.format(seeds=list(of_recipe), pixels=pixels))


def write_images(names: Sequence[str], *, part: str, side: int) -> None:
    """Write different images, PNG and PPM of noise or smooth JPEG as their names say, below data/load/<part>."""
    blocks = [(Path("data", NAME, part), names[row : row + 1000], side, row) for row in range(0, len(names), 1000)]
    with Pool(len(os.sched_getaffinity(0))) as pool:
        pool.starmap(_write_block, blocks)


def _write_block(folder: Path, names: Sequence[str], side: int, seed: int) -> None:
    from PIL import Image

    draw = np.random.default_rng(seed)
    for parent in {(folder / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".ppm"):
            (folder / name).write_bytes(f"P6 {side} {side} 255\n".encode() + draw.bytes(side * side * 3))
            continue
        coarse = side // 16 if name.endswith(".jpg") else side
        image = Image.fromarray(draw.integers(0, 256, (coarse, coarse, 3), np.uint8)).resize((side, side))
        image.save(folder / name, compress_level=1)


def make_runs(runs: str, rows: str, tests: str) -> None:
    """Data.lock, recipes with 50 seeds each, the predictions of all runs, and their histories."""
    from podium.lock import Lock, write_lock
    from podium.workspace import open_workspace

    count, half = int(runs), int(rows)
    seeds = [range(1, min(50, count - first) + 1) for first in range(0, count, 50)]
    write_settings(source="folders", test="test", rows=half, pixels=32, seeds=seeds)
    labels, ids = np.random.default_rng(0).integers(10, size=half), np.arange(half + int(tests)).astype(str)
    classes = tuple(f"class{k}" for k in range(10))
    workspace = open_workspace(NAME)
    write_lock(workspace.paths.lock_file, Lock("data", classes, ids[:half], labels, np.zeros(half, int), ids[half:]))
    make_predictions()
    history = workspace.paths.history_file("any").parent
    history.mkdir(parents=True)
    lines = [f"{epoch},train,{2 / epoch:.3f},{1 - 1 / epoch:.3f}" for epoch in range(1, EPOCHS + 1)]
    text = "\n".join(["epoch,stage,training_loss,validation_accuracy", *lines, ""])
    for run in workspace.runs:
        (history / f"{run.run}.csv").write_text(text)


def make_predictions() -> None:
    """Random logits of all runs of the project's recipes, as if these were trained and are up to date."""
    from podium.predictions.artefact import Predictions, save_predictions
    from podium.workspace import open_workspace

    workspace = open_workspace(NAME)
    lock, classes = workspace.lock, len(workspace.lock.classes)
    rows = np.flatnonzero(lock.folds >= 0)
    labels, shape = lock.train_labels[rows], (len(rows) + len(lock.test_ids), classes)
    common = np.random.default_rng(0).standard_normal(shape, np.float32)
    for number, run in enumerate(workspace.runs):
        logits = common + np.random.default_rng(number + 1).standard_normal(shape, np.float32)
        logits[np.arange(len(rows)), labels] += 4
        about = {name: getattr(run, name) for name in ("run", "recipe_name", "seed", "stamp")}
        about |= {"architecture": run.recipe.architecture, "recipe": dataclasses.asdict(run.recipe), "seconds": 60.0}
        about |= {"fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256, "device": "none"}
        about["scores"] = {"accuracy": float((logits[: len(rows)].argmax(axis=1) == labels).mean()), "log_loss": 1.0}
        oof, test = logits[: len(rows)], logits[len(rows) :]
        predictions = Predictions(lock.train_ids[rows], oof, labels, lock.test_ids, test, np.array(lock.classes), about)
        save_predictions(workspace.paths.predictions_file(run.run), predictions)


def make_tests(count: str) -> None:
    """Ten class folders of PNG files, and many test images."""
    labelled = VALIDATION * 2 if int(count) > VALIDATION else 80
    write_settings(source="folders", test="test", rows=labelled // 2, pixels=32)
    write_images([f"class{row % 10}/{row}.png" for row in range(labelled)], part="train", side=32)
    write_images([f"{row}.png" for row in range(int(count))], part="test", side=32)


def make_rows(count: str) -> None:
    """A table of labels with a row for each of many PPM files, in ten classes."""
    write_settings(source="csv", test="", rows=int(count) // 10, pixels=16)
    write_images([f"image_{row:07d}.ppm" for row in range(int(count))], part="train", side=16)
    lines = [f"image_{row:07d},class{row % 10}" for row in range(int(count))]
    Path("data", NAME, "train.csv").write_text("\n".join(["id,label", *lines, ""]))


def make_classes(count: str) -> None:
    """A folder for each of many classes: one in twenty has ten images, the others one; and as many tests."""
    classes = int(count)
    write_settings(source="folders", test="test", rows=classes // 10, pixels=32)
    names = [f"class{k:05d}/{image}.png" for k in range(classes) for image in range(1 if k % 20 else 10)]
    write_images(names, part="train", side=32)
    write_images([f"{row}.png" for row in range(classes // 20)], part="test", side=32)


def make_pixels(count: str) -> None:
    """Ten class folders of JPEG files."""
    write_settings(source="folders", test="", rows=int(count) // 10, pixels=224)
    write_images([f"class{row % 10}/{row}.jpg" for row in range(int(count))], part="train", side=224)


# What a user would run instead, without Podium. Each function runs in the folder of the project.
def read_runs() -> None:
    """Print the accuracy of each file of predictions, as a notebook does."""
    for file in sorted(Path("oof", NAME).glob("*.npz")):
        with np.load(file) as run:
            print(file.stem, (run["oof_logits"].argmax(axis=1) == run["oof_labels"]).mean())


def average() -> None:
    """The mean of all runs' probabilities: its accuracy, and a CSV of the test rows."""
    import pandas as pd

    files, sums = sorted(Path("oof", NAME).glob("*.npz")), {}
    for file in files:
        with np.load(file) as run:
            for part in ("oof", "test"):
                logits = run[f"{part}_logits"]
                exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
                probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
                sums[part] = sums[part] + probabilities if part in sums else probabilities
            labels, ids, classes = run["oof_labels"], run["test_ids"], run["classes"]
    print((sums["oof"].argmax(axis=1) == labels).mean())
    pd.DataFrame({"id": ids, "label": classes[sums["test"].argmax(axis=1)]}).to_csv("average.csv", index=False)


def compare_csv() -> None:
    """Whether a CSV has the ids of the sample, each once, in their order, and known labels."""
    import pandas as pd

    csv, sample = (pd.read_csv(f"submissions/{NAME}/ensemble.csv", dtype=str) for _ in range(2))
    assert csv["id"].is_unique and csv["id"].equals(sample["id"]) and csv["label"].isin(sample["label"].unique()).all()


def scan_folders(rows: str) -> None:
    """List the class folders by torchvision, and split by scikit-learn."""
    from sklearn.model_selection import StratifiedShuffleSplit
    from torchvision.datasets import ImageFolder

    targets = np.array(ImageFolder(Path("data", NAME, "train")).targets)
    targets = targets[np.bincount(targets)[targets] > 1]
    next(StratifiedShuffleSplit(1, test_size=int(rows), random_state=0).split(targets, targets))


def read_table() -> None:
    """Read the labels by pandas, look for each file, and split by scikit-learn."""
    import pandas as pd
    from sklearn.model_selection import train_test_split

    table = pd.read_csv(f"data/{NAME}/train.csv")
    names = {entry.name for entry in os.scandir(f"data/{NAME}/train")}
    assert (table["id"] + ".ppm").isin(names).all()
    train_test_split(table, test_size=len(table) // 10, stratify=table["label"])


def read_columns() -> None:
    """Read ids, labels and folds by pandas: the lines of data.lock without the first."""
    import pandas as pd

    pd.read_csv(f"competitions/{NAME}/data.lock", skiprows=1, names=["id", "label", "fold"])


def decode(side: str, most: str) -> None:
    """Decode at most `most` images by Pillow, in a process per core, into a memory-mapped array."""
    files = sorted(str(file) for file in islice(Path("data", NAME).rglob("*.[pj][np][gm]"), int(most) or None))
    pixels = np.lib.format.open_memmap("decoded.npy", "w+", np.uint8, (len(files), int(side), int(side), 3))
    with Pool(len(os.sched_getaffinity(0))) as pool:
        for row, image in enumerate(pool.imap(_pixels_of, files, chunksize=256)):
            pixels[row] = image
    pixels.flush()
    Path("decoded.npy").unlink()


def _pixels_of(file: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(file).convert("RGB"))


def load_batches(most: str) -> None:
    """Batches of decoded photos by torchvision's folder and PyTorch's loader, of at most `most` photos."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    loader = DataLoader(ImageFolder(Path("data", NAME, "train"), ToTensor()), batch_size=64, shuffle=True)
    for _ in islice(loader, int(most) // 64):
        pass


# Parts of Podium that no command runs alone.
def read_lock_file() -> None:
    """Read data.lock."""
    from podium.workspace import open_workspace

    assert len(open_workspace(NAME).lock.train_ids)


def verify_pixels() -> None:
    """Compare the checksums of all decoded pixels."""
    _dataset().verify()


def gather_batches(most: str) -> None:
    """Batches of random decoded photos, of at most `most` photos."""
    import torch

    from podium.data.image_file import ImageFile
    from podium.training.batches.stores import PixelStore

    store = PixelStore(ImageFile(_dataset().images), torch.device("cpu"))
    for batch in store.batches(torch.randperm(len(store))[: int(most)].split(64)):
        batch.gather().float()


def _dataset():
    from podium.data.cache import open_images
    from podium.workspace import open_workspace

    workspace = open_workspace(NAME)
    recipe = next(iter(workspace.recipes.values()))
    return open_images(workspace.paths, workspace.lock, pixels=recipe.stored_pixels, shape=recipe.shape)


CHILDREN: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        *(make_runs, make_predictions, make_tests, make_rows, make_classes, make_pixels),
        *(read_runs, average, compare_csv, scan_folders, read_table, read_columns, decode, load_batches),
        *(read_lock_file, verify_pixels, gather_batches),
    )
}


# The cases. Each makes its data in a folder, and gives steps while the data are there.
def runs_case(folder: Path, count: int, scale: float) -> Iterator[Step]:
    rows, tests = (max(40, round(size * scale)) for size in (VALIDATION, TESTS))
    for runs in sorted({max(40, count // 4), count}):
        project = folder / f"{runs}-runs"
        make(project, "make_runs", runs, rows, tests)
        for name in ("Makefile", "environment.mk", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, project)
        (project / "src").symlink_to(ROOT / "src")
        inside = ["env", "-C", str(project)]
        hashes = [*inside, "sh", "-c", f"sha256sum oof/{NAME}/*.npz"]
        blend, listing = [*inside, *child("average")], [*inside, *child("read_runs")]
        plan = [sys.executable, "-m", "podium.plan", NAME, "all", GOALS]
        all_goals = ["make", "-n", f"PYTHON={sys.executable}", "all", f"COMPETITION={NAME}"]
        yield Step(f"ensemble, {runs:,} runs", [*inside, *podium("ensemble")], "NumPy: mean of all files", blend)
        yield Step(f"plan, {runs:,} runs", [*inside, *plan], "sha256sum of all files", hashes)
        yield Step(f"make -n all, {runs:,} runs", [*inside, *all_goals])
        yield Step(f"runs, {runs:,} runs", [*inside, *podium("runs")], "NumPy: accuracy of each file", listing)
        yield Step(f"report, {runs:,} runs", [*inside, *podium("report")])


def tests_case(folder: Path, count: int, _: float) -> Iterator[Step]:
    make(folder, "make_tests", count)
    yield Step(f"prepare, {count:,} test images", podium("prepare"), "Pillow, all cores", child("decode", 32, 0))
    yield Step("prepare again", podium("prepare"))
    make(folder, "make_predictions")
    yield Step(f"ensemble, {count:,} test rows", podium("ensemble"), "NumPy and pandas", child("average"))
    csv = f"submissions/{NAME}/ensemble.csv"
    yield Step(f"check, {count:,} test rows", podium("check", csv), "pandas", child("compare_csv"))


def rows_case(folder: Path, count: int, _: float) -> Iterator[Step]:
    make(folder, "make_rows", count)
    yield Step(f"prepare, {count:,} rows in a CSV", podium("prepare"), "pandas, scikit-learn", child("read_table"))
    yield Step("decode alone", (), "Pillow, all cores", child("decode", 16, 0))
    yield Step("prepare again", podium("prepare"))
    yield Step("read data.lock", child("read_lock_file"), "pandas", child("read_columns"))


def classes_case(folder: Path, count: int, _: float) -> Iterator[Step]:
    make(folder, "make_classes", count)
    split = child("scan_folders", count // 10)
    yield Step(f"prepare, {count:,} classes", podium("prepare"), "torchvision, scikit-learn", split)
    make(folder, "make_predictions")
    yield Step(f"ensemble, {count:,} classes", podium("ensemble"), "NumPy and pandas", child("average"))
    yield Step(f"report, {count:,} classes", podium("report"))


def pixels_case(folder: Path, count: int, _: float) -> Iterator[Step]:
    make(folder, "make_pixels", count)
    part = max(64, count // 20)
    size = f"{count * 224 * 224 * 3 / 1e9:.1f} GB"
    sample = f"Pillow, all cores, {part:,} of {count:,}"
    yield Step(f"prepare, {size} of pixels", podium("prepare"), sample, child("decode", 224, part))
    yield Step(f"verify, {size}", child("verify_pixels"), "sha256sum", ["sh", "-c", f"sha256sum .cache/{NAME}/*/*.npy"])
    other = "torchvision and PyTorch's loader"
    yield Step(f"batches of {part:,} random photos", child("gather_batches", part), other, child("load_batches", part))


CASES = {"runs": runs_case, "tests": tests_case, "rows": rows_case, "classes": classes_case, "pixels": pixels_case}


def cells(cost: Cost | None) -> str:
    if cost is None:
        return "| | |"
    memory = f"{cost.memory / 1e6:,.0f} MB"
    return f"| {cost.cpu:,.2f} | {cost.wall:,.2f} | " + (memory if cost.status == 0 else f"failed, {memory}")


def run_case(name: str, folder: Path, scale: float) -> None:
    """Measure the steps of a case, and print a row of the table for each."""
    folder.mkdir()
    for step in CASES[name](folder, max(40, round(SIZES[name] * scale)), scale):
        ours = measure(step.command, folder) if step.command else None
        other = measure(step.other, folder) if step.other else None
        load = os.getloadavg()[0]
        print(f"| {step.what} {cells(ours)} | {step.beside} {cells(other)} | {load:.1f} |", flush=True)
    shutil.rmtree(folder)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--scale", type=float, default=1.0)
    arguments.add_argument("--folder", help="where the temporary folder is made; default: the system's")
    arguments.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        name, *values = options.child
        CHILDREN[name](*values)
        return
    print("| Podium | CPU s | s | memory | instead | CPU s | s | memory | load |\n|" + " --- |" * 9)
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for name in options.cases:
            run_case(name, Path(scratch) / name, options.scale)


if __name__ == "__main__":
    main()
