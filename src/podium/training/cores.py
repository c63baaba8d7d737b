"""Share the cores and GPUs of one machine among runs that train at the same time, each run in one process."""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from podium.files import file_lock

WAIT_SECONDS = 0.2


@contextmanager
def claim_cores(
    count: int, *, on_wait: Callable[[], None] = lambda: None, while_waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold `count` of this machine's cores, or all if it has fewer, and wait until other Podium runs leave them free.

    `on_wait` is called once when waiting begins, `while_waiting` every 0.2 s; either may raise.

    A core is a lock on a file in the temporary folder, which the system releases when a run is killed. A gate lock
    lets one run at a time collect its cores, which prevents deadlock.
    """
    cores, folder = len(os.sched_getaffinity(0)), _lock_folder()
    attempts = _attempts(on_wait, while_waiting)
    with ExitStack() as claimed:
        with ExitStack() as gate:
            while not _try_lock(folder / "gate", gate):
                next(attempts)
            for _ in range(min(count, cores)):
                while not any(_try_lock(folder / str(core), claimed) for core in range(cores)):
                    next(attempts)
        yield


@contextmanager
def claim_run(lock_file: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of one run, and wait until no other process holds it; `on_wait` is called once when waiting begins.

    Its holder may wait for cores, but who waits for it holds none, so that there is no deadlock.
    """
    attempts = _attempts(on_wait, lambda: None)
    with ExitStack() as claimed:
        while not _try_lock(lock_file, claimed):
            next(attempts)
        yield


@contextmanager
def claim_gpu(count: int) -> Iterator[int]:
    """Hold one of `count` GPUs, one that few of the other runs hold; a GPU may have several runs."""
    folder, places = _lock_folder(), ((gpu, place) for place in itertools.count() for gpu in range(count))
    with ExitStack() as claimed:
        yield next(gpu for gpu, place in places if _try_lock(folder / f"gpu{gpu}-{place}", claimed))


def _lock_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"podium-cores-{os.getuid()}"


def _attempts(on_wait: Callable[[], None], while_waiting: Callable[[], None]) -> Iterator[None]:
    """Wait before each further attempt."""
    on_wait()
    while True:
        while_waiting()
        time.sleep(WAIT_SECONDS)
        yield


def _try_lock(file: Path, stack: ExitStack) -> bool:
    """Lock a file until the stack is closed; False where it is locked already, by this process or another."""
    try:
        stack.enter_context(file_lock(file, refusal=BlockingIOError()))
    except BlockingIOError:
        return False
    return True
