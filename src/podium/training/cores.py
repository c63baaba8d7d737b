"""The cores of one machine, shared among runs that train side by side."""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

# Between two looks at whether a core is free.
WAIT_SECONDS = 0.2


@contextlib.contextmanager
def claim_cores(
    count: int, *, waiting: Callable[[], None] = lambda: None, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold `count` of this machine's cores against other Podium runs.

    Where it must wait, `waiting` is called once, and `meanwhile` again and again: it may raise to give up.

    Cores are locks on files in the temporary folder, so a killed run gives its own back. One gate lets one
    waiting run at a time collect its cores: two halves never wait for each other.
    """
    cores = len(os.sched_getaffinity(0))
    folder = Path(tempfile.gettempdir()) / f"podium-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held, (folder / "gate").open("w") as gate:
        wanted, told = min(count, cores), False

        def wait() -> None:
            nonlocal told
            if not told:
                waiting()
                told = True
            meanwhile()
            time.sleep(WAIT_SECONDS)

        while not _locked(gate):
            wait()
        free = list(range(cores))
        while wanted:
            for core in list(free):
                file = (folder / str(core)).open("w")
                if not _locked(file):
                    file.close()
                    continue
                held.enter_context(file)
                free.remove(core)
                wanted -= 1
                if not wanted:
                    break
            if wanted:
                wait()
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _locked(file: TextIO) -> bool:
    """Whether the file could be locked for this process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
