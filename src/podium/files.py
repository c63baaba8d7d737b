"""Writes that leave the old file or the new one, never half of one."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from podium.errors import DataError


@contextmanager
def atomic_write(file: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose content becomes `file` once it is whole and on disk.

    Folders on the way are made. Left by an exception, `file` stays as it was and nothing lies beside it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


@contextmanager
def file_lock(file: Path, *, wait: bool = True, inherited: bool = False) -> Iterator[None]:
    """Hold `file` locked: another process that asks for the same lock waits until this one is done.

    Without `wait`, raises BlockingIOError where another process holds it. An `inherited` lock is held by the
    processes that are started meanwhile too, as long as they live.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        # Closing the file, or dying, gives the lock back.
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        os.set_inheritable(stream.fileno(), inherited)
        yield


@contextmanager
def refusals_told(what: str, *, fix: str | None = None) -> Iterator[None]:
    """Turn an OSError within into a DataError that says `what`, the file, and the system's own words."""
    try:
        yield
    except OSError as error:
        found = error.strerror or str(error)
        raise DataError(what, file=error.filename, found=found, fix=fix) from None


@contextmanager
def cache_lock(file: Path) -> Iterator[None]:
    """Hold a lock file of the cache; raises DataError where the cache cannot be written."""
    # Tried beforehand: what fails while the lock is held has nothing to do with the lock.
    with refusals_told("The cache cannot be written.", fix="set PODIUM_CACHE to a folder that can be written"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    with file_lock(file):
        yield
