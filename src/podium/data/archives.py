"""Files of a folder or an archive under one interface: names with forward slashes, and bytes.

A zip is read in place; tar and 7z archives are unpacked once into the cache. Unpacking a zip of 60,000 small images
takes longer than decoding all of them (6 s of CPU time), and needs 1.6 times the zip's disk space.
"""

import hashlib
import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from podium.data.unpack import damaged, refuse_bomb, refuse_unsafe, unpack
from podium.errors import DataError
from podium.files import atomic_write, cache_lock, os_error_as_data_error

ARCHIVE_SUFFIXES = (
    ".zip",
    ".7z",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
)
# A file of an archive is read into memory at once: a larger file is no image.
MOST_FILE_BYTES = 1 << 28
UNREADABLE = "A file or folder cannot be read."
ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class Files(Protocol):
    """A tree of files, without hidden files and `__MACOSX` folders."""

    def names(self) -> list[str]:
        """Names of all files, with forward slashes, sorted."""

    def folders(self) -> list[str]:
        """Names of the top-level folders, including empty ones, sorted."""

    def below(self, folder: str) -> "Files":
        """The files of one folder, named relative to it."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises DataError."""

    def where(self, name: str = "") -> str:
        """The path of the file in messages."""


@dataclass(frozen=True)
class Folder:
    """A folder of the file system."""

    root: Path

    @os_error_as_data_error(UNREADABLE)
    def names(self) -> list[str]:
        """Names of all files; links are followed, each folder once."""
        return sorted(name for name, entry in self._walk() if entry.is_file())

    @os_error_as_data_error(UNREADABLE)
    def broken_links(self) -> list[str]:
        """Names of broken links."""
        return sorted(name for name, entry in self._walk() if not entry.is_file())

    @os_error_as_data_error(UNREADABLE)
    def folders(self) -> list[str]:
        """Names of the top-level folders."""
        return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and is_kept(entry.name))

    def below(self, folder: str) -> "Folder":
        """The files of one folder."""
        return Folder(self.root / folder)

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises DataError."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise DataError("A file cannot be read.", file=self.where(name), found=str(error)) from None

    def where(self, name: str = "") -> str:
        """The path."""
        return str(self.root / name)

    @os_error_as_data_error(UNREADABLE)
    def signature(self) -> str:
        """A hash over the names, sizes and times of all files; no file is read."""
        statuses = [(name, entry.stat()) for name, entry in self._walk() if entry.is_file()]
        lines = sorted(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in statuses)
        return hashlib.sha256("\n".join([*self.folders(), *lines]).encode(errors="surrogateescape")).hexdigest()

    def _walk(self) -> Iterator[tuple[str, os.DirEntry]]:
        pending, seen = [("", self.root)], set()
        while pending:
            prefix, folder = pending.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in os.scandir(folder):
                if not is_kept(entry.name):
                    continue
                if entry.is_dir():
                    pending.append((f"{prefix}{entry.name}/", Path(entry.path)))
                elif entry.is_file() or entry.is_symlink():  # a broken link is yielded too
                    yield prefix + entry.name, entry


@dataclass(frozen=True)
class Zip:
    """A zip, or a folder in a zip, read in place."""

    file: Path
    prefix: str = ""

    def names(self) -> list[str]:
        """Names of all files."""
        return sorted(name for name in self._below() if name and not name.endswith("/"))

    def folders(self) -> list[str]:
        """Names of the top-level folders."""
        return sorted({name.split("/", 1)[0] for name in self._below() if "/" in name})

    def below(self, folder: str) -> "Zip":
        """The files of one folder."""
        return Zip(self.file, f"{self.prefix}{folder}/")

    def read(self, name: str) -> bytes:
        """The bytes of one file after its checksum was verified; raises DataError."""
        archive, members = _open_zip(self.file)
        try:
            member = members[self.prefix + name]
            if member.file_size > MOST_FILE_BYTES:
                raise DataError("A file in an archive is too large.", file=self.where(name))
            refuse_bomb(self.file, member.file_size, member.compress_size)
            return archive.read(member)
        except KeyError:
            raise DataError("A file is not in its archive.", file=self.where(name)) from None
        except DataError:
            raise
        except ZIP_FAULTS as error:
            raise DataError("A file in an archive is damaged.", file=self.where(name), found=str(error)) from None

    def copy_out(self, name: str, target: Path) -> None:
        """Copy one file to `target`, atomically; raises DataError."""
        archive, members = _open_zip(self.file)
        member = members[self.prefix + name]
        target.parent.mkdir(parents=True, exist_ok=True)
        refuse_bomb(self.file, member.file_size, member.compress_size, onto=target.parent)
        try:
            with archive.open(member) as content, atomic_write(target) as stream:
                shutil.copyfileobj(content, stream, 1 << 20)
        except ZIP_FAULTS as error:
            raise DataError("A file in an archive is damaged.", file=self.where(name), found=str(error)) from None

    def where(self, name: str = "") -> str:
        """The path of the zip, followed by the name in it."""
        return f"{self.file}/{self.prefix}{name}"

    def _below(self) -> Iterator[str]:
        skip = len(self.prefix)
        return (name[skip:] for name in _open_zip(self.file)[1] if name.startswith(self.prefix))


