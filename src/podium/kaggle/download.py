"""A competition's files, fetched by the kaggle CLI and taken only when whole: a truncated zip has exit code 0 too."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from podium.data.archives import ZIP_FAULTS, Zip
from podium.data.unpack import RESERVE_BYTES
from podium.errors import DataError, KaggleError
from podium.kaggle.client import Kaggle
from podium.kaggle.session import Tell

ATTEMPTS = 3
# At least this fast, or it is given up; what is there is resumed by the next try.
BYTES_PER_SECOND = 100_000
LEAST_SECONDS = 1800
MOST_EXAMPLES = 5


def download(kaggle: Kaggle, folder: Path, *, tell: Tell) -> Path:
    """Fetch all files of a competition as `<folder>/<slug>.zip`, held against Kaggle's list of names and sizes.

    The file appears whole or not at all; what a broken connection left is resumed, what is damaged fetched anew.
    Raises KaggleError, and DataError for an archive that is not safe to read.
    """
    expected, are_all = kaggle.files()
    target = folder / f"{kaggle.slug}.zip"
    if target.is_file() and not _faults(target, expected):
        tell(f"{target} is here and whole; {_compared(expected, are_all)}")
        return target
    _refuse_full_disk(folder, expected)
    partial = folder / f".download-{kaggle.slug}"
    partial.mkdir(parents=True, exist_ok=True)
    fetched, faults = partial / target.name, ["nothing arrived"]
    seconds = LEAST_SECONDS + sum(expected.values()) / BYTES_PER_SECOND
    for attempt in range(ATTEMPTS):
        tell(f"fetching {kaggle.slug}" + (f" again, attempt {attempt + 1}: {faults[0]}" if attempt else ""))
        kaggle.download(partial, force=attempt > 0, timeout_seconds=seconds)
        faults = _faults(fetched, expected) if fetched.is_file() else faults
        if not faults:
            Zip(fetched).names()  # raises DataError for names that lead out of their folder
            os.replace(fetched, target)
            shutil.rmtree(partial)
            tell(f"{target} is whole; {_compared(expected, are_all)}")
            return target
    raise KaggleError(
        "The download is not whole, although the kaggle CLI says so.",
        file=fetched,
        faults=faults,
        fix=f"rm -r {partial}, then the same again; or fetch it by hand as {target}",
    )


def _compared(expected: Mapping[str, int], are_all: bool) -> str:
    """What a zip was held against."""
    if not expected:
        return "Kaggle lists no names and sizes to compare it with"
    if are_all:
        return f"{len(expected):,} file(s) with the names and sizes that Kaggle lists"
    return (
        f"{len(expected):,} file(s) with the names and sizes that Kaggle lists; it lists more, which were not compared"
    )


def _faults(file: Path, expected: Mapping[str, int]) -> list[str]:
    """What is missing or has another size in a zip; a zip without its end is one fault."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
    except ZIP_FAULTS as error:
        return [f"{file.stat().st_size:,} bytes of a zip that is cut or damaged ({error})"]
    missing = [name for name in expected if name not in sizes]
    odd = [
        f"{name}: {sizes[name]:,} bytes, Kaggle lists {size:,}"
        for name, size in expected.items()
        if sizes.get(name, size) != size
    ]
    return [f"{name}: missing" for name in missing[:MOST_EXAMPLES]] + odd[:MOST_EXAMPLES]


def _refuse_full_disk(folder: Path, expected: Mapping[str, int]) -> None:
    """The sizes are those of unpacked files: the zip is no larger, but the images will be unpacked one day."""
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(expected.values()) + RESERVE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            "The competition's files do not fit on the disk.",
            file=folder,
            expected=f"{needed:,} bytes free",
            found=f"{free:,}",
            fix="free space, or make data/ a link to a folder on a larger disk",
        )
