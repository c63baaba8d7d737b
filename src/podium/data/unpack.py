"""Unpack untrusted archives: no file outside the target folder, no links, no archive bombs."""

import errno
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from podium.errors import DataError

# An archive that unpacks to more than this, and to more than 200 times its size, is refused: images do not
# compress that well.
HARMLESS_BYTES = 1 << 27
MOST_EXPANSION = 200
# Disk space that unpacking leaves free.
RESERVE_BYTES = 1 << 29


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .tar.* or .7z into `folder`, which is created completely or not at all. Raises DataError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        unpacked = Path(temporary) / "files"
        unpacked.mkdir()
        if file.name.lower().endswith(".7z"):
            _unpack_7z(file, unpacked)
        else:
            _unpack_tar(file, unpacked)
        unpacked.rename(folder)


def refuse_unsafe(file: Path, names: Iterable[str], faults: Iterable[str] = ()) -> None:
    """Raise DataError if a name leads out of the target folder, or if there are other `faults`."""
    all_faults = [f"{name}: leads out of its folder" for name in names if _leads_out(name)] + list(faults)
    if all_faults:
        raise DataError("The archive is not safe to read.", file=file, faults=all_faults)


def refuse_bomb(file: Path, unpacked_bytes: int, packed_bytes: int, *, onto: Path | None = None) -> None:
    """Raise DataError if the unpacked size is implausible, or does not fit on the disk of the folder `onto`."""
    if unpacked_bytes > max(HARMLESS_BYTES, MOST_EXPANSION * packed_bytes):
        raise DataError(
            "The archive unpacks to far more than its size.",
            file=file,
            expected=f"at most {MOST_EXPANSION} times its size",
            found=f"{unpacked_bytes:,} bytes from {packed_bytes:,}",
        )
    if onto is not None and unpacked_bytes > shutil.disk_usage(onto).free - RESERVE_BYTES:
        raise DataError(
            "The unpacked archive does not fit on the disk.",
            file=file,
            expected=f"{unpacked_bytes + RESERVE_BYTES:,} bytes free in {onto.parent}",
            found=f"{shutil.disk_usage(onto).free:,}",
            fix="free space, or set PODIUM_CACHE to a folder on a larger disk",
        )


def _leads_out(name: str) -> bool:
    name = name.replace("\\", "/")
    return ".." in name.split("/") or name.startswith("/") or name[1:3] == ":/" or "\0" in name


def _unpack_tar(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file) as archive:
            members = _checked_members(file, archive, folder)
            for member in members:
                content = archive.extractfile(member)
                target = folder / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as stream:
                    shutil.copyfileobj(content, stream, 1 << 20)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise damaged(file, error) from None


def _checked_members(file: Path, archive: tarfile.TarFile, folder: Path) -> list[tarfile.TarInfo]:
    """The regular files of the archive; creates its folders after all headers were checked."""
    regular, folders, faults, total = [], [], [], 0
    packed_bytes = file.stat().st_size
    for member in archive:
        total += member.size
        refuse_bomb(file, total, packed_bytes, onto=folder)  # stops while reading a bomb
        if member.isdir():
            folders.append(member.name)
        elif member.isreg() and not member.issparse():
            regular.append(member)
        else:
            faults.append(f"{member.name}: neither a file nor a folder (a link or a device)")
    _check_end(file, archive, packed_bytes)
    refuse_unsafe(file, [*folders, *(member.name for member in regular)], faults)
    for name in folders:
        (folder / name).mkdir(parents=True, exist_ok=True)
    return regular


def _check_end(file: Path, archive: tarfile.TarFile, packed_bytes: int) -> None:
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
        refuse_bomb(file, stream.tell(), packed_bytes)
        block = stream.read(1 << 20)


def _unpack_7z(file: Path, folder: Path) -> None:
    import py7zr

    try:
        with py7zr.SevenZipFile(file) as archive:
            members = archive.list()
            total = sum(member.uncompressed for member in members)
            refuse_bomb(file, total, file.stat().st_size, onto=folder)
            other = [m.filename for m in members if m.is_symlink or not (m.is_file or m.is_directory)]
            faults = [f"{name}: neither a file nor a folder (a link or a device)" for name in other]
            refuse_unsafe(file, [member.filename for member in members], faults)
            archive.extractall(folder)
    except DataError:
        raise
    except py7zr.exceptions.PasswordRequired:
        fix = "unpack it with its password, and pass the folder as DATA="
        raise DataError("The archive is encrypted.", file=file, fix=fix) from None
    except py7zr.exceptions.CrcError as error:
        raise damaged(file, ValueError(f"wrong checksum of {error.filename}")) from None
    except py7zr.exceptions.ArchiveError as error:  # the message is the last argument
        raise damaged(file, ValueError(*error.args[-1:])) from None
    except (EOFError, OSError, ValueError, TypeError, zlib.error, lzma.LZMAError) as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> DataError:
    """The DataError for an archive that cannot be read: damaged, or an error of the operating system."""
    # Archive readers raise OSErrors without a number for damage; EINVAL is a seek to a damaged offset.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DataError("The archive cannot be read or unpacked.", file=error.filename or file, found=error.strerror)
    found = str(error) or type(error).__name__
    return DataError("The archive is damaged or truncated.", file=file, found=found, fix="download it again")