@dataclass(frozen=True)
class Memory:
    """Files in memory."""

    contents: Mapping[str, bytes]
    title: str

    def names(self) -> list[str]:
        """Names of all files."""
        return sorted(self.contents)

    def folders(self) -> list[str]:
        """Names of the top-level folders."""
        return sorted({name.split("/", 1)[0] for name in self.contents if "/" in name})

    def below(self, folder: str) -> "Memory":
        """The files of one folder."""
        prefix = f"{folder}/"
        contents = {name.removeprefix(prefix): data for name, data in self.contents.items() if name.startswith(prefix)}
        return Memory(contents, self.where(folder))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.contents[name]

    def where(self, name: str = "") -> str:
        """The title, followed by the name."""
        return f"{self.title}/{name}"


def broken_links(files: Files) -> list[str]:
    """Names of broken links; an archive with links is refused when it is opened."""
    return files.broken_links() if isinstance(files, Folder) else []


def is_kept(name: str) -> bool:
    """Whether a file or folder of this name is used: hidden ones and `__MACOSX` are not."""
    return not name.startswith(".") and name != "__MACOSX"


def is_archive(name: str) -> bool:
    """Whether a file name has the suffix of an archive that Podium can read."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def without_archive_suffix(name: str) -> str:
    """`train` for `train.tar.gz`; other names are returned unchanged."""
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else name


def status_signature(file: Path) -> str:
    """Path, size and time of a file: identifies its content without reading it."""
    status = file.stat()
    return f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"


def open_files(path: Path, cache: Path) -> Files:
    """The files of a folder or an archive; tar and 7z archives are unpacked into `cache` once. Raises DataError."""
    if path.is_dir():
        return Folder(path)
    if path.name.lower().endswith(".zip"):
        return Zip(path)
    if not is_archive(path.name):
        known = ", ".join(ARCHIVE_SUFFIXES)
        raise DataError("Not an archive that Podium can read.", file=path, expected=f"a folder, or {known}")
    folder = _unpacked(path, cache)
    with cache_lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            unpack(path, folder)
    return Folder(folder)


def open_nested(files: Files, name: str, cache: Path) -> Files:
    """The files of an archive that is inside `files`. Raises DataError."""
    if isinstance(files, Folder):
        return open_files(files.root / name, cache)
    assert isinstance(files, Zip)
    outer = _unpacked(files.file, cache)
    inner = outer.with_name(f"{outer.name}-{name.replace('/', '-')}")
    with cache_lock(inner.with_name(f"{inner.name}.lock")):
        if not inner.is_file():
            files.copy_out(name, inner)
    return open_files(inner, cache)


def _unpacked(file: Path, cache: Path) -> Path:
    key = hashlib.sha256(status_signature(file).encode(errors="surrogateescape")).hexdigest()[:16]
    return cache / "unpacked" / key


def _open_zip(file: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    status = os.stat(file)
    # The process id is part of the key: processes that share a file handle would share its position.
    return _open_zip_once(file, (status.st_size, status.st_mtime_ns, os.getpid()))


@lru_cache(maxsize=4)
def _open_zip_once(file: Path, version: tuple[int, ...]) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_FAULTS as error:
        raise damaged(file, error) from None
    # Some archivers on Windows write backslashes, others a leading "./".
    members = [(member.filename.replace("\\", "/").removeprefix("./"), member) for member in archive.infolist()]
    kept = [(name, member) for name, member in members if "/." not in f"/{name}" and "__MACOSX/" not in name]
    faults = [f"{name}: a link" for name, member in kept if stat.S_ISLNK(member.external_attr >> 16)]
    faults += [f"{name}: encrypted" for name, member in kept if member.flag_bits & 1]
    counts = Counter(name for name, _ in kept)
    faults += [f"{name}: {count} times in the archive" for name, count in counts.items() if count > 1]
    # Names are checked before hidden files are removed: ".." counts as hidden.
    refuse_unsafe(file, (name for name, _ in members), faults)
    return archive, dict(kept)
