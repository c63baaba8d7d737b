"""Folders of images, and archives, which are unpacked into the cache once."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from podium.data.unpack import unpack
from podium.errors import DataError
from podium.files import cache_lock, os_error_as

ARCHIVE_SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNREADABLE = "A file or folder cannot be read."


@os_error_as(DataError, UNREADABLE)
def file_names(root: Path) -> list[str]:
    """Names of all files below a folder, sorted, with forward slashes, without hidden ones and `__MACOSX`.

    Links are followed, each folder once. Raises DataError for broken links, or where a folder cannot be read.
    """
    names, broken, pending, seen = [], [], [("", root)], set()
    while pending:
        prefix, folder = pending.pop()
        status = os.stat(folder)
        if (identity := (status.st_dev, status.st_ino)) in seen:
            continue
        seen.add(identity)
        for entry in _visible(folder):
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry.path))
            elif entry.is_file():
                names.append(prefix + entry.name)
            elif entry.is_symlink():
                broken.append(entry.path)
    if broken:
        raise DataError("Some links are broken.", faults=sorted(broken), fix="remove them, or restore their targets")
    return sorted(names)


@os_error_as(DataError, UNREADABLE)
def folder_names(root: Path) -> list[str]:
    """Names of the top-level folders, including empty ones, sorted; raises DataError."""
    return sorted(entry.name for entry in _visible(root) if entry.is_dir())


def _visible(folder: Path | str) -> Iterator[os.DirEntry]:
    return (entry for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.name != "__MACOSX")


@os_error_as(DataError, UNREADABLE)
def read_file(file: Path | str) -> bytes:
    """The bytes of a file; raises DataError."""
    return Path(file).read_bytes()


@os_error_as(DataError, UNREADABLE)
def signature(path: Path) -> str:
    """Identifies a file, or the files of a folder, by names, sizes and times; no file is read. Raises DataError."""
    content = [str(path.resolve()), *(folder_names(path) if path.is_dir() else [])]
    for name in file_names(path) if path.is_dir() else [""]:
        status = os.stat(f"{path}/{name}" if name else path)
        content.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(content).encode(errors="surrogateescape")).hexdigest()


def is_archive(name: str) -> bool:
    """Whether a file name has the suffix of an archive that Podium can read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def without_archive_suffix(name: str) -> str:
    """`train` for `train.tar.gz`; other names are returned unchanged."""
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else name


def open_folder(path: Path, cache: Path) -> Path:
    """A folder itself; of an archive, the folder in the cache that it is unpacked into once. Raises DataError."""
    if path.is_dir():
        return path
    if not is_archive(path.name):
        known = ", ".join(ARCHIVE_SUFFIXES)
        raise DataError("Not an archive that Podium can read.", file=path, expected=f"a folder, or {known}")
    folder = cache / "unpacked" / f"{signature(path)[:16]}-{path.name}"  # messages show the archive's name
    with cache_lock(folder.with_name("lock")):
        if not folder.is_dir():
            unpack(path, folder)
    return folder
