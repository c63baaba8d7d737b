"""What a run computes with: cores, GPU, threads, repeatable kernels; and the errors that name the run."""

import ctypes
import functools
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from podium.config.keys import Recipe
from podium.errors import DeviceMemoryError, TrainingError
from podium.files import file_lock

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# Between two attempts to get a core.
WAIT_SECONDS = 0.2
LESS_AT_ONCE = "make -j1, which trains one run at a time; or a smaller batch_size"


@contextmanager
def computing(name: str, file: Path, recipe: Recipe, *, processes: int = 1) -> Iterator[Sequence[int]]:
    """Compute as the recipe says: its threads, GPUs with few other runs, and kernels that repeat bit for bit.

    Yields the GPU of each process, as `spread_over_gpus` does. Errors of training get the `name` of the run, and its
    `file`.
    """
    with (
        name_run_in_errors(name, file),
        cpu_threads(recipe.threads),
        spread_over_gpus(processes) as gpus,
        repeatable(recipe.deterministic, pick_device()),
    ):
        yield gpus


def check_machine(recipe: Recipe, file: Path) -> None:
    """Raise TrainingError unless this machine is large enough for the recipe in `file`.

    Each process needs a core for each of its threads; with a GPU, processes share the cores, and need a GPU each.
    """
    gpus, cores = count_gpus(), len(os.sched_getaffinity(0))
    needs = {"cores": (recipe.threads, cores), "GPUs": (1, gpus)} if gpus else {"cores": (recipe.threads, cores)}
    for unit, (each, here) in needs.items():
        processes = 1 if unit == "cores" and gpus else recipe.processes
        if processes * each > here:
            raise TrainingError(
                "This machine is too small for the recipe.",
                file=file,
                expected=f"{processes * each} {unit}, for threads = {recipe.threads}, processes = {recipe.processes}",
                found=f"{here} {unit}",
                fix=f"threads = {here}" if each > here else f"processes = {here // each}",
            )


@contextmanager
def name_run_in_errors(run: str, file: Path, *, fix: str = "", more_memory: str = LESS_AT_ONCE) -> Iterator[None]:
    """Add the run and its file to every TrainingError; make a full device memory a DeviceMemoryError.

    `fix` is the command for errors that have none of their own, `more_memory` what helps against a full memory.
    """
    try:
        yield
    except TrainingError as error:
        error.what, error.file = f"{run}: {error.what}", error.file or file
        error.fix = error.fix or fix or f"edit {file}"
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        raise DeviceMemoryError(
            f"{run}: The device has too little memory.",
            file=file,
            expected="memory for the network and its batches, beside other programs on the device",
            found=(str(error).splitlines() or ["no memory left"])[0],
            fix=more_memory,
        ) from None


class StepMemoryError(MemoryError):
    """A step of a training needs more memory than there is."""


def is_memory_error(error: Exception) -> bool:
    """Whether memory is full: a GPU, torch on a CPU, and Python and NumPy each have their own error."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def pick_device() -> torch.device:
    """The device named by PODIUM_DEVICE, else torch's current GPU, else the CPU; raises TrainingError if missing."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    available = ["cuda", *gpus, "cpu"] if gpus else ["cpu"]
    name = os.environ.get("PODIUM_DEVICE") or available[0]
    if name not in available:
        raise TrainingError(
            "PODIUM_DEVICE names a device that this machine does not have.",
            expected=f"one of {', '.join(available)}",
            found=f"PODIUM_DEVICE={name}",
            fix=f"unset PODIUM_DEVICE, or PODIUM_DEVICE={available[0]}",
        )
    return torch.device(name)


def count_gpus() -> int:
    """How many GPUs runs are spread over: none on a CPU, one where PODIUM_DEVICE names it."""
    device = pick_device()
    if device.type == "cpu":
        return 0
    return torch.cuda.device_count() if device.index is None else 1


def device_name(device: torch.device) -> str:
    """The GPU's product name, or the CPU's vector instructions and its name: results repeat on one kind of CPU only."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return ", ".join(filter(None, [device.type, torch.backends.cpu.get_cpu_capability(), name]))


def keep_freed_memory() -> None:
    """Let this process use freed memory again, which glibc otherwise returns to the system and must ask for, cleared.

    A training step frees and allocates hundreds of large arrays. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:  # with the constants of glibc's malloc.h
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, so that other runs at the same time do not change the results.

    From then on the process keeps its freed memory.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def repeatable(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Where `deterministic`, use only kernels that repeat bit for bit; restore torch's settings afterwards.

    Else cuDNN measures which of its kernels are fastest for the network. A CPU repeats without it. Raises
    TrainingError for an operation that has no such kernel (torch.use_deterministic_algorithms lists them).
    """
    if device.type == "cuda":
        # cuBLAS reads it at the first product of the process, which may be another run's.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(deterministic or enabled)
    if deterministic or device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    except RuntimeError as error:
        if not deterministic or "determinis" not in str(error):
            raise
        raise TrainingError(
            "An operation of this network does not repeat bit for bit.",
            expected="operations that repeat bit for bit, because of deterministic = true",
            found=str(error).split(", ")[0],
            fix="deterministic = false, or another architecture",
        ) from None
    finally:
        torch.use_deterministic_algorithms(enabled)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def claim_cores(count: int, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `count` of this machine's cores, or all if it has fewer, and wait until other Podium runs leave them free.

    `on_wait` is called once when waiting begins; it may raise.

    A core is a lock on a file in the temporary folder, which the system releases when a run is killed. A gate lock
    lets one run at a time collect its cores, which prevents deadlock.
    """
    cores, note_wait = sorted(os.sched_getaffinity(0)), functools.cache(on_wait)
    with ExitStack() as claimed:
        with file_lock(_lock_folder() / "gate", on_wait=note_wait):
            with ExitStack() as free:  # which removes the files that killed runs have left
                for core in cores:
                    _try_lock(str(core), free)
            for _ in range(min(count, len(cores))):
                while not any(_try_lock(str(core), claimed) for core in cores):
                    note_wait()
                    time.sleep(WAIT_SECONDS)
        yield


@contextmanager
def spread_over_gpus(processes: int = 1) -> Iterator[Sequence[int]]:
    """Compute on the GPUs that the fewest other runs use, where there are several; a GPU may have several runs.

    Yields a GPU for each process, the first of which is that of this one; none where there is no choice.
    """
    count, gpus = count_gpus(), []
    places = ((gpu, place) for place in itertools.count() for gpu in range(count))
    with ExitStack() as claimed:
        while count > 1 and len(gpus) < processes:
            gpu, place = next(places)
            if gpu not in gpus and _try_lock(f"gpu{gpu}-{place}", claimed):
                gpus.append(gpu)
        if gpus:
            claimed.enter_context(torch.cuda.device(gpus[0]))  # what torch.device("cuda") then means
        yield gpus


def _lock_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"podium-cores-{os.getuid()}"


def _try_lock(name: str, stack: ExitStack) -> bool:
    """Lock a file until the stack is closed; False where it is locked already, by this process or another."""
    try:
        stack.enter_context(file_lock(_lock_folder() / name, refusal=BlockingIOError()))
    except BlockingIOError:
        return False
    return True
