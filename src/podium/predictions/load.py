"""All runs of a competition, read from their files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.errors import PredictionsError, SubmissionError
from podium.plan.paths import Paths
from podium.predictions.align import Aligned, align
from podium.predictions.artefact import load_predictions
from podium.workspace import Workspace

# Largest memory of an ensemble, in bytes: per validation and test logit, per validation and test probability of blends.
LOGIT_BYTES, TEST_LOGIT_BYTES, BLEND_BYTES, TEST_BLEND_BYTES = 64, 16, 300, 24
MEMORY_FILE = Path("/proc/meminfo")


class PoolSize(NamedTuple):
    """The number of runs, validation cells, test cells and values of a cell (see podium.targets) of an ensemble."""

    runs: int
    rows: int
    tests: int
    classes: int

    @property
    def memory_bytes(self) -> int:
        """The memory that blending these runs needs at most, as measured by a test."""
        row_bytes = self.classes * (self.runs * LOGIT_BYTES + BLEND_BYTES)
        return row_bytes * self.rows + self.classes * (self.runs * TEST_LOGIT_BYTES + TEST_BLEND_BYTES) * self.tests


def pool_size(workspace: Workspace) -> PoolSize:
    """The size of the ensemble of all runs, from the lock and the names of the files."""
    runs, lock = len(prediction_files(workspace.paths)), workspace.lock
    rows, classes = lock.target.cells_per_row, lock.target.cell_values
    return PoolSize(runs, rows * int(np.count_nonzero(lock.folds >= 0)), rows * len(lock.test_ids), classes)


def load_runs(workspace: Workspace, *, rehearsed: bool = False) -> Aligned:
    """All runs in `oof/<competition>`, joined by id; `rehearsed` runs have only some of the validation rows.

    Raises SubmissionError if there are no predictions, PredictionsError if they are damaged, or do not belong to the
    data of `data.lock`, or if blending them needs more memory than is available.
    """
    needed, available = pool_size(workspace).memory_bytes, available_memory()
    if available is not None and needed > available:
        raise PredictionsError(
            "The predictions are too large to blend on this machine.",
            file=workspace.paths.predictions_folder,
            expected=f"{needed / 1e9:.1f} GB of available memory",
            found=f"{available / 1e9:.1f} GB",
            fix="move the files of weak runs to another folder, or use a machine with more memory",
        )
    with ThreadPoolExecutor() as threads:
        predictions = list(threads.map(load_predictions, prediction_files(workspace.paths)))
    return align(predictions, workspace.lock, rehearsed=rehearsed)


def prediction_files(paths: Paths) -> list[Path]:
    """The predictions files of a competition, sorted by run; raises SubmissionError if there are none."""
    files = paths.predictions_files()
    if not files:
        raise SubmissionError(
            "There are no predictions to blend.",
            file=paths.predictions_folder,
            fix=f"make train COMPETITION={paths.name}",
        )
    return files


def available_memory() -> int | None:
    """Bytes of memory that a program can use without swapping; None where the system does not tell (not Linux)."""
    try:
        lines = MEMORY_FILE.read_text().splitlines()
    except FileNotFoundError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
