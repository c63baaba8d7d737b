"""Files of a folder or a zip: names with forward slashes, and bytes.

A zip is read in place; tar and 7z archives are unpacked once into the cache. Unpacking a zip of 60,000 small images
takes longer than decoding all of them (6 s of CPU time), and needs 1.6 times the zip's disk space.
"""

import hashlib
import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from podium.data.unpack import damage_as_data_error, leads_out, refuse_bomb, refuse_empty, unpack, unsafe
from podium.errors import DataError
from podium.files import atomic_write, cache_lock, os_error_as, require_free_space

ARCHIVE_SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNREADABLE = "A file or folder cannot be read."


@dataclass(frozen=True)
class Folder:
    """A folder of the file system, without hidden files and `__MACOSX`; links are followed, each folder once."""

    root: Path

    @os_error_as(DataError, UNREADABLE)
    def names(self) -> list[str]:
        """Names of all files, sorted; raises DataError."""
        return sorted(name for name, entry in self._walk() if entry.is_file())

    @os_error_as(DataError, UNREADABLE)
    def broken_links(self) -> list[str]:
        """Names of broken links, sorted."""
        return sorted(name for name, entry in self._walk() if not entry.is_file())

    @os_error_as(DataError, UNREADABLE)
    def folders(self) -> list[str]:
        """Names of the top-level folders, including empty ones, sorted."""
        return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and _is_kept(entry.name))

    @os_error_as(DataError, UNREADABLE)
    def names_inside(self, other: "Folder") -> list[str]:
        """Names of the files that are, after all links are followed, in a folder of `other`, sorted."""
        folder_id = cache(_folder_id)
        inside = {folder_id(os.path.dirname(entry.path)) for _, entry in other._walk()}
        real_files = (
            (name, os.path.realpath(entry.path) if entry.is_symlink() else entry.path)
            for name, entry in self._walk()
            if entry.is_file()
        )
        return sorted(name for name, file in real_files if folder_id(os.path.dirname(file)) in inside)

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        return (self.root / name).is_dir()

    def has_file(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.root / name).is_file()

    def below(self, folder: str) -> "Folder":
        """The files of one folder, named relative to it."""
        return Folder(self.root / folder)

    @os_error_as(DataError, UNREADABLE)
    def read(self, name: str) -> bytes:
        """The bytes of one file; raises DataError."""
        return (self.root / name).read_bytes()

    def local_file(self, name: str, cache: Path) -> Path:
        """The path of one file."""
        return self.root / name

    def where(self, name: str = "") -> str:
        """The path of a file in messages."""
        return str(self.root / name)

    @os_error_as(DataError, UNREADABLE)
    def signature(self) -> str:
        """A hash over the names, sizes and times of all files; no file is read."""
        statuses = [(name, entry.stat()) for name, entry in self._walk() if entry.is_file()]
        lines = sorted(f"{name}\0{status.st_size}\0{status.st_mtime_ns}" for name, status in statuses)
        return hashlib.sha256("\n".join([*self.folders(), *lines]).encode(errors="surrogateescape")).hexdigest()

    def _walk(self) -> Iterator[tuple[str, os.DirEntry]]:
        """Name and entry of each file and of each broken link."""
        pending, seen = [("", self.root)], set()
        while pending:
            prefix, folder = pending.pop()
            if (identity := _folder_id(folder)) in seen:
                continue
            seen.add(identity)
            for entry in os.scandir(folder):
                if entry.is_dir() and _is_kept(entry.name):
                    pending.append((f"{prefix}{entry.name}/", Path(entry.path)))
                elif (entry.is_file() or entry.is_symlink()) and _is_kept(entry.name):
                    yield prefix + entry.name, entry


