"""Stamps: a run or an ensemble is up to date if a hash over everything that decides it is unchanged.

Only the standard library is imported, because make plans before an environment exists.
"""

import errno
import hashlib
import json
import math
import os
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from podium.config.keys import Competition, Ensemble, Recipe
from podium.config.schema import changed_keys, stamped_keys
from podium.errors import TrainingError
from podium.files import DAMAGE, read_json
from podium.plan.packages import find_weights
from podium.plan.paths import Paths

# Increased when a change of the training code changes the result of a recipe: every run is then stale.
TRAINING_VERSION = 1
# Increased when a change of the ensemble code changes what it writes.
ENSEMBLE_VERSION = 5

ABOUT_MEMBER = "about.json"
CRC_KEY = "crc32"
# The description is a few kilobytes; a larger one is refused before it is unpacked.
MOST_ABOUT_BYTES = 1 << 22

PROBABILITIES_KEY, CONTENT_KEY = "probabilities_sha256", "content_sha256"


class DamagedFileError(ValueError):
    """A predictions file is not what was written."""


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes; empty if there is no file."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ""


def lock_sha256(file: Path) -> str:
    """SHA-256 of data.lock without its digests of files, which decide no prediction; empty if there is no file."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return ""
    first, newline, rows = content.partition(b"\n")
    if b'"files": ' in first:
        with suppress(ValueError):
            head = {key: value for key, value in json.loads(first).items() if key != "files"}
            content = json.dumps(head, ensure_ascii=False).encode() + newline + rows
    return hashlib.sha256(content).hexdigest()


def run_stamp(competition: Competition, recipe: Recipe, seed: int, *, lock_sha256: str, **hashes: str) -> str:
    """The hash of everything that decides a run's predictions, except the weights file that it starts from.

    `hashes` are the SHA-256 of the other files that the recipe uses: their content counts, and not their place.
    """
    data = stamped_keys(competition.data)
    # Places of the data do not count: the lock has the data's fingerprint and order.
    places = "archive", "download", "fingerprint", "train", "test", "extra", "labels", "metadata", "sample_submission"
    for place in places:
        data.pop(place, None)
    settings = changed_keys(recipe)
    settings.pop("seeds", None)
    return _digest(
        version=TRAINING_VERSION,
        recipe=settings | hashes,
        seed=seed,
        data=data,
        validation=stamped_keys(competition.validation),
        lock=lock_sha256,
    )


def weights_sha256(recipe: Recipe, root: Path) -> str:
    """SHA-256 of the weights file, local or in a package, that a recipe starts from; empty if there is none here."""
    if recipe.weights_package:
        with suppress(TrainingError):  # training explains it
            return find_weights(recipe.weights_package).sha256
        return ""
    return file_sha256(root / recipe.pretrained) if isinstance(recipe.pretrained, str) else ""


def ensemble_stamp(paths: Paths, competition: Competition, settings: Ensemble | None = None) -> str:
    """The hash of everything that decides the ensemble of the runs in `oof/<competition>`.

    `settings` replace the competition's own for one command.
    """
    return _digest(
        version=ENSEMBLE_VERSION,
        metric=competition.metric,
        ensemble=asdict(settings or competition.ensemble),
        # Without keys that are empty, so that declaring such a key does not make ensembles stale.
        submission={name: value for name, value in asdict(competition.submission).items() if value},
        lock=lock_sha256(paths.lock_file),
        inputs=input_hashes(paths),
    )


def input_hashes(paths: Paths) -> dict[str, str]:
    """Run -> SHA-256 of its predictions file; in threads, as a thousand files are half a gigabyte or more."""
    files = paths.predictions_files()
    with ThreadPoolExecutor() as threads:
        return dict(zip([file.stem for file in files], threads.map(file_sha256, files), strict=True))


def ensemble_is_fresh(paths: Paths, competition: Competition, out: str = "ensemble") -> bool:
    """Whether the files `<out>` are, byte for byte, what the ensemble of the present runs wrote.

    Only a missing or damaged file is not: an OSError is raised.
    """
    folder = paths.submissions
    record = read_json(folder / f"{out}.json")
    if not isinstance(record, dict) or record.get("stamp") != ensemble_stamp(paths, competition):
        return False
    has_files = "" not in (record.get("csv_sha256", ""), record.get(PROBABILITIES_KEY, ""))
    return record == with_hashes(record, folder / out) and (has_files or not competition.data.test)


def with_hashes(record: dict[str, Any], stem: Path) -> dict[str, Any]:
    """The record of an ensemble with hashes of its CSV, of its probabilities, and of its own content."""
    files = {"csv_sha256": f"{stem.name}.csv", PROBABILITIES_KEY: f"{stem.name}.probabilities.npz"}
    record = record | {key: file_sha256(stem.with_name(name)) for key, name in files.items()}
    return record | {CONTENT_KEY: content_sha256(record)}


def content_sha256(record: dict[str, Any]) -> str:
    """The hash of the record of an ensemble without its own hash."""
    return _digest(**{key: value for key, value in record.items() if key != CONTENT_KEY})


def read_about(file: Path) -> dict[str, Any] | None:
    """The description in a predictions file, read without NumPy; None if the file is missing or damaged.

    An OSError, such as a missing permission, is raised.
    """
    try:
        with open_archive(file) as archive:
            about = parse_about(archive)
        return about if isinstance(about, dict) else None
    except (FileNotFoundError, DamagedFileError):
        return None


@contextmanager
def open_archive(file: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a predictions file as an archive; raises DamagedFileError, or OSError if the system cannot read it."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except DAMAGE as error:
        # A damaged archive may contain an offset before its start.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedFileError(f"{type(error).__name__}: {str(error)[:200]}") from None


def parse_about(archive: zipfile.ZipFile) -> Any:
    """The description in an open predictions file; raises KeyError or ValueError if there is none.

    A description that has the checksums of the arrays beside it belongs only to these; older files have none.
    """
    is_array = ABOUT_MEMBER not in archive.namelist()
    with archive.open("about.npy" if is_array else ABOUT_MEMBER) as member:
        content = member.read(MOST_ABOUT_BYTES + 1)
    if len(content) > MOST_ABOUT_BYTES:
        raise ValueError(f"{member.name} has more than {MOST_ABOUT_BYTES:,} bytes")
    if is_array:  # Older files have a header, whose length is in bytes 8 and 9, and one text in UTF-32.
        content = content[10 + int.from_bytes(content[8:10], "little") :].decode("utf-32-le")
    about = json.loads(content, parse_constant=_finite, parse_float=_finite, parse_int=_finite)
    checksums = about.pop(CRC_KEY, None) if isinstance(about, dict) else None
    if checksums not in (None, member_checksums(archive)):
        raise ValueError(f"the arrays are not those that were saved with {ABOUT_MEMBER}")
    return about


def _finite(text: str) -> float:
    """The number in a JSON file; raises ValueError unless it fits in a float64."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return int(text) if text.lstrip("-").isdigit() else number


def member_checksums(archive: zipfile.ZipFile) -> dict[str, int]:
    """CRC-32 of each array in a predictions file, from the archive's directory."""
    return {member.filename: member.CRC for member in archive.infolist() if member.filename != ABOUT_MEMBER}


def is_stale(about: dict[str, Any] | None, *, stamp: str, weights: str) -> bool:
    """Whether a run has no predictions, or predictions that were made from something else, by their description.

    `weights` is the SHA-256 of the weights file; it is empty, and not compared, if that file is not here.
    """
    found = about or {}
    return found.get("stamp") != stamp or (weights != "" and found.get("weights_sha256") != weights)


def git_commit(root: Path) -> str:
    """The commit of the checkout, marked if there are changes; without git or a checkout $PODIUM_COMMIT, or nothing."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        commit = ""
    return commit or os.environ.get("PODIUM_COMMIT", "")


def _digest(**content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
