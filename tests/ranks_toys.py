"""What a process beside rank 0 does in a test; it imports little, as that process imports it again."""

import os
import signal


def die(ranks):
    ranks.connect()
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory(ranks):
    ranks.connect()
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
