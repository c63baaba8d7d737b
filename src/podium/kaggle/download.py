"""Download a competition's files, whole or not at all: the kaggle CLI's exit code is 0 for a truncated zip."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from podium.data.archives import ARCHIVE_FAULTS, check_zip
from podium.errors import KaggleError
from podium.files import require_free_space
from podium.kaggle.answers import CommandError
from podium.kaggle.client import Kaggle
from podium.kaggle.waiting import Log

ATTEMPTS = 3
# A slower download is given up; the next command resumes it.
BYTES_PER_SECOND = 100_000
MIN_SECONDS = 1800
MAX_EXAMPLES = 5


def download(kaggle: Kaggle, folder: Path, *, log: Log) -> Path:
    """Fetch all files of a competition as `<folder>/<slug>.zip`, compared with Kaggle's list of names and sizes.

    An interrupted download is resumed, a damaged one is repeated. Raises KaggleError, and DataError for a zip with
    unsafe names or a full disk.
    """
    expected, target = kaggle.files(), folder / f"{kaggle.slug}.zip"
    compared = f"{len(expected):,} file(s) have the names and sizes that Kaggle lists"
    if target.is_file() and not _faults(target, expected):
        log(f"{target} exists and is whole; {compared}")
        return target
    partial = folder / f".download-{kaggle.slug}"
    partial.mkdir(parents=True, exist_ok=True)
    # Kaggle lists the unpacked sizes, and the images are unpacked later.
    fix = "free space, or make data/ a link to a folder on a larger disk"
    require_free_space(folder, sum(expected.values()), what="The competition's files", fix=fix)
    fetched, faults, is_damaged = partial / target.name, [], False
    seconds = MIN_SECONDS + sum(expected.values()) / BYTES_PER_SECOND
    for attempt in range(ATTEMPTS):
        log(f"downloading {kaggle.slug}" + (f" again, attempt {attempt + 1}: {faults[0]}" if attempt else ""))
        try:
            kaggle.download(partial, force=is_damaged, timeout_seconds=seconds)
        except CommandError as error:  # the next attempt resumes it
            faults = [f"{error.what} {error.found}"]
            continue
        faults = _faults(fetched, expected) if fetched.is_file() else ["nothing arrived"]
        is_damaged = bool(faults)
        if not is_damaged:
            check_zip(fetched)
            os.replace(fetched, target)
            shutil.rmtree(partial)
            log(f"{target} is whole; {compared}")
            return target
    raise KaggleError(
        "The download is not whole.",
        file=fetched,
        faults=faults,
        fix=f"rm -r {partial}, then repeat the command; or download the files in a browser as {target}",
    )


def _faults(file: Path, expected: Mapping[str, int]) -> list[str]:
    """Files that are missing in a zip or have another size; one fault for a zip that cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
    except ARCHIVE_FAULTS as error:
        return [f"{file.stat().st_size:,} bytes of a zip that is cut or damaged ({error})"]
    missing = [f"{name}: missing" for name in expected if name not in sizes]
    wrong = [
        f"{name}: {sizes[name]:,} bytes, Kaggle lists {size:,}"
        for name, size in expected.items()
        if sizes.get(name, size) != size
    ]
    return missing[:MAX_EXAMPLES] + wrong[:MAX_EXAMPLES]
