"""The script that `make kernel` and `make notebook` push: on Kaggle's machine, offline, it trains runs and keeps their
predictions, or, without runs, writes the submission of the attached test images.

This file itself is pushed, with SETTINGS filled in. It imports only the standard library: Podium's sources come in the
attached dataset, all other packages must be in Kaggle's image. The output is each run's files, or submission.csv, and a
manifest with their hashes.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {}

MANIFEST, SUBMISSION = "podium-output.json", "submission.csv"
# Kaggle keeps 20 GB of a notebook's output; predictions and the log need little.
MOST_BYTES = 18 * 10**9
# A rehearsal uses the folders of Kaggle's machine below a folder of its own.
ROOT = Path(os.environ.get("PODIUM_NOTEBOOK_ROOT", "/"))
INPUT, WORKING = ROOT / "kaggle" / "input", ROOT / "kaggle" / "working"
# Not below WORKING: everything there becomes output, decoded images and parameters too.
PROJECT = ROOT / "tmp" / "podium"
# What `podium train` needs, with the lower bounds of pyproject.toml.
REQUIRED = {
    "python": "3.11",
    "fastai": "2.8.3",
    "numpy": "2.0",
    "pillow": "11.0",
    "safetensors": "0.5",
    "timm": "1.0.15",
    "torch": "2.6",
    "torchvision": "0.21",
    "typer": "0.15",
}


def main(settings: dict[str, Any]) -> int:
    """Train the runs that the settings name, or predict the test images; returns 0 if there is output."""
    began, competition = time.monotonic(), ["--competition", settings["competition"]]
    check_image(REQUIRED)
    unpack(attached_folder(settings["dataset"], "datasets") / settings["archive"])
    images, output = str(image_folder(settings["source"])) if settings["source"] else "", Output(settings)
    if not settings["runs"]:
        exit_code = podium("predict", "--ensemble", images, "--submission", str(WORKING / SUBMISSION), *competition)
        output.hashes |= {SUBMISSION: file_sha256(WORKING / SUBMISSION)} if exit_code == 0 else {}
        output.write()
        return exit_code
    if podium("prepare", *competition, *(["--data", images] if images else [])) != 0:
        sys.exit("The competition's images cannot be prepared: see the message above.")
    gpus = list_gpus()
    with ThreadPoolExecutor(len(gpus)) as pool:
        list(pool.map(lambda gpu: train_runs(output, gpu, began), gpus))
    print(f"trained: {output.trained}; failed: {output.failed}; left: {list(output.waiting)}", flush=True)
    return 0 if output.trained or output.waiting else 1


def check_image(required: dict[str, str]) -> None:
    """Exit where Kaggle's image lacks a package, or has a version below the required one."""
    faults = []
    for name, minimum in required.items():
        try:
            found = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            found = ""
        if version_numbers(found) < version_numbers(minimum):
            faults.append(f"  {name}: expected >= {minimum}, found {found or 'no such package'}")
    if faults:
        fix = "on the notebook's page at Kaggle, choose the latest environment; then push again"
        sys.exit("\n".join(["Kaggle's image is too old for Podium.", *faults, f"  fix: {fix}"]))


def version_numbers(text: str) -> list[int]:
    """The numbers at the start of a version: [2, 10, 0] for 2.10.0+cu128."""
    return [int(number) for number in re.match(r"[0-9.]*", text)[0].split(".") if number]


def attached_folder(name: str, kind: str) -> Path:
    """The folder of an attached dataset or competition; Kaggle mounts them at one of two places."""
    owner, _, slug = name.rpartition("/")
    places = [INPUT / kind / owner / slug, INPUT / slug]
    for place in places:
        if place.is_dir():
            return place
    attached = sorted(folder.name for folder in INPUT.glob("*"))
    sys.exit(f"{name} is not attached: neither {places[0]} nor {places[1]} exists; {INPUT} has {attached}")


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpack(archive: Path) -> None:
    """Unpack the dataset's archive, whose name has a hash of its content, into PROJECT."""
    if not archive.is_file():
        found = [file.name for file in archive.parent.iterdir()]
        sys.exit(f"Another version of the dataset is attached: expected {archive.name}, found {found}")
    if file_sha256(archive)[:12] not in archive.name:
        sys.exit(f"The attached {archive.name} is damaged; FORCE=1 sends it again")
    with zipfile.ZipFile(archive) as content:
        content.extractall(PROJECT)
    (PROJECT / "published").mkdir(exist_ok=True)  # PODIUM_WEIGHTS must exist


