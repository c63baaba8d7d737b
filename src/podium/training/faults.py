"""Errors of training, with the run and its recipe named."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from podium.errors import TrainingError


@contextmanager
def naming(run: str, recipe_file: Path) -> Iterator[None]:
    """Name the run and its recipe in whatever goes wrong inside."""
    try:
        yield
    except TrainingError as error:
        raise type(error)(
            f"{run}: {error.what}",
            file=error.file or recipe_file,
            expected=error.expected,
            found=error.found,
            fix=error.fix or f"edit {recipe_file}",
        ) from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run}: the device has too little memory.",
            file=recipe_file,
            expected="room for its batches beside whatever else is on the device",
            found=str(error).splitlines()[0],
            fix="make -j1, which trains one run at a time; or a smaller batch_size",
        ) from None
