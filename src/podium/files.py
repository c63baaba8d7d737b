"""Atomic writes and file locks."""

import fcntl
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from podium.errors import DataError, PodiumError

# Disk space that writing images leaves free.
RESERVE_BYTES = 1 << 29
LARGER_CACHE = "free space, or set PODIUM_CACHE to a folder on a larger disk"


@contextmanager
def atomic_write(file: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose content replaces `file` after it was flushed to disk.

    Missing parent folders are created. After an exception `file` is unchanged, and no temporary file is left. The
    temporary file that a killed process has left is removed by the next one that writes `file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(file)
    stream = _open_temporary(file)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(stream.name, file)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(stream.name)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(file)  # the system does not name it where a disk is full
        raise


def write_file(file: Path, content: bytes) -> None:
    """Replace `file` by one with this content, as `atomic_write` does."""
    with atomic_write(file) as stream:
        stream.write(content)


def read_json(file: Path) -> Any:
    """The content of a JSON file; None where it is missing or damaged. Another OSError is raised."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _open_temporary(file: Path) -> BinaryIO:
    """A new file beside `file`, locked until it is closed or the process ends."""
    while True:
        stream = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp").open("xb")
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        # Another process may have removed it before it was locked.
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()


def _remove_abandoned(file: Path) -> None:
    """Remove temporary files of `file` that no process has locked."""
    for temporary in file.parent.glob(f".{glob.escape(file.name)}.*.tmp"):
        with suppress(OSError), temporary.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextmanager
def file_lock(file: Path, *, refusal: Exception | None = None, inherited: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on `file`; where another process holds it, raise the `refusal`, or else wait.

    An `inherited` lock is also held by the child processes that are started meanwhile, until they end.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        # The lock is released when the file is closed or the process ends.
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if refusal else 0))
        except BlockingIOError:
            raise refusal from None
        os.set_inheritable(stream.fileno(), inherited)
        yield


@contextmanager
def os_error_as(
    kind: type[PodiumError], what: str, *, file: Path | None = None, fix: str | None = None
) -> Iterator[None]:
    """Replace an OSError by a `kind` of error with the message `what`, the file and the system's reason."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise kind(what, file=file or error.filename, found=found, fix=fix) from None


@contextmanager
def cache_lock(file: Path) -> Iterator[None]:
    """Hold a lock file in the cache; raises DataError if the cache cannot be written."""
    # Checked before locking, so that errors of the caller's code are not reported as errors of the lock.
    with os_error_as(DataError, "The cache cannot be written.", fix="set PODIUM_CACHE to a folder that can be written"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    with file_lock(file):
        yield


def remove_abandoned_temporaries(cache: Path) -> None:
    """Remove what killed processes have left in the folders of the cache: `*.tmp` where nobody holds the `lock`."""
    for lock in cache.glob("*/lock"):
        with suppress(OSError), file_lock(lock, refusal=BlockingIOError()):
            for temporary in lock.parent.glob("*.tmp"):
                remove_path(temporary)


def remove_path(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_free_space(folder: Path, needed_bytes: int, *, what: str, fix: str = LARGER_CACHE) -> None:
    """Raise DataError where the files `what`, of `needed_bytes`, do not fit on the disk of `folder`."""
    needed_bytes, free_bytes = needed_bytes + RESERVE_BYTES, shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        expected, found = f"{needed_bytes:,} bytes free", f"{free_bytes:,}"
        raise DataError(f"{what} do not fit on the disk.", file=folder, expected=expected, found=found, fix=fix)
