"""Several processes that train one network: each takes a part of every batch, and they add up their gradients.

The process that trains a run is rank 0. It starts the others for one fit, and they end with it: they write nothing and
print nothing. torch's DistributedDataParallel would send gradients while others are still computed, but it must be made
anew when layers thaw, and losses and running statistics would need messages of their own.
"""

import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from podium.errors import TrainingError
from podium.processes import worker_pool
from podium.training.device import StepMemoryError, is_memory_error, pick_device

HOST = "127.0.0.1"
# The others wait while rank 0 validates and writes a checkpoint; a rank that has died is noticed otherwise.
TIMEOUT = timedelta(days=1)
# After another process has died, this one may take so long to notice it by itself.
GRACE_SECONDS = 30.0
END_SECONDS = 10.0
POLL_SECONDS = 0.05


class LostRankError(RuntimeError):
    """Another process has ended, so that no sum is complete."""


class Ranks:
    """The processes that train a network together; this one is number `rank` of `count`.

    Rank 0 has the futures of the others, `helpers`.
    """

    def __init__(self, rank: int = 0, count: int = 1, *, port: int = 0, helpers: Sequence[Future] = ()):
        self.rank, self.count, self.port, self.helpers = rank, count, port, helpers

    def own(self, images: int) -> slice:
        """Which images of a batch are those of this process; the parts differ by at most one image."""
        size, more = divmod(images, self.count)
        start = self.rank * size + min(self.rank, more)
        return slice(start, start + size + (self.rank < more))

    def connect(self, state: Any = None) -> Any:
        """Connect all processes when each has its images; returns the `state` of rank 0, in all of them."""
        if self.count == 1:
            return state
        states = [state]
        with _lost_rank():
            if not dist.is_initialized():
                self._join()
            dist.broadcast_object_list(states, device=torch.device("cpu"))
        return states[0]

    def _join(self) -> None:
        """Wait until all processes are here; raises the error of another one."""
        store = dist.TCPStore(HOST, self.port, is_master=False)
        ready = store.add("ready", 1)
        while self.helpers and ready < self.count:
            for helper in wait(self.helpers, POLL_SECONDS, FIRST_EXCEPTION).done:
                helper.result()
            ready = store.add("ready", 0)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if pick_device().type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.count, timeout=TIMEOUT)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each of the tensors, all of one type, by its sum over the processes: the same bits in all of them."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _lost_rank():
            dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))


ALONE = Ranks()


@contextmanager
def open_ranks(count: int, gpus: Sequence[int], help_to_train: Callable, *arguments: Any) -> Iterator[Ranks]:
    """Start `count` - 1 processes, each of which calls `help_to_train` with its Ranks and the arguments.

    They end with the context. `gpus` has the GPU of each rank; it is empty on a CPU. Raises the PodiumError or
    StepMemoryError of another process, and TrainingError where one was killed.
    """
    if count == 1:
        yield ALONE
        return
    listener = socket.create_server((HOST, 0))  # torch's own would listen to other machines too
    port = listener.getsockname()[1]
    store = dist.TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    fix = "repeat the command, which goes on from the checkpoint; free memory, if it was full"
    killed = TrainingError("One of the processes that train the network was killed.", fix=fix)
    ended = threading.Event()
    with worker_pool(count - 1, killed=killed) as pool:
        calls = [(Ranks(rank, count, port=port), gpus[rank : rank + 1], help_to_train) for rank in range(1, count)]
        helpers = [pool.submit(_help, *call, arguments) for call in calls]
        for helper in helpers:
            helper.add_done_callback(partial(_end_if_stuck, ended=ended))
        try:
            yield Ranks(0, count, port=port, helpers=helpers)
            dist.destroy_process_group()
            wait(helpers, END_SECONDS)
        except LostRankError:
            for helper in wait(helpers, END_SECONDS).done:  # the others end as they lose one
                if not isinstance(helper.exception(), LostRankError):
                    helper.result()
            raise killed from None
        finally:
            ended.set()
            for process in multiprocessing.active_children():
                process.kill()
            if dist.is_initialized():
                dist.destroy_process_group()
            del store


def _help(ranks: Ranks, gpus: Sequence[int], help_to_train: Callable, arguments: tuple) -> None:
    """The life of a process that rank 0 has started, on its own of the GPUs if there are some."""
    for gpu in gpus:
        torch.cuda.set_device(gpu)
    try:
        help_to_train(ranks, *arguments)
    except (RuntimeError, MemoryError) as error:
        if is_memory_error(error):
            raise StepMemoryError(str(error)) from None
        raise
    finally:
        if dist.is_initialized():  # else the others would wait for this one
            dist.destroy_process_group()


@contextmanager
def _lost_rank() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL or the store
        raise LostRankError(str(error)) from None


def _end_if_stuck(helper: Future, *, ended: threading.Event) -> None:
    """End this process where another one has failed and this one waits for it in a GPU, which no exception ends."""
    error = helper.exception()

    def end() -> None:
        if not ended.wait(GRACE_SECONDS):
            print(f"\nOne of the processes that train the network has failed: {error}", file=sys.stderr, flush=True)
            os._exit(2)

    if error:
        threading.Thread(target=end, daemon=True).start()
