"""What a run computes on: the device, its precision, and the cores it may use."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.training.networks.architectures import has_depthwise_convolutions, strides_past_the_image


def pick_device() -> torch.device:
    """The first GPU, else the CPU; PODIUM_DEVICE names another. Raises TrainingError for one that is not here."""
    gpus = [f"cuda:{place}" for place in range(torch.cuda.device_count())]
    here = ["cuda", *gpus, "cpu"] if gpus else ["cpu"]
    wanted = os.environ.get("PODIUM_DEVICE") or here[0]
    if wanted not in here:
        raise TrainingError(
            "PODIUM_DEVICE names a device that is not here.",
            expected=f"one of {', '.join(here)}",
            found=f"PODIUM_DEVICE={wanted}",
            fix=f"unset PODIUM_DEVICE, or PODIUM_DEVICE={here[0]}",
        )
    return torch.device(wanted)


def device_name(device: torch.device) -> str:
    """What people call the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}"


def pick_precision(recipe: Recipe, network: nn.Module, device: torch.device) -> torch.dtype:
    """What convolutions are computed in; parameters and their averages stay float32.

    `auto` takes bfloat16 only where the device has instructions for it: elsewhere it is emulated, and a hundred
    times slower. On CPUs, depthwise convolutions lose by it, and a stride past the image's edge cannot have it.
    Raises TrainingError where the recipe asks for it all the same.
    """
    if recipe.precision == "float32":
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast or recipe.precision == "bfloat16" else torch.float32
    wanted = recipe.precision == "bfloat16"
    if not wanted and (not _cpu_multiplies_bfloat16() or has_depthwise_convolutions(network)):
        return torch.float32
    # oneDNN 3.13 adds memory that nobody wrote to the gradient of such a convolution: other bits each time, or NaN.
    smallest = min([recipe.network_pixels, *recipe.progressive_pixels])
    if not strides_past_the_image(network, smallest):
        return torch.bfloat16
    if wanted:
        raise TrainingError(
            "The CPU cannot train this network in bfloat16.",
            expected="images that are still larger than a pixel where the last stride is taken",
            found=f"{recipe.architecture} at {smallest} pixels",
            fix='precision = "auto", stem = "small" or a larger `training_pixels` in the recipe',
        )
    return torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads inside, so that a run gives the same bits whatever runs beside it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def repeatable(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Where `deterministic`, compute inside with kernels that repeat bit for bit, and put torch's settings back.

    A CPU repeats without. Raises TrainingError that names an operation for which there is no such kernel; which
    those are says torch.use_deterministic_algorithms.
    """
    if device.type == "cuda":
        # cuBLAS reads it once, at the first product of a process, whichever run makes that.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not deterministic:
        yield
        return
    enabled, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn
    warn_only, benchmark = torch.is_deterministic_algorithms_warn_only_enabled(), cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if told := _without_kernel(str(error)):
            raise told from None
        raise
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        cudnn.benchmark = benchmark


def _without_kernel(told: str) -> TrainingError | None:
    """What torch has told of an operation that does not repeat, for one screen; None where it told something else."""
    if "CUBLAS_WORKSPACE_CONFIG" in told:
        return TrainingError(
            "cuBLAS does not repeat bit for bit as it is set.",
            expected="CUBLAS_WORKSPACE_CONFIG=:4096:8",
            found=f"CUBLAS_WORKSPACE_CONFIG={os.environ.get('CUBLAS_WORKSPACE_CONFIG', '')}",
            fix="unset CUBLAS_WORKSPACE_CONFIG",
        )
    name, without, _ = told.partition(" does not have a deterministic implementation")
    if not without:
        return None
    return TrainingError(
        "An operation of this network has no deterministic kernel.",
        expected="one that repeats bit for bit, because of deterministic = true",
        found=name,
        fix="deterministic = false, or another architecture, in the recipe",
    )
