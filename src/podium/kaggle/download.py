"""Download a competition's files, whole or not at all: the kaggle CLI's exit code is 0 for a truncated file."""

import difflib
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from podium.data.archives import ARCHIVE_FAULTS, check_zip, file_digest
from podium.errors import KaggleError, examples
from podium.files import require_free_space
from podium.kaggle.answers import CommandError
from podium.kaggle.client import Kaggle
from podium.kaggle.waiting import Log
from podium.workspace import Workspace

ATTEMPTS = 3
# A slower download is given up; the next command resumes it.
BYTES_PER_SECOND = 100_000
MIN_SECONDS = 1800
MAX_EXAMPLES = 5
SOME_FILES = "[kaggle] files in competition.toml, or SET='kaggle.files=[\"train.csv\"]' for make new"


def download(kaggle: Kaggle, folder: Path, names: Sequence[str] = (), *, log: Log) -> Path:
    """Fetch a competition's files, compared with Kaggle's list of names and sizes, and return where they are.

    All files come as `<folder>/<slug>.zip`. With `names`, or where there is only one file, each comes by itself into
    `<folder>/<slug>/`. An interrupted download is resumed, a damaged one is repeated. Raises KaggleError, and DataError
    for a zip with unsafe names or a full disk.
    """
    listed, is_complete = kaggle.files()
    whole, partial = folder / f"{kaggle.slug}.zip", folder / f".download-{kaggle.slug}"
    if len(listed) == 1 and not whole.is_file():
        names = names or list(listed)
    _check_names(names, listed, is_complete=is_complete)
    sizes = {name: size for name, size in listed.items() if not names or name in names}
    target = folder / kaggle.slug if names else whole
    missing = [name for name in names or [""] if _faults(target / name, name, sizes)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        # Kaggle lists the unpacked sizes, and the images are unpacked later.
        size = sum(size for name, size in sizes.items() if not names or name in missing)
        fix = f"free space, make data/ a link to a folder on a larger disk, or name the files to fetch: {SOME_FILES}"
        require_free_space(folder, size, what="The competition's files", fix=fix)
    for name in missing:
        fetched = _fetch(kaggle, name, partial / name, sizes, log=log)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(fetched, target / name)
    shutil.rmtree(partial, ignore_errors=True)
    state = "is whole" if missing else "exists and is whole"
    log(f"{target} {state}; {len(sizes):,} file(s) have the names and sizes that Kaggle lists")
    return target


def check_recorded(workspace: Workspace, folder: Path) -> int:
    """Compare the files in `folder` with those that data.lock was made from, and return how many are the same.

    Raises KaggleError where one is another file, and DataError.
    """
    if not workspace.paths.lock_file.is_file():
        return 0
    lock = workspace.lock
    digests = {name: file_digest(folder / name) for name in lock.files if (folder / name).is_file()}
    if changed := lock.changed_files(digests):
        raise KaggleError(
            "These are not the files that data.lock was made from.",
            file=folder,
            faults=[f"{name}: {digests[name][:12]}, data.lock has {lock.files[name][:12]}" for name in changed],
            fix="if Kaggle has changed them, accept the new ones (runs become stale if images or labels changed): "
            f"podium prepare --competition {workspace.name} --accept-data",
        )
    return len(digests)


def _check_names(names: Sequence[str], listed: Mapping[str, int], *, is_complete: bool) -> None:
    """Raise KaggleError for names that lead out of their folder, or that are not in a complete list."""
    if unsafe := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
        raise KaggleError(
            "A file has a name that is not safe.", found=examples(unsafe), fix=f"other names: {SOME_FILES}"
        )
    unknown = [name for name in names if name not in listed]
    if is_complete and unknown:
        nearest = difflib.get_close_matches(unknown[0], listed, n=1) or [*listed][:1]
        raise KaggleError(
            "The competition has no such file.",
            expected=f"one of {examples(listed, most=MAX_EXAMPLES)}",
            found=examples(unknown, most=MAX_EXAMPLES),
            fix=f"{' or '.join(map(repr, nearest))} as one of {SOME_FILES}",
        )


def _fetch(kaggle: Kaggle, name: str, folder: Path, sizes: Mapping[str, int], *, log: Log) -> Path:
    """Fetch the file `name`, or without a name all of them as a zip, into a folder of its own; raises KaggleError."""
    faults, is_damaged = [], False
    seconds = MIN_SECONDS + sum(sizes.values()) / BYTES_PER_SECOND
    for attempt in range(ATTEMPTS):
        again = f" again, attempt {attempt + 1}: {faults[0]}" if attempt else ""
        log(f"downloading {name or kaggle.slug}{again}")
        try:
            kaggle.download(folder, name, force=is_damaged, timeout_seconds=seconds)
        except CommandError as error:
            faults = [f"{error.what} {error.found}"]
            # The next attempt resumes a zip. The CLI may have written the text of an error, and would append the rest
            # to it: only the checksums in a zip show that.
            if _arrived(kaggle, name, folder).suffix != ".zip":
                shutil.rmtree(folder, ignore_errors=True)
            continue
        file = _arrived(kaggle, name, folder)
        faults = _faults(file, name, sizes)
        is_damaged = bool(faults)
        if not is_damaged:
            return _unpacked(file, name)
    raise KaggleError(
        "The download is not whole.",
        file=_arrived(kaggle, name, folder),
        faults=faults,
        fix=f"rm -r {folder}, then repeat the command; or download the files in a browser into {folder.parent}",
    )


def _arrived(kaggle: Kaggle, name: str, folder: Path) -> Path:
    """What the kaggle CLI has fetched: all files as a zip, the file `name`, or a zip that Kaggle has made of it."""
    base = PurePosixPath(name or f"{kaggle.slug}.zip").name
    files = (file for file in folder.rglob("*") if file.is_file() and file.name in (base, f"{base}.zip"))
    return next(files, folder / base)


def _unpacked(file: Path, name: str) -> Path:
    """The file itself, or the file `name` in the zip that Kaggle made of it; raises DataError for an unsafe zip."""
    base = PurePosixPath(name).name
    if file.suffix == ".zip":
        check_zip(file)
    if not name or file.name == base:
        return file
    with zipfile.ZipFile(file) as archive:
        return Path(archive.extract(base, file.parent))


def _faults(file: Path, name: str, sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with a file that was fetched as `name`; without a name, it is a zip of all the files in `sizes`."""
    base = PurePosixPath(name).name
    if not file.is_file():
        return ["nothing arrived"]
    if not name:
        return _zip_faults(file, sizes)
    if file.name != base:
        return _zip_faults(file, {base: sizes[name]} if name in sizes else {}, reads_all=True)
    found = file.stat().st_size
    if found != sizes.get(name, found):
        return [f"{name}: {found:,} bytes, Kaggle lists {sizes[name]:,}"]
    return _zip_faults(file, {}) if file.suffix == ".zip" else []


def _zip_faults(file: Path, expected: Mapping[str, int], *, reads_all: bool = False) -> list[str]:
    """Files that are missing in a zip or have another size; one fault for a zip that cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            if reads_all and (damaged := archive.testzip()):
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    except ARCHIVE_FAULTS as error:
        return [f"{file.stat().st_size:,} bytes of a zip that is cut or damaged ({error})"]
    missing = [f"{name}: missing" for name in expected if name not in sizes]
    wrong = [
        f"{name}: {sizes[name]:,} bytes, Kaggle lists {size:,}"
        for name, size in expected.items()
        if sizes.get(name, size) != size
    ]
    return missing[:MAX_EXAMPLES] + wrong[:MAX_EXAMPLES]
