"""The device that a run computes on, its precision, its threads, and repeatable kernels."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch
from torch import nn

from podium.config.keys import Recipe
from podium.config.pixels import height_and_width, pixels_text
from podium.errors import TrainingError
from podium.training.cores import claim_gpu
from podium.training.networks.architectures import strides_past_the_image

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


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


@contextlib.contextmanager
def spread_over_gpus() -> Iterator[None]:
    """Compute on a GPU that few other runs use, where there are several."""
    count = count_gpus()
    if count < 2:
        yield
        return
    with claim_gpu(count) as gpu, torch.cuda.device(gpu):  # what torch.device("cuda") then means
        yield


def device_name(device: torch.device) -> str:
    """The GPU's product name, or the CPU's vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}"


def pick_precision(recipe: Recipe, network: nn.Module, device: torch.device) -> torch.dtype:
    """The data type of the convolutions; parameters and their averages stay float32.

    `auto` is bfloat16 where the device has instructions for it; elsewhere it is emulated, a hundred times slower, and
    a GPU computes in float16 instead. On a CPU, a stride that is longer than the image gives wrong gradients: oneDNN
    3.13 adds uninitialised memory, so that they differ each time or are NaN. Raises TrainingError where the recipe
    asks for bfloat16 with such a stride.
    """
    if recipe.precision == "float32":
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast or recipe.precision == "bfloat16" else torch.float16
    required, capabilities = recipe.precision == "bfloat16", torch.cpu.get_capabilities()
    if not required and not any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16")):
        return torch.float32
    smallest = tuple(map(min, zip(*map(height_and_width, recipe.stage_pixels), strict=True)))
    if not strides_past_the_image(network, smallest):
        return torch.bfloat16
    if required:
        raise TrainingError(
            "The CPU cannot train this network in bfloat16.",
            expected="images that are larger than the stride of each convolution",
            found=f"{recipe.architecture} at {pixels_text(smallest)} pixels",
            fix='precision = "auto", stem = "small" or a larger `training_pixels` in the recipe',
        )
    return torch.float32


def keep_freed_memory() -> None:
    """Let this process use freed memory again, which glibc otherwise returns to the system and must ask for, cleared.

    A training step frees and allocates hundreds of large arrays. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:  # with the constants of glibc's malloc.h
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextlib.contextmanager
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


@contextlib.contextmanager
def repeatable(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Where `deterministic`, use only kernels that repeat bit for bit; restore torch's settings afterwards.

    Else cuDNN measures which of its kernels are fastest for the network. A CPU repeats without it. Raises
    TrainingError for an operation that has no such kernel (torch.use_deterministic_algorithms lists them).
    """
    if device.type == "cuda":
        # cuBLAS reads it at the first product of the process, which may be another run's.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only, benchmark = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    if deterministic:
        torch.use_deterministic_algorithms(True)
    if deterministic or device.type == "cuda":
        torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    except RuntimeError as error:
        message, cublas = str(error), "CUBLAS_WORKSPACE_CONFIG"
        if not deterministic or (cublas not in message and "does not have a deterministic" not in message):
            raise
        raise TrainingError(
            "An operation of this network does not repeat bit for bit.",
            expected="operations that repeat bit for bit, because of deterministic = true",
            found=f"{cublas}={os.environ.get(cublas, '')}" if cublas in message else message.split(", ")[0],
            fix=f"unset {cublas}" if cublas in message else "deterministic = false, or another architecture",
        ) from None
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
