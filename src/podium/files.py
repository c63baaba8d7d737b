"""Atomic writes and file locks."""

import csv
import errno
import fcntl
import glob
import json
import lzma
import os
import pickle
import secrets
import shutil
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from podium.errors import DataError, PodiumError

# What readers of files (the standard library's, NumPy's, Pillow's, torch's) raise for damaged or hostile content.
DAMAGE = (OSError, ValueError, EOFError, LookupError, ArithmeticError, RuntimeError, MemoryError, TypeError)
DAMAGE += (AttributeError, AssertionError, SyntaxError, tokenize.TokenError, csv.Error, struct.error)
DAMAGE += (zipfile.BadZipFile, zlib.error, lzma.LZMAError, pickle.UnpicklingError)
# Disk space that writing images leaves free.
RESERVE_BYTES = 1 << 29
LARGER_CACHE = "free space, or set PODIUM_CACHE to a folder on a larger disk"
# What a file system without locks answers, such as some network disks.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
LOCAL_DISK = "work in a folder on a local disk; for the cache alone, set PODIUM_CACHE to one"


@contextmanager
def atomic_write(file: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose content replaces `file` after it was flushed to disk.

    Missing parent folders are created. After an exception `file` is unchanged, and no temporary file is left. The
    temporary file that a killed process has left is removed by the next one that writes `file`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in file.parent.glob(f".{glob.escape(file.name)}.*.tmp"):
        _remove_unlocked(abandoned)
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        # Some network file systems have no locks: what a killed process leaves there stays.
        with _locked(temporary, "wb", tolerated=(OSError,)) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            os.replace(temporary, file)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and Path(error.filename or temporary) == temporary:
            error.filename = str(file)  # the system does not name it where a disk is full
        raise


def write_file(file: Path, content: bytes) -> None:
    """Replace `file` by one with this content, as `atomic_write` does."""
    with atomic_write(file) as stream:
        stream.write(content)


def read_json(file: Path) -> Any:
    """The content of a JSON file; None where it is missing or damaged. Another OSError is raised."""
    try:
        return parse_json(file.read_bytes())
    except FileNotFoundError:
        return None


def parse_json(content: bytes) -> Any:
    """The content of a JSON file; None where it is damaged, as by an unfinished merge."""
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        return None


@contextmanager
def _locked(
    file: Path, mode: str, operation: int = fcntl.LOCK_EX, *, tolerated: tuple[type[OSError], ...] = ()
) -> Iterator[BinaryIO]:
    """Open a file, locked until it is closed or the process ends; without a lock after the `tolerated` errors."""
    with file.open(mode) as stream:
        with suppress(*tolerated):
            fcntl.flock(stream, operation)
        if os.fstat(stream.fileno()).st_nlink:
            yield stream
            return
    # Another process has removed the file before it was locked.
    with _locked(file, mode, operation, tolerated=tolerated) as stream:
        yield stream


def _remove_unlocked(file: Path) -> None:
    """Remove a temporary file or a lock file, unless a process has locked it."""
    with suppress(OSError), _locked(file, "rb+", fcntl.LOCK_EX | fcntl.LOCK_NB):
        file.unlink()


@contextmanager
def file_lock(
    file: Path,
    *,
    refusal: Exception | None = None,
    on_wait: Callable[[], object] = lambda: None,
    inherited: bool = False,
) -> Iterator[None]:
    """Hold an exclusive lock on `file`; where another process holds it, raise the `refusal`, or else wait.

    `on_wait` is called before waiting. An `inherited` lock is also held by the child processes that are started
    meanwhile, until they end. The file is removed at the end; a killed process leaves it, empty and unlocked, to the
    next one. Raises PodiumError where the file system has no locks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(_remove_unlocked, file)
        try:
            try:
                stream = stack.enter_context(_locked(file, "ab", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                if refusal:
                    raise refusal from None
                on_wait()
                stream = stack.enter_context(_locked(file, "ab"))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            what = "This file system has no locks, so two commands at once could mix their files."
            raise PodiumError(what, file=file, found=error.strerror, fix=LOCAL_DISK) from None
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
    what, fix = "The cache cannot be written.", "set PODIUM_CACHE to a folder that can be written"
    with ExitStack() as stack:
        with os_error_as(DataError, what, fix=fix):
            stack.enter_context(file_lock(file))
        yield


def remove_abandoned_temporaries(cache: Path) -> None:
    """Remove what killed processes have left in the folders of the cache: `*.tmp` that nobody has locked."""
    for temporary in cache.glob("*/*.tmp"):
        with suppress(OSError), file_lock(temporary.with_name("lock"), refusal=BlockingIOError()):
            (shutil.rmtree if temporary.is_dir() else _remove_unlocked)(temporary)


def require_free_space(folder: Path, needed_bytes: int, *, what: str, fix: str = LARGER_CACHE) -> None:
    """Raise DataError where the files `what`, of `needed_bytes`, do not fit on the disk of `folder`."""
    needed_bytes, free_bytes = needed_bytes + RESERVE_BYTES, shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        expected, found = f"{needed_bytes:,} bytes free", f"{free_bytes:,}"
        raise DataError(f"{what} do not fit on the disk.", file=folder, expected=expected, found=found, fix=fix)
