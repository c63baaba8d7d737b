"""Unpack untrusted archives: no file outside the target folder, no links, no archive bombs."""

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.errors import DataError
from podium.files import remove_path, require_free_space

# An archive that unpacks to more than this, and to more than 200 times its size, is refused: images do not
# compress that well.
HARMLESS_BYTES = 1 << 27
MOST_EXPANSION = 200
# Empty files and folders cost no bytes in an archive, but time: each takes 0.5 ms.
MOST_EMPTY = 50_000
NOT_A_FILE = "neither a file nor a folder (a link or a device)"
# What zipfile, tarfile and py7zr raise on damaged files.
FORMAT_FAULTS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error)
ARCHIVE_FAULTS = (*FORMAT_FAULTS, EOFError, OSError, RuntimeError, ValueError, TypeError)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .tar.* or .7z into `folder`, which is created completely or not at all. Raises DataError.

    The caller holds a lock on the folder.
    """
    unpacked = folder.with_name(f"{folder.name}.tmp")
    try:
        with damage_as_data_error(file):
            remove_path(unpacked)
            unpacked.mkdir()
            if file.name.lower().endswith(".7z"):
                _unpack_7z(file, unpacked)
            else:
                _unpack_tar(file, unpacked)
            unpacked.rename(folder)
    finally:
        remove_path(unpacked)


@contextmanager
def damage_as_data_error(file: Path | str) -> Iterator[None]:
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
        raise damaged(file, error) from None


def damaged(file: Path | str, error: Exception) -> DataError:
    """The DataError for a damaged archive."""
    found = str(error.args[-1]) if error.args else type(error).__name__
    return DataError("The archive is damaged or truncated.", file=file, found=found, fix="download it again")


def unsafe(file: Path, *faults: str) -> DataError:
    """The DataError for an archive with names or members that are refused."""
    return DataError("The archive is not safe to read.", file=file, faults=faults)


def refuse_bomb(file: Path | str, unpacked_bytes: int, packed_bytes: int) -> None:
    """Raise DataError if the unpacked size is implausible."""
    if unpacked_bytes > max(HARMLESS_BYTES, MOST_EXPANSION * packed_bytes):
        raise DataError(
            "The archive unpacks to far more than its size.",
            file=file,
            expected=f"at most {MOST_EXPANSION} times its size",
            found=f"{unpacked_bytes:,} bytes from {packed_bytes:,}",
        )


def refuse_empty(file: Path, count: int) -> None:
    """Raise DataError if an archive has too many empty files and folders."""
    if count > MOST_EMPTY:
        raise DataError(
            "The archive has too many empty files and folders.",
            file=file,
            expected=f"at most {MOST_EMPTY:,}",
            found=f"{count:,} or more",
            fix="unpack it, and pass the folder as DATA=",
        )


def leads_out(name: str) -> bool:
    """Whether a name in an archive is absolute, or leads out of the folder that it is unpacked into."""
    return name.startswith("/") or ".." in name.split("/")


def _unpack_tar(file: Path, folder: Path) -> None:
    packed_bytes, total, empty = file.stat().st_size, 0, 0
    with tarfile.open(file) as archive:
        for member in archive:
            if leads_out(member.name):
                raise unsafe(file, f"{member.name}: leads out of its folder")
            if not (member.isreg() or member.isdir()):
                raise unsafe(file, f"{member.name}: {NOT_A_FILE}")
            total, empty = total + member.size, empty + (member.size == 0)
            refuse_empty(file, empty)
            refuse_bomb(file, total, packed_bytes)
            require_free_space(folder, member.size, what="The unpacked files")
            archive.extract(member, folder, set_attrs=False)
        _check_end(file, archive)


def _check_end(file: Path, archive: tarfile.TarFile) -> None:
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
        if any(block):
            raise tarfile.ReadError(f"neither a header nor the end of the archive near byte {archive.offset:,}")
        refuse_bomb(file, stream.tell(), file.stat().st_size)
        block = stream.read(1 << 20)


def _unpack_7z(file: Path, folder: Path) -> None:
    import py7zr

    try:
        with py7zr.SevenZipFile(file) as archive:
            members = archive.list()
            total = sum(member.uncompressed for member in members)
            refuse_bomb(file, total, file.stat().st_size)
            refuse_empty(file, sum(member.uncompressed == 0 for member in members))
            require_free_space(folder, total, what="The unpacked files")
            others = [member for member in members if not (member.is_file or member.is_directory)]
            if others:
                raise unsafe(file, *(f"{member.filename}: {NOT_A_FILE}" for member in others))
            archive.extractall(folder)  # refuses names that lead out of the folder
    except py7zr.exceptions.PasswordRequired:
        fix = "unpack it with its password, and pass the folder as DATA="
        raise DataError("The archive is encrypted.", file=file, fix=fix) from None
    except py7zr.exceptions.CrcError as error:
        raise damaged(file, ValueError(f"wrong checksum of {error.filename}")) from None
    except py7zr.exceptions.ArchiveError as error:
        raise damaged(file, error) from None
