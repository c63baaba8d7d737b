"""Workers end with their parent, leave Ctrl-C to it, and a killed one is an error that the user can read."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podium.errors import DataError
from podium.processes import worker_pool

PARENT = """
import multiprocessing, time
from podium.processes import worker_pool
with worker_pool(2, killed=None) as pool:
    results = pool.map(time.sleep, [0, 600])
    next(results)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    next(results)
"""


def test_workers_end_when_their_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert workers
        process.kill()
    deadline = time.monotonic() + 60
    while running := list(filter(is_running, workers)):
        if time.monotonic() > deadline:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            pytest.fail("a worker outlives its parent")
        time.sleep(0.05)


def is_running(pid):
    """Whether there is such a process that has not ended; one that nobody has waited for does not count."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_ignores_ctrl_c_and_a_killed_one_is_the_given_error():
    with pytest.raises(DataError, match="free memory"), worker_pool(1, killed=DataError("free memory")) as pool:
        pid = pool.submit(os.getpid).result()
        os.kill(pid, signal.SIGINT)
        assert pool.submit(os.getpid).result() == pid
        pool.submit(os.kill, pid, signal.SIGKILL).result()
