"""The size of an ensemble, and the memory that it needs, before a file of predictions is opened."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.errors import PredictionsError, SubmissionError
from podium.workspace import Workspace

# Largest memory of an ensemble, in bytes: per validation and test logit, per validation and test probability of blends.
LOGIT_BYTES, TEST_LOGIT_BYTES, BLEND_BYTES, TEST_BLEND_BYTES = 64, 16, 300, 24
MEMORY_FILE = Path("/proc/meminfo")


class PoolSize(NamedTuple):
    """The number of runs, validation cells, test cells and values of a cell (see podium.targets) of an ensemble."""

    runs: int
    rows: int
    tests: int
    values: int

    @property
    def memory_bytes(self) -> int:
        """The memory that blending these runs needs at most, as measured by a test."""
        row_bytes = self.values * (self.runs * LOGIT_BYTES + BLEND_BYTES)
        return row_bytes * self.rows + self.values * (self.runs * TEST_LOGIT_BYTES + TEST_BLEND_BYTES) * self.tests


def pool_size(workspace: Workspace) -> PoolSize:
    """The size of the ensemble of all runs, from the lock and the number of files.

    Raises SubmissionError if there are no predictions.
    """
    files, folder = workspace.paths.predictions_files(), workspace.paths.predictions_folder
    if not files:
        fix = f"make train COMPETITION={workspace.name}"
        raise SubmissionError("There are no predictions to blend.", file=folder, fix=fix)
    lock, cells = workspace.lock, workspace.lock.target.cells_per_row
    values = 2 if lock.target.has_columns else lock.target.outputs
    validation_rows = int(np.count_nonzero(lock.folds >= 0))
    return PoolSize(len(files), cells * validation_rows, cells * len(lock.test_ids), values)


def check_memory(workspace: Workspace) -> None:
    """Raise PredictionsError if blending all runs needs more memory than is available; SubmissionError without runs."""
    needed, available = pool_size(workspace).memory_bytes, available_memory()
    if available is not None and needed > available:
        raise PredictionsError(
            "The predictions are too large to blend on this machine.",
            file=workspace.paths.predictions_folder,
            expected=f"{needed / 1e9:.1f} GB of available memory",
            found=f"{available / 1e9:.1f} GB",
            fix="move the files of weak runs to another folder, or use a machine with more memory",
        )


def available_memory() -> int | None:
    """Bytes of memory that a program can use without swapping; None where the system does not tell (not Linux)."""
    try:
        lines = MEMORY_FILE.read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
