"""Several processes that train one network: each takes a part of every batch, and they add up their gradients.

The process that trains a run is rank 0. It starts the others for one fit, and they end with it: they write nothing and
print nothing. torch's DistributedDataParallel would send gradients while others are still computed, but it must be made
anew when layers thaw, and losses and running statistics would need messages of their own.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from podium.errors import PodiumError, TrainingError
from podium.processes import start_worker
from podium.training.device import StepMemoryError, is_memory_error, pick_device

HOST = "127.0.0.1"
# The others wait while rank 0 validates and writes a checkpoint; a rank that has died is noticed otherwise.
TIMEOUT = timedelta(days=1)
# After another process has died, this one may take so long to notice it by itself.
GRACE_SECONDS = 30.0
END_SECONDS = 10.0
# Exit code of a process that ends because another one has.
LOST = 3


class LostRankError(RuntimeError):
    """Another process has ended, so that no sum is complete."""


class Ranks:
    """The processes that train a network together; this one is number `rank` of `count`."""

    def __init__(self, rank: int = 0, count: int = 1, *, port: int = 0, pipes: Sequence[Connection] = ()):
        self.rank, self.count, self.port, self.pipes = rank, count, port, pipes

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
        for pipe in self.pipes:  # to rank 0, or from the others: None or an error
            if self.rank:
                pipe.send(None)
            elif error := pipe.recv():
                raise error
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "cpu:gloo,cuda:nccl" if pick_device().type == "cuda" else "gloo"
        store = dist.TCPStore(HOST, self.port, is_master=False)
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
    StepMemoryError of another process, and TrainingError where one has ended without an error of its own.
    """
    if count == 1:
        yield ALONE
        return
    listener = socket.create_server((HOST, 0))  # torch's own would listen to other machines too
    port = listener.getsockname()[1]
    store = dist.TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    context, ended = multiprocessing.get_context("spawn"), threading.Event()
    pipes, processes = [], []
    try:
        for rank in range(1, count):
            pipe, other_end = context.Pipe(duplex=False)
            call = (Ranks(rank, count, port=port, pipes=[other_end]), gpus[rank : rank + 1], help_to_train, arguments)
            processes.append(context.Process(target=_help, args=call, daemon=True))
            pipes.append(pipe)
            processes[-1].start()
            other_end.close()
        threading.Thread(target=_end_if_stuck, args=(processes, ended), daemon=True).start()
        yield Ranks(0, count, port=port, pipes=pipes)
        dist.destroy_process_group()
        for process in processes:
            process.join(END_SECONDS)
    except LostRankError:
        raise _reason(processes, pipes) from None
    finally:
        ended.set()
        for process in filter(lambda process: process.pid, processes):
            process.kill()
            process.join()
        if dist.is_initialized():
            dist.destroy_process_group()
        del store


def _help(ranks: Ranks, gpus: Sequence[int], help_to_train: Callable, arguments: tuple) -> None:
    """The life of a process that rank 0 has started, on its own of the GPUs if there are some."""
    start_worker()
    try:
        for gpu in gpus:
            torch.cuda.set_device(gpu)
        help_to_train(ranks, *arguments)
        dist.destroy_process_group()
    except LostRankError:
        sys.exit(LOST)
    except (PodiumError, RuntimeError, MemoryError) as error:
        if not isinstance(error, PodiumError) and not is_memory_error(error):
            raise
        ranks.pipes[0].send(error if isinstance(error, PodiumError) else StepMemoryError(str(error)))
        sys.exit(1)


@contextmanager
def _lost_rank() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, EOFError) as error:  # of gloo, NCCL, the store or a pipe
        raise LostRankError(str(error)) from None


def _reason(processes: Sequence[BaseProcess], pipes: Sequence[Connection]) -> Exception:
    """The error that a process has sent before it ended; else how the first one ended."""
    wait([process.sentinel for process in processes], END_SECONDS)
    for pipe in pipes:
        with suppress(EOFError):
            while pipe.poll():
                if error := pipe.recv():  # None: it was ready to train
                    return error
    codes = [process.exitcode for process in processes if process.exitcode not in (None, LOST)]
    found = [f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}" for code in codes]
    return TrainingError(
        "One of the processes that train the network has ended.",
        found=found[0] if found else "no answer",
        fix="repeat the command, which goes on from the checkpoint; free memory, if it was full",
    )


def _end_if_stuck(processes: Sequence[BaseProcess], ended: threading.Event) -> None:
    """End this process where another one has failed and this one waits for it in a GPU, which no exception ends."""
    running = list(processes)
    while running and not any(process.exitcode for process in processes):
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
    if running and not ended.wait(GRACE_SECONDS):
        print(f"\n{_reason(processes, [])}", file=sys.stderr, flush=True)
        os._exit(2)
