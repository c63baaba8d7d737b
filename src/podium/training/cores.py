"""Share the cores and GPUs of one machine among runs that train at the same time, each run in one process."""

import contextlib
import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

WAIT_SECONDS = 0.2


@contextlib.contextmanager
def claim_cores(
    count: int, *, on_wait: Callable[[], None] = lambda: None, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold `count` of this machine's cores, or all if it has fewer, and wait until other Podium runs leave them free.

    `on_wait` is called once when waiting begins, `while_waiting` every 0.2 s; either may raise.

    A core is a lock on a file in the temporary folder, which the system releases when a run is killed. A gate lock
    lets one run at a time collect its cores, which prevents deadlock.
    """
    cores, folder = len(os.sched_getaffinity(0)), _lock_folder()
    with contextlib.ExitStack() as claimed, (folder / "gate").open("w") as gate:
        attempts = _attempts(on_wait, while_waiting)
        while not _try_lock(gate):
            next(attempts)
        free, missing = [folder / str(core) for core in range(cores)], min(count, cores)
        while missing:
            for file in list(free):
                stream = file.open("w")
                if not _try_lock(stream):
                    stream.close()
                    continue
                claimed.enter_context(stream)
                free.remove(file)
                missing -= 1
                if not missing:
                    break
            else:
                next(attempts)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@contextlib.contextmanager
def claim_run(lock_file: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of one run, and wait until no other process holds it; `on_wait` is called once when waiting begins.

    Its holder may wait for cores, but who waits for it holds none, so that there is no deadlock.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        attempts = _attempts(on_wait, lambda: None)
        while not _try_lock(lock):
            next(attempts)
        yield


@contextlib.contextmanager
def claim_gpu(count: int) -> Iterator[int]:
    """Hold one of `count` GPUs, one that few of the other runs hold; a GPU may have several runs."""
    places = ((gpu, place) for place in itertools.count() for gpu in range(count))
    for gpu, place in places:
        with (_lock_folder() / f"gpu{gpu}-{place}").open("w") as lock:
            if _try_lock(lock):
                yield gpu
                return


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"podium-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder


def _attempts(on_wait: Callable[[], None], while_waiting: Callable[[], None]) -> Iterator[None]:
    """Wait before each further attempt."""
    on_wait()
    while True:
        while_waiting()
        time.sleep(WAIT_SECONDS)
        yield


def _try_lock(file: TextIO) -> bool:
    """Lock the file for this process; False where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
