"""Stamps: a run or an ensemble is up to date if a hash over everything that decides it is unchanged.

Only the standard library is imported, because make plans before an environment exists.
"""

import hashlib
import json
import os
import subprocess
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from podium.config.keys import Competition, Ensemble, Recipe
from podium.config.schema import changed_keys
from podium.plan.paths import Paths

# Increased when a change of the training code changes the result of a recipe: every run is then stale.
TRAINING_VERSION = 1
# Increased when a change of the ensemble code changes what it writes.
ENSEMBLE_VERSION = 4

ABOUT_MEMBER = "about.json"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes; empty if there is no file."""
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run_stamp(competition: Competition, recipe: Recipe, seed: int, *, lock_sha256: str) -> str:
    """The hash of everything that decides a run's predictions, except the weights file that it starts from."""
    data = asdict(competition.data)
    # Places of the data do not count: the lock has the data's fingerprint and order.
    for place in ("archive", "download", "fingerprint", "train", "test", "labels", "sample_submission"):
        del data[place]
    settings = changed_keys(recipe)
    settings.pop("seeds", None)
    return _digest(
        {
            "version": TRAINING_VERSION,
            "recipe": settings,
            "seed": seed,
            "data": data,
            "validation": asdict(competition.validation),
            "lock": lock_sha256,
        }
    )


def weights_sha256(recipe: Recipe, root: Path) -> str:
    """SHA-256 of the local weights file that a recipe starts from; empty if there is none."""
    return file_sha256(root / recipe.pretrained) if isinstance(recipe.pretrained, str) else ""


def ensemble_stamp(paths: Paths, competition: Competition, settings: Ensemble | None = None) -> str:
    """The hash of everything that decides the ensemble of the runs in `oof/<competition>`.

    `settings` replace the competition's own for one command.
    """
    files = sorted(paths.predictions_folder.glob("*.npz"))
    return _digest(
        {
            "version": ENSEMBLE_VERSION,
            "metric": competition.metric,
            "ensemble": asdict(settings or competition.ensemble),
            "submission": asdict(competition.submission),
            "lock": file_sha256(paths.lock_file),
            "inputs": {file.stem: file_sha256(file) for file in files},
        }
    )


def ensemble_is_fresh(paths: Paths, competition: Competition, out: str = "ensemble") -> bool:
    """Whether `<out>.csv` equals, byte for byte, what the ensemble of the present runs would write."""
    folder = paths.submissions
    try:
        record = json.loads((folder / f"{out}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or record.get("stamp") != ensemble_stamp(paths, competition):
        return False
    csv_sha256 = file_sha256(folder / f"{out}.csv")
    return bool(csv_sha256) and record.get("csv_sha256") == csv_sha256


def read_about(file: Path) -> dict[str, Any] | None:
    """The description in a predictions file, read without NumPy; None if it cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            about = parse_about(archive)
        return about if isinstance(about, dict) else None
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None


def parse_about(archive: zipfile.ZipFile) -> Any:
    """The description in an open predictions file; raises KeyError or ValueError if there is none."""
    if ABOUT_MEMBER in archive.namelist():
        return json.loads(archive.read(ABOUT_MEMBER))
    # Older files have a NumPy array instead: a header, whose length is in bytes 8 and 9, and one text in UTF-32.
    array = archive.read("about.npy")
    header_length = int.from_bytes(array[8:10], "little")
    return json.loads(array[10 + header_length :].decode("utf-32-le"))


def is_stale(predictions_file: Path, *, stamp: str, weights: str) -> bool:
    """Whether a run has no predictions, or predictions that were made from something else.

    `weights` is the SHA-256 of the weights file; it is empty, and not compared, if that file is not here.
    """
    about = read_about(predictions_file)
    if about is None or about.get("stamp") != stamp:
        return True
    return bool(weights) and about.get("weights_sha256") != weights


def git_commit(root: Path) -> str:
    """The commit of the checkout, marked if there are changes; without git or a checkout $PODIUM_COMMIT, or nothing."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        commit = ""
    return commit or os.environ.get("PODIUM_COMMIT", "")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
