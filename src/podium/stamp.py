"""Up to date by content: what a run or an ensemble was made of, as one hash.

Only the standard library is imported: the Makefile asks before any environment exists.
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

from podium.config import Competition, Ensemble, Recipe, read_competition
from podium.project import Project
from podium.settings import changed_keys

# Raised when a change of the training code changes what a recipe means: every run is then stale.
TRAINING_VERSION = 1
# Raised when a change of the ensemble code changes what it writes.
ENSEMBLE_VERSION = 3

ABOUT_MEMBER = "about.npy"


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, or an empty string where there is no file."""
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run_stamp(competition: Competition, recipe: Recipe, seed: int, *, lock_sha256: str) -> str:
    """The hash of everything that decides a run's predictions, but for the weights file it starts from."""
    data = asdict(competition.data)
    for where in ("archive", "download", "fingerprint", "train", "test", "labels", "sample_submission"):
        del data[where]  # where the data lie, not what they are: the lock has their fingerprint and order
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
    """SHA-256 of the local weights file that a recipe starts from; empty without one."""
    return file_sha256(root / recipe.pretrained) if isinstance(recipe.pretrained, str) else ""


def ensemble_stamp(project: Project, competition_name: str, settings: Ensemble | None = None) -> str:
    """The hash of everything that decides the ensemble of the runs in `oof/<competition>`.

    `settings` stand for the competition's own where others were asked for once.
    """
    competition = read_competition(project.competition_folder(competition_name))
    files = sorted(project.predictions_folder(competition_name).glob("*.npz"))
    return _digest(
        {
            "version": ENSEMBLE_VERSION,
            "metric": competition.metric,
            "ensemble": asdict(settings or competition.ensemble),
            "submission": asdict(competition.submission),
            "lock": file_sha256(project.lock_file(competition_name)),
            "inputs": {file.stem: file_sha256(file) for file in files},
        }
    )


def ensemble_is_fresh(project: Project, competition_name: str, out: str = "ensemble") -> bool:
    """Whether `<out>.csv` is, to the byte, what the ensemble of the runs that are here would write."""
    folder = project.submissions_folder(competition_name)
    try:
        made = json.loads((folder / f"{out}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(made, dict) or made.get("stamp") != ensemble_stamp(project, competition_name):
        return False
    written = file_sha256(folder / f"{out}.csv")
    return bool(written) and made.get("csv_sha256") == written


def read_about(file: Path) -> dict[str, Any] | None:
    """What a predictions file says of itself, read without NumPy; None where it cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            raw = archive.read(ABOUT_MEMBER)
        header_bytes = int.from_bytes(raw[8:10], "little")
        about = json.loads(raw[10 + header_bytes :].decode("utf-32-le"))
        return about if isinstance(about, dict) else None
    except (OSError, KeyError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None


def is_stale(project: Project, competition_name: str, run: str, *, stamp: str, weights: str) -> bool:
    """Whether a run has no predictions, or predictions of something else.

    A weights file that is not here cannot have changed a run that is: it is not asked for again.
    """
    about = read_about(project.predictions_file(competition_name, run))
    if about is None or about.get("stamp") != stamp:
        return True
    return bool(weights) and about.get("weights_sha256") != weights


def git_commit(root: Path) -> str:
    """The commit of the checkout, marked where it has changes; outside one $PODIUM_COMMIT, or nothing."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        said = ""
    return said or os.environ.get("PODIUM_COMMIT", "")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