def image_folder(competition: str) -> Path:
    """The attached images. Where this image has no py7zr, .7z archives are unpacked by the command 7z."""
    attached = attached_folder(competition, "competitions")
    archives = sorted(attached.glob("*.7z"))
    if not archives or find_spec("py7zr"):
        return attached
    folder = PROJECT / "images"
    folder.mkdir(parents=True)
    for file in attached.iterdir():
        if file not in archives:
            (folder / file.name).symlink_to(file)
    for archive in archives:
        unpacked = folder / f".{archive.stem}"
        try:
            subprocess.run(["7z", "x", "-y", "-bd", f"-o{unpacked}", archive], check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{archive} cannot be unpacked: Kaggle's image has no py7zr, and 7z failed: {error}")
        inner = unpacked / archive.stem  # most archives hold one folder of their own name
        (inner if inner.is_dir() else unpacked).rename(folder / archive.stem)
    return folder


def podium(*arguments: str, gpu: str = "") -> int:
    """Run Podium in PROJECT; returns its exit code."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
        "PODIUM_WEIGHTS": str(PROJECT / "published"),
        "PODIUM_COMMIT": SETTINGS.get("commit", ""),
        "PODIUM_NO_TRACKERS": "1",  # there is no network and no account
    }
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return subprocess.run([sys.executable, "-m", "podium", *arguments], cwd=PROJECT, env=environment).returncode


def list_gpus() -> list[str]:
    """The numbers of the GPUs; [""] where there is none."""
    try:
        text = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    except OSError:
        text = ""
    return [str(number) for number in range(text.count("GPU "))] or [""]


class Output:
    """The notebook's output, complete after every run: a session that is killed loses only unfinished runs."""

    def __init__(self, settings: dict[str, Any]):
        self.settings, self.waiting, self.longest_seconds = settings, deque(settings["runs"]), 0.0
        self.trained: list[str] = []
        self.failed: list[str] = []
        self.hashes: dict[str, str] = {}
        self.lock = threading.Lock()

    def next_run(self, seconds_left: float) -> str | None:
        """The next run; None where no run is left, or the session may end before a run like the longest does."""
        with self.lock:
            return self.waiting.popleft() if self.waiting and self.longest_seconds <= seconds_left else None

    def add(self, run: str, exit_code: int, seconds: float) -> None:
        """Copy the files of a trained run into the output, or note that it failed; write the manifest."""
        with self.lock:
            self.longest_seconds = max(self.longest_seconds, seconds)
            for file in self.files(run) if exit_code == 0 else ():
                (WORKING / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(PROJECT / file, WORKING / file)
                self.hashes[file] = file_sha256(WORKING / file)
            (self.failed if exit_code else self.trained).append(run)
            self.write()

    def files(self, run: str) -> list[str]:
        """A run's files, relative to the project: without its parameters where Kaggle would not keep them all."""
        competition = self.settings["competition"]
        parameters = f"models/{competition}/{run}.safetensors"
        sizes = [(WORKING / file).stat().st_size for file in self.hashes]
        fits = (PROJECT / parameters).is_file() and sum(sizes, (PROJECT / parameters).stat().st_size) < MOST_BYTES
        kept = [parameters] if fits and self.settings["parameters"] else []
        return [*kept, f"oof/{competition}/{run}.npz", f"reports/{competition}/history/{run}.csv"]

    def write(self) -> None:
        """Write the manifest: the runs, and SHA-256 of each file."""
        runs = {"trained": self.trained, "failed": self.failed, "left": list(self.waiting)}
        manifest = {"push": self.settings["push"], **runs, "files": self.hashes}
        WORKING.mkdir(parents=True, exist_ok=True)
        temporary = WORKING / f"{MANIFEST}.tmp"
        temporary.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        temporary.replace(WORKING / MANIFEST)  # the session may be killed at any time


def train_runs(output: Output, gpu: str, began: float) -> None:
    """Train one run after the other on one GPU, as long as the session lasts."""
    budget = output.settings["hours"] * 3600
    while run := output.next_run(budget - (time.monotonic() - began)):
        started = time.monotonic()
        exit_code = podium("train", run, "--competition", output.settings["competition"], gpu=gpu)
        output.add(run, exit_code, time.monotonic() - started)


if __name__ == "__main__" and (code := main(SETTINGS)):
    sys.exit(code)  # only on failure: where Kaggle runs a script as a notebook, every exit is a failure
