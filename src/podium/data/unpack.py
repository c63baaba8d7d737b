"""Archives unpacked without trust: nothing leaves its folder, no link is made, no bomb fills the disk."""

import errno
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from podium.errors import DataError

# Below this an archive may hold anything; above it, no honest archive of images packs this well.
HARMLESS_BYTES = 1 << 27
MOST_TIMES_PACKED = 200
# Left free on the disk for everything else.
RESERVE_BYTES = 1 << 29


def unpack(file: Path, folder: Path) -> None:
    """Unpack a .tar.* or .7z into `folder`, which appears whole or not at all. Raises DataError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        inside = Path(temporary) / "files"
        inside.mkdir()
        if file.name.lower().endswith(".7z"):
            _unpack_7z(file, inside)
        else:
            _unpack_tar(file, inside)
        inside.rename(folder)


def refuse_unsafe(file: Path, names: Iterable[str], faults: Iterable[str] = ()) -> None:
    """Raise DataError if a name would lead out of its folder, or if there are other faults."""
    outside = [f"{name}: leads out of its folder" for name in names if _leads_out(name)]
    if found := [*outside, *faults]:
        raise DataError("An archive that is not safe to read.", file=file, faults=found)


def refuse_bomb(file: Path, unpacked_bytes: int, packed_bytes: int, *, onto: Path | None = None) -> None:
    """Raise DataError if so many bytes are no honest content, or do not fit on the disk of `onto`."""
    if unpacked_bytes > max(HARMLESS_BYTES, MOST_TIMES_PACKED * packed_bytes):
        raise DataError(
            "An archive that unpacks to far more than it holds.",
            file=file,
            expected=f"at most {MOST_TIMES_PACKED} times its size",
            found=f"{unpacked_bytes:,} bytes out of {packed_bytes:,}",
        )
    if onto is not None and unpacked_bytes > shutil.disk_usage(onto).free - RESERVE_BYTES:
        raise DataError(
            "An archive that does not fit on the disk.",
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
    """The regular files; folders are made. All headers are judged before a byte is written."""
    regular, folders, faults, total = [], [], [], 0
    packed_bytes = file.stat().st_size
    for member in archive:
        total += member.size
        refuse_bomb(file, total, packed_bytes, onto=folder)  # a bomb is dropped on its way, not counted out
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
    """Raise TarError unless a block of zeros ends the archive, and nothing but zeros follows.

    tarfile takes a damaged header for the end. Read to its last byte, a packed stream checks its own sum.
    """
    stream = archive.fileobj
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the archive ends without its end mark: it is cut")
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
        fix = "unpack it with its password, and give the folder as DATA="
        raise DataError("An encrypted archive.", file=file, fix=fix) from None
    except py7zr.exceptions.CrcError as error:
        raise damaged(file, ValueError(f"wrong checksum of {error.filename}")) from None
    except py7zr.exceptions.ArchiveError as error:  # some carry data before their words
        raise damaged(file, ValueError(*error.args[-1:])) from None
    except (EOFError, OSError, ValueError, TypeError, zlib.error, lzma.LZMAError) as error:
        raise damaged(file, error) from None


def damaged(file: Path, error: Exception) -> DataError:
    """What to raise for an archive that cannot be read: its fault, or the operating system's."""
    # Readers of archives raise OSErrors of their own, without a number; EINVAL is a seek to a damaged place.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DataError("An archive cannot be read or unpacked.", file=error.filename or file, found=error.strerror)
    found = str(error) or type(error).__name__
    return DataError("A damaged or truncated archive.", file=file, found=found, fix="fetch it again")
