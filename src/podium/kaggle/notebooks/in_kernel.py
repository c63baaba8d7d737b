"""What `make kernel` pushes: trains runs on Kaggle's machine, without a network, and leaves their predictions.

This very file runs there, with SETTINGS filled in, so it needs nothing but Python: Podium, and what Kaggle's image
lacks, come as wheels in the attached dataset. Output is a copy of each run's files and a manifest with their hashes.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {}

MANIFEST = "podium-output.json"
# Elsewhere than on Kaggle these say where things are: a rehearsal has a machine of its own.
INPUT = Path(os.environ.get("PODIUM_KERNEL_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("PODIUM_KERNEL_WORKING", "/kaggle/working"))
# Not below WORKING: everything there becomes the kernel's output, decoded images and parameters too.
PROJECT = Path(os.environ.get("PODIUM_KERNEL_PROJECT", "/tmp/podium"))


def main(settings: dict[str, Any]) -> int:
    """Train the runs that the settings name; 0 if there is output."""
    began = time.monotonic()
    files = attached(settings["dataset"], "datasets", holding=settings["listing"])
    lay_out(files, settings["listing"], PROJECT)
    install(files, settings["needs"])
    data = ["--data", str(attached(settings["source"], "competitions"))] if settings["source"] else []
    of = ["--competition", settings["competition"], *data]
    if podium("prepare", *of) != 0:
        sys.exit("The images that are attached cannot be prepared: see above.")
    output = Output(settings)
    workers = [threading.Thread(target=work, args=(output, of, gpu, began), daemon=True) for gpu in gpus()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    output.write()
    print(f"trained {output.trained}, failed {output.failed}, left for another kernel {output.left}", flush=True)
    return 0 if output.trained or output.left else 1


def attached(slug: str, kind: str, *, holding: str = "") -> Path:
    """The folder of an attached dataset or competition: Kaggle has two ways to mount it."""
    owner, _, name = slug.rpartition("/")
    places = [INPUT / kind / owner / name, INPUT / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        sys.exit(f"{slug} is not attached: no {places[0]}, no {places[1]}; {INPUT} has {names_in(INPUT)}")
    if holding and not (found / holding).is_file():
        sys.exit(f"{slug} is another version than this kernel was made for: no {holding} in {names_in(found)}")
    return found


def names_in(folder: Path) -> list[str]:
    """What a folder has, for a message."""
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def lay_out(files: Path, listing: str, project: Path) -> None:
    """Check every file of the dataset, and put those that have a place there."""
    faults = []
    for one in json.loads((files / listing).read_text(encoding="utf-8")):
        file = files / one["name"]
        if not file.is_file() or sha256_of(file) != one["sha256"]:
            faults.append(one["name"])
        elif one["place"]:
            (project / one["place"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, project / one["place"])
    if faults:
        sys.exit(f"The attached dataset is not as it was sent: {', '.join(faults)}; FORCE=1 sends it again")


def install(files: Path, needs: dict[str, list[str]]) -> None:
    """Install Podium, and for every need that this image does not meet the distributions that do."""
    wheel = next(file for file in sorted(files.iterdir()) if file.name.startswith("podium-"))
    unmet = [need for need in needs if not is_met(need)]
    print(f"this image lacks {', '.join(unmet) or 'nothing'}", flush=True)
    if lacking := [need for need in unmet if not needs[need]]:
        sys.exit(f"Kaggle's image is too old, or another one: it lacks {', '.join(lacking)}")
    # Each without what it asks for: an image of hundreds of packages is never as pip would have it.
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--quiet",
    ]
    pip += ["--no-index", "--no-deps", "--force-reinstall", "--find-links", str(files)]
    if subprocess.run([*pip, str(wheel), *(name for need in unmet for name in needs[need])]).returncode != 0:
        sys.exit("What this image lacks is in no wheel of the dataset that fits it: see above.")


def is_met(need: str) -> bool:
    """Whether this Python has a distribution, and not too old."""
    name, _, least = need.partition(">=")
    try:
        return numbers(version(name)) >= numbers(least)
    except PackageNotFoundError:
        return False


def numbers(text: str) -> list[int]:
    """The numbers that a version begins with."""
    return [int(one) for one in re.match(r"[0-9.]*", text)[0].split(".") if one]


def podium(*words: str, gpu: str = "") -> int:
    """Run Podium on the laid out project; returns its exit code."""
    own = {"PODIUM_WEIGHTS": str(PROJECT / "published"), "PODIUM_COMMIT": SETTINGS.get("commit", "")}
    own["WANDB_MODE"] = "disabled"  # there is neither a network nor an account, whatever `trackers` ask for
    environment = os.environ | own
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return subprocess.run([sys.executable, "-m", "podium", *words], cwd=PROJECT, env=environment).returncode


def gpus() -> list[str]:
    """The GPUs' numbers; one worker without a number where there is none."""
    try:
        told = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    except OSError:
        told = ""
    return [str(place) for place in range(told.count("GPU "))] or [""]


class Output:
    """The kernel's output, whole after every run: what ends a kernel early costs the runs that are not done."""

    def __init__(self, settings: dict[str, Any]):
        self.settings, self.waiting, self.longest = settings, deque(settings["runs"]), 0.0
        self.trained: list[str] = []
        self.failed: list[str] = []
        self.left: list[str] = []
        self.lock = threading.Lock()

    def next_run(self, seconds_left: float) -> str | None:
        """The next run; none once the session may end before a run like those before would."""
        with self.lock:
            if self.waiting and self.longest > seconds_left:
                self.left += self.waiting
                self.waiting.clear()
            return self.waiting.popleft() if self.waiting else None

    def add(self, run: str, code: int, seconds: float) -> None:
        """Take in a run that has ended."""
        with self.lock:
            self.longest = max(self.longest, seconds)
            if code == 0:
                for file in self.files(run):
                    (WORKING / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(PROJECT / file, WORKING / file)
            (self.failed if code else self.trained).append(run)
            self.write()

    def files(self, run: str) -> list[str]:
        """A run's files, relative to a project."""
        competition = self.settings["competition"]
        return [f"oof/{competition}/{run}.npz", f"reports/{competition}/history/{run}.csv"]

    def write(self) -> None:
        """Write the manifest beside the files that it speaks of."""
        told = {name: getattr(self, name) for name in ("trained", "failed", "left")}
        files = [file for run in self.trained for file in self.files(run)]
        told["files"] = {file: sha256_of(WORKING / file) for file in files}
        WORKING.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"push": self.settings["push"], **told}, indent=2)
        part = WORKING / f"{MANIFEST}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(WORKING / MANIFEST)  # whole also where the session ends right now


def work(output: Output, of: list[str], gpu: str, began: float) -> None:
    """Train one run after the other on one GPU."""
    budget = output.settings["hours"] * 3600
    while run := output.next_run(budget - (time.monotonic() - began)):
        started = time.monotonic()
        code = podium("train", run, *of, gpu=gpu)
        output.add(run, code, time.monotonic() - started)


if __name__ == "__main__" and (code := main(SETTINGS)):
    sys.exit(code)  # only then: where Kaggle runs a script as a notebook, any exit is a failure
