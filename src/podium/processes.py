"""Worker processes that end with the process that started them."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from podium.errors import PodiumError


@contextmanager
def worker_pool(count: int, *, killed: PodiumError) -> Iterator[Executor]:
    """Yield `count` worker processes; raises the error `killed` where one of them was killed."""
    context = multiprocessing.get_context("spawn")  # a process with torch's threads cannot be forked safely
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=start_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise killed from None
    finally:
        pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """Ignore Ctrl-C, which the parent process handles, and warnings; end when the parent is killed.

    Without its parent, a worker would wait for work for ever. It imports torch only after this, with its work.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
