"""Errors of training that name the run and its recipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from podium.errors import DeviceMemoryError, TrainingError

LESS_AT_ONCE = "make -j1, which trains one run at a time; or a smaller batch_size"


@contextmanager
def name_run_in_errors(run: str, recipe_file: Path, *, more_memory: str = LESS_AT_ONCE) -> Iterator[None]:
    """Add the run and its recipe's file to every TrainingError; make a full device memory a DeviceMemoryError.

    `more_memory` is what the user can do about a full memory.
    """
    try:
        yield
    except TrainingError as error:
        error.what, error.file = f"{run}: {error.what}", error.file or recipe_file
        error.fix = error.fix or f"edit {recipe_file}"
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        raise DeviceMemoryError(
            f"{run}: The device has too little memory.",
            file=recipe_file,
            expected="memory for the network and its batches, beside other programs on the device",
            found=(str(error).splitlines() or ["no memory left"])[0],
            fix=more_memory,
        ) from None


def is_memory_error(error: Exception) -> bool:
    """Whether memory is full: a GPU, torch on a CPU, and Python and NumPy each have their own error."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
