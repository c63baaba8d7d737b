"""Files to read images from: a folder, a zip read where it lies, other archives unpacked once.

Everything below the top looks the same from outside: names with forward slashes, and bytes.
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
from podium.files import atomic_write, cache_lock, refusals_told

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
# One file of an archive is read into memory whole: more than this is no image.
MOST_BYTES_OF_A_FILE = 1 << 28
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
    """A tree of files; hidden files and what macOS leaves behind are not in it."""

    def names(self) -> list[str]:
        """Names of all files, with forward slashes, sorted."""

    def folders(self) -> list[str]:
        """Names of the folders at the top, empty ones too, sorted."""

    def below(self, folder: str) -> "Files":
        """The files of one folder, under shorter names."""

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises DataError."""

    def where(self, name: str = "") -> str:
        """What to call the file in front of a person."""


@dataclass(frozen=True)
class Folder:
    """A folder of the file system."""

    root: Path

    @refusals_told(UNREADABLE)
    def names(self) -> list[str]:
        """Names of all files; links are followed, circles once."""
        return sorted(name for name, entry in self._walk() if entry.is_file())

    @refusals_told(UNREADABLE)
    def broken_links(self) -> list[str]:
        """Names of links that lead nowhere."""
        return sorted(name for name, entry in self._walk() if not entry.is_file())

    @refusals_told(UNREADABLE)
    def folders(self) -> list[str]:
        """Names of the folders at the top."""
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

    @refusals_told(UNREADABLE)
    def signature(self) -> str:
        """A hash over names, sizes and times: changes when a file does, and reads none of them."""
        found = [(name, entry.stat()) for name, entry in self._walk() if entry.is_file()]
        lines = sorted(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in found)
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
                elif entry.is_file() or entry.is_symlink():  # a link to neither leads nowhere
                    yield prefix + entry.name, entry


@dataclass(frozen=True)
class Zip:
    """A zip, or a folder in it, read where it lies."""

    file: Path
    prefix: str = ""

    def names(self) -> list[str]:
        """Names of all files."""
        return sorted(name for name in self._below() if name and not name.endswith("/"))

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        return sorted({name.split("/", 1)[0] for name in self._below() if "/" in name})

    def below(self, folder: str) -> "Zip":
        """The files of one folder."""
        return Zip(self.file, f"{self.prefix}{folder}/")

    def read(self, name: str) -> bytes:
        """The bytes of one file, its checksum verified; raises DataError."""
        archive, members = _open_zip(self.file)
        try:
            member = members[self.prefix + name]
            if member.file_size > MOST_BYTES_OF_A_FILE:
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
            with archive.open(member) as inside, atomic_write(target) as outside:
                shutil.copyfileobj(inside, outside, 1 << 20)
        except ZIP_FAULTS as error:
            raise DataError("A file in an archive is damaged.", file=self.where(name), found=str(error)) from None

    def where(self, name: str = "") -> str:
        """The path of the zip, then the name in it."""
        return f"{self.file}/{self.prefix}{name}"

    def _below(self) -> Iterator[str]:
        skip = len(self.prefix)
        return (name[skip:] for name in _open_zip(self.file)[1] if name.startswith(self.prefix))


@dataclass(frozen=True)
class Memory:
    """Files that live in memory."""

    contents: Mapping[str, bytes]
    title: str

    def names(self) -> list[str]:
        """Names of all files."""
        return sorted(self.contents)

    def folders(self) -> list[str]:
        """Names of the folders at the top."""
        return sorted({name.split("/", 1)[0] for name in self.contents if "/" in name})

    def below(self, folder: str) -> "Memory":
        """The files of one folder."""
        inside = {name: data for name, data in self.contents.items() if name.startswith(f"{folder}/")}
        return Memory({name[len(folder) + 1 :]: data for name, data in inside.items()}, self.where(folder))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.contents[name]

    def where(self, name: str = "") -> str:
        """What to call the file."""
        return f"{self.title}/{name}"


def broken_links(files: Files) -> list[str]:
    """Names of links that lead nowhere; in an archive no link is let in."""
    return files.broken_links() if isinstance(files, Folder) else []


def is_kept(name: str) -> bool:
    """Whether a file or folder of that name counts: hidden ones and `__MACOSX` do not."""
    return not name.startswith(".") and name != "__MACOSX"


def is_archive(name: str) -> bool:
    """Whether a file name has the suffix of an archive that Podium reads."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def without_archive_suffix(name: str) -> str:
    """`train` for `train.tar.gz`; a name without such a suffix stays."""
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -len(max(suffixes, key=len))] if suffixes else name


def status_signature(file: Path) -> str:
    """The cheap identity of one file: path, size and time."""
    status = file.stat()
    return f"{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"


def open_files(path: Path, cache: Path) -> Files:
    """The files of a folder or an archive; tar and 7z are unpacked into `cache` once. Raises DataError."""
    if path.is_dir():
        return Folder(path)
    if path.name.lower().endswith(".zip"):
        return Zip(path)
    if not is_archive(path.name):
        known = ", ".join(ARCHIVE_SUFFIXES)
        raise DataError("Not an archive that Podium reads.", file=path, expected=f"a folder, or {known}")
    folder = _unpacked(path, cache)
    with cache_lock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            unpack(path, folder)
    return Folder(folder)


def open_nested(files: Files, name: str, cache: Path) -> Files:
    """The files of an archive that lies inside `files`. Raises DataError."""
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
    # The process is part of the key: two processes that share a handle would share its position.
    return _open_zip_once(file, (status.st_size, status.st_mtime_ns, os.getpid()))


@lru_cache(maxsize=4)
def _open_zip_once(file: Path, version: tuple[int, ...]) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_FAULTS as error:
        raise damaged(file, error) from None
    # Some archivers on Windows write backslashes, some elsewhere a dot in front.
    members = [(member.filename.replace("\\", "/").removeprefix("./"), member) for member in archive.infolist()]
    kept = [(name, member) for name, member in members if "/." not in f"/{name}" and "__MACOSX/" not in name]
    faults = [f"{name}: a link" for name, member in kept if stat.S_ISLNK(member.external_attr >> 16)]
    faults += [f"{name}: encrypted" for name, member in kept if member.flag_bits & 1]
    counts = Counter(name for name, _ in kept)
    faults += [f"{name}: {count} times in the archive" for name, count in counts.items() if count > 1]
    # `..` starts with a dot and is hidden: names are judged before that.
    refuse_unsafe(file, (name for name, _ in members), faults)
    return archive, dict(kept)
