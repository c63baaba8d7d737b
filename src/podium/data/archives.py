"""Folders of images, and archives, which are unpacked into the cache once.

Archives are untrusted: no file outside the target folder, no links, no archive bombs.
"""

import errno
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from podium.errors import DataError
from podium.files import DAMAGE, cache_lock, os_error_as, require_free_space
from podium.plan.stamp import file_sha256

ARCHIVE_SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UNREADABLE = "A file or folder cannot be read."
# An archive that unpacks to more than this, and to more than 200 times its size, is refused: images do not
# compress that well.
HARMLESS_BYTES = 1 << 27
MOST_EXPANSION = 200
# Empty files and folders cost no bytes in an archive, but time: each takes 0.5 ms.
MOST_EMPTY = 50_000
ARCHIVE_FAULTS = (*DAMAGE, tarfile.TarError)

Member = tuple[str, int, bool, Any]
"""Name, unpacked bytes, whether it is a file or a folder (not a link or a device), and the library's own object."""


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


@os_error_as(DataError, UNREADABLE)
def file_digest(file: Path) -> str:
    """SHA-256 of a file; of a zip, over the names, sizes and CRC-32 of its members. Raises DataError.

    So a zip of 100 GB is not read, and one that is packed anew from the same files has the same digest.
    """
    if file.suffix.lower() != ".zip":
        return file_sha256(file)
    with _damage_as_data_error(file), zipfile.ZipFile(file) as archive:
        lines = sorted(f"{member.filename}\0{member.file_size}\0{member.CRC}\n" for member in archive.infolist())
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


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
            _unpack(path, folder)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    """Unpack an archive into `folder`, which is created completely or not at all; the caller has locked it."""
    unpack_kind = {".zip": _unpack_zip, ".7z": _unpack_7z}.get(file.suffix.lower(), _unpack_tar)
    temporary = folder.with_name(f"{folder.name}.tmp")
    try:
        with _damage_as_data_error(file):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            unpack_kind(file, temporary)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_zip(file: Path) -> None:
    """Raise DataError for a zip that is not safe to unpack."""
    with _damage_as_data_error(file), zipfile.ZipFile(file) as archive:
        list(_safe_members(file, _zip_members(file, archive)))


@contextmanager
def _damage_as_data_error(file: Path) -> Iterator[None]:
    """Replace what archive readers raise by a DataError: damage, or an error of the operating system."""
    try:
        yield
    except DataError:
        raise
    except ARCHIVE_FAULTS as error:
        # Archive readers raise OSErrors without a number for damage; EINVAL is a seek to a damaged offset.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            what, file = "The archive cannot be read or unpacked.", error.filename or file
            raise DataError(what, file=file, found=error.strerror) from None
        found = str(error.args[-1]) if error.args else type(error).__name__
        what = "The archive is damaged or truncated."
        raise DataError(what, file=file, found=found, fix="download it again") from None


def _encrypted(file: Path) -> DataError:
    fix = "unpack it with its password, and pass the folder as DATA="
    return DataError("The archive is encrypted.", file=file, fix=fix)


def _safe_members(file: Path, members: Iterable[Member]) -> Iterator[Any]:
    """The library's objects of the members, in turn; raises DataError at the first that is not safe to unpack."""
    total, empty, names, most_bytes = 0, 0, set(), _most_bytes(file)
    for name, size, is_plain, original in members:
        total, empty, fault = total + size, empty + (size == 0), ""
        if name.startswith("/") or ".." in name.split("/"):
            fault = f"{name}: leads out of its folder"
        elif not is_plain:
            fault = f"{name}: neither a file nor a folder (a link or a device)"
        elif size and name in names:
            fault = f"{name}: several times in the archive"
        elif empty > MOST_EMPTY:
            fault = f"more than {MOST_EMPTY:,} empty files and folders"
        elif total > most_bytes:
            fault = f"{total:,} bytes from {file.stat().st_size:,}, which is far more than its size"
        if fault:
            fix = "if you trust it, unpack it yourself, and pass the folder as DATA="
            raise DataError("The archive is not safe to unpack.", file=file, found=fault, fix=fix)
        names.add(name)
        yield original


def _most_bytes(file: Path) -> int:
    """The largest plausible size of an unpacked archive."""
    return max(HARMLESS_BYTES, MOST_EXPANSION * file.stat().st_size)


def _zip_members(file: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise _encrypted(file)
        info.filename = info.filename.replace("\\", "/")  # some archivers on Windows write backslashes
        yield info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16), info


def _unpack_zip(file: Path, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        members = list(_safe_members(file, _zip_members(file, archive)))
        require_free_space(folder, sum(member.file_size for member in members), what="The unpacked files")
        for member in members:
            with _damage_as_data_error(file / member.filename):
                archive.extract(member, folder)


def _unpack_tar(file: Path, folder: Path) -> None:
    with tarfile.open(file) as archive:
        members = ((info.name, info.size, info.isreg() or info.isdir(), info) for info in archive)
        for member in _safe_members(file, members):
            require_free_space(folder, member.size, what="The unpacked files")
            archive.extract(member, folder, set_attrs=False)
        _check_end(archive, most_bytes=_most_bytes(file))


def _check_end(archive: tarfile.TarFile, *, most_bytes: int) -> None:
    """Raise TarError unless a block of zeros ends the archive and only zeros follow.

    tarfile treats a damaged header as the end of the archive. Reading a compressed stream to its end verifies its
    checksum.
    """
    stream = archive.fileobj
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the archive is truncated: the end mark is missing")
    while block:
        if any(block) or stream.tell() > most_bytes:
            raise tarfile.ReadError(f"neither a header nor the end of the archive near byte {archive.offset:,}")
        block = stream.read(1 << 20)


def _unpack_7z(file: Path, folder: Path) -> None:
    import py7zr

    try:
        with py7zr.SevenZipFile(file) as archive:
            infos = archive.list()
            members = ((info.filename, info.uncompressed, info.is_file or info.is_directory, info) for info in infos)
            total = sum(info.uncompressed for info in _safe_members(file, members))
            require_free_space(folder, total, what="The unpacked files")
            archive.extractall(folder)
    except py7zr.exceptions.PasswordRequired:
        raise _encrypted(file) from None
    except py7zr.exceptions.CrcError as error:
        raise ValueError(f"wrong checksum of {error.filename}") from None
    except py7zr.exceptions.ArchiveError as error:
        raise ValueError(*error.args) from None
