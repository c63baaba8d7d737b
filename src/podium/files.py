"""Writes that leave the old file or the new one, never half of one."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