@dataclass(frozen=True)
class Zip:
    """A zip, or a folder in a zip, read in place; it has the methods of `Folder`."""

    file: Path
    prefix: str = ""

    def names(self) -> list[str]:
        """Names of all files, sorted; raises DataError."""
        return sorted(name for name in self._below() if name and not name.endswith("/"))

    def broken_links(self) -> list[str]:
        """Always empty: a zip with links is refused."""
        return []

    def folders(self) -> list[str]:
        """Names of the top-level folders, including empty ones, sorted."""
        return sorted({name.split("/", 1)[0] for name in self._below() if "/" in name})

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder of this name."""
        return any(other.startswith(f"{name}/") for other in self._below())

    def has_file(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.prefix + name in _open_zip(self.file)[1]

    def below(self, folder: str) -> "Zip":
        """The files of one folder, named relative to it."""
        return Zip(self.file, f"{self.prefix}{folder}/")

    def read(self, name: str) -> bytes:
        """The bytes of one file after its checksum was verified; raises DataError."""
        archive, members = _open_zip(self.file)
        member = members[self.prefix + name]
        with damage_as_data_error(self.where(name)):
            refuse_bomb(self.where(name), member.file_size, member.compress_size)
            return archive.read(member)

    def local_file(self, name: str, cache: Path) -> Path:
        """The path of a copy of one file in `cache`, which is written once; raises DataError."""
        archive, members = _open_zip(self.file)
        member = members[self.prefix + name]
        copy = _unpacked(self.file, cache).with_suffix(f".{name.replace('/', '-')}")
        with cache_lock(copy.with_name("lock")), damage_as_data_error(self.where(name)):
            if not copy.is_file():
                refuse_bomb(self.where(name), member.file_size, member.compress_size)
                require_free_space(copy.parent, member.file_size, what="The unpacked files")
                with archive.open(member) as content, atomic_write(copy) as stream:
                    shutil.copyfileobj(content, stream, 1 << 20)
        return copy

    def where(self, name: str = "") -> str:
        """The path of the zip, followed by the name in it."""
        return f"{self.file}/{self.prefix}{name}"

    def _below(self) -> Iterator[str]:
        skip = len(self.prefix)
        return (name[skip:] for name in _open_zip(self.file)[1] if name.startswith(self.prefix))


@dataclass(frozen=True)
class Memory:
    """Files in memory that are only read."""

    contents: Mapping[str, bytes]
    title: str

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self.contents)

    def broken_links(self) -> list[str]:
        """Always empty."""
        return []

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.contents[name]

    def where(self, name: str = "") -> str:
        """The title, followed by the name."""
        return f"{self.title}/{name}"


@dataclass(frozen=True)
class Joined:
    """The files of several parts that are only read; the name of a file begins with that of its part."""

    parts: Mapping[str, "Files"]

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises DataError."""
        part, rest = self._split(name)
        return self.parts[part].read(rest)

    def where(self, name: str = "") -> str:
        """The path of a file in messages."""
        if not name:
            return " and ".join(files.where() for files in self.parts.values())
        part, rest = self._split(name)
        return self.parts[part].where(rest)

    def _split(self, name: str) -> tuple[str, str]:
        part = next(part for part in self.parts if name.startswith(f"{part}/"))
        return part, name.removeprefix(f"{part}/")


Files = Folder | Zip
NO_FILES = Memory({}, "")


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
    with cache_lock(folder.with_name("lock")):
        if not folder.is_dir():
            unpack(path, folder)
    return Folder(folder)


def _folder_id(folder: Path | str) -> tuple[int, int]:
    """What all names of one folder have in common."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_kept(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _unpacked(file: Path, cache: Path) -> Path:
    key = hashlib.sha256(status_signature(file).encode(errors="surrogateescape")).hexdigest()[:16]
    return cache / "unpacked" / key


def _open_zip(file: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The zip, and its members by name; opened once for each version of the file."""
    status = os.stat(file)
    return _open_zip_once(file, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4)
def _open_zip_once(file: Path, version: tuple[int, int]) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    with damage_as_data_error(file):
        archive = zipfile.ZipFile(file)
    refuse_empty(file, sum(member.file_size == 0 for member in archive.infolist()))
    # Some archivers on Windows write backslashes, others a leading "./".
    members = [(member.filename.replace("\\", "/").removeprefix("./"), member) for member in archive.infolist()]
    faults = [f"{name}: leads out of its folder" for name, _ in members if leads_out(name)]
    kept = [(name, member) for name, member in members if "/." not in f"/{name}" and "__MACOSX/" not in name]
    faults += [f"{name}: a link" for name, member in kept if stat.S_ISLNK(member.external_attr >> 16)]
    faults += [f"{name}: encrypted" for name, member in kept if member.flag_bits & 1]
    counts = Counter(name for name, _ in kept)
    faults += [f"{name}: {count} times in the archive" for name, count in counts.items() if count > 1]
    if faults:
        raise unsafe(file, *faults)
    return archive, dict(kept)
