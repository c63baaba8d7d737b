"""All runs of a competition, joined by id with the rows of its lock; and the memory that blending them needs."""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from podium.errors import PredictionsError, SubmissionError, examples
from podium.lock import Lock
from podium.predictions.artefact import Predictions, load_predictions
from podium.targets.target import Target
from podium.workspace import Workspace

# Largest memory of an ensemble, in bytes: per validation and test logit, per validation and test probability of blends.
LOGIT_BYTES, TEST_LOGIT_BYTES, BLEND_BYTES, TEST_BLEND_BYTES = 64, 16, 300, 24
MEMORY_FILE = Path("/proc/meminfo")


@dataclass(frozen=True, eq=False)
class Aligned:
    """Several runs over the same rows: runs sorted by name, rows in the order of the lock."""

    runs: tuple[str, ...]
    abouts: tuple[dict[str, Any], ...]
    oof_ids: np.ndarray  # (n,) str
    oof_logits: np.ndarray  # (runs, n, outputs) float
    oof_labels: np.ndarray  # (n,) int; (n, outputs) of a multi-label target
    test_ids: np.ndarray  # (m,) str
    test_logits: np.ndarray  # (runs, m, outputs) float
    classes: tuple[str, ...]
    target: Target  # what the labels are, and how logits are scored
    groups: np.ndarray | None = None  # (n,) str; None if rows have no groups


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
    """Raise PredictionsError if blending all runs needs more memory than is available; SubmissionError without runs.

    Where the system does not tell how much is available without swapping (not Linux), it is not compared.
    """
    needed, text = pool_size(workspace).memory_bytes, MEMORY_FILE.read_text() if MEMORY_FILE.exists() else ""
    for kilobytes in re.findall(r"^MemAvailable: +(\d+) kB", text, re.MULTILINE):
        if needed > (available := int(kilobytes) * 1024):
            raise PredictionsError(
                "The predictions are too large to blend on this machine.",
                file=workspace.paths.predictions_folder,
                expected=f"{needed / 1e9:.1f} GB of available memory",
                found=f"{available / 1e9:.1f} GB",
                fix="move the files of weak runs to another folder, or use a machine with more memory",
            )


def load_runs(workspace: Workspace, *, rehearsed: bool = False) -> Aligned:
    """All runs in `oof/<competition>`, joined by id; `rehearsed` runs have only some of the validation rows.

    Raises SubmissionError if there are no predictions, PredictionsError if they are damaged, or do not belong to the
    data of `data.lock`, or if blending them needs more memory than is available.
    """
    check_memory(workspace)
    files, lock = workspace.paths.predictions_files(), workspace.lock
    if rehearsed:
        return align([load_predictions(file) for file in files], lock, rehearsed=True)
    rows = np.flatnonzero(lock.folds >= 0)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        # Each run is joined when it is read, so that the ids of a thousand runs are not in memory together.
        return _stack(list(threads.map(lambda file: _join(load_predictions(file), lock, rows), files)), lock, rows)


def align(predictions: Sequence[Predictions], lock: Lock, *, rehearsed: bool = False) -> Aligned:
    """Join runs by id; neither the order of the runs nor the order of their rows changes the result.

    `rehearsed` runs have some of the validation rows. Raises PredictionsError with every run that differs from the
    lock in data, folds, ids, labels or classes.
    """
    rows = np.flatnonzero(lock.folds >= 0)
    if rehearsed:
        rows = rows[np.isin(lock.train_ids[rows], predictions[0].oof_ids)]
    return _stack([_join(run, lock, rows) for run in predictions], lock, rows)


def _stack(joined: Sequence[tuple[Predictions, list[str]]], lock: Lock, rows: np.ndarray) -> Aligned:
    """All runs that `_join` gave, sorted by name; raises PredictionsError with everything in which one differs."""
    joined, faults = sorted(joined, key=lambda pair: pair[0].run), []
    runs = [run for run, _ in joined]
    for previous, (run, differences) in zip([None, *runs], joined, strict=False):
        if previous and previous.run == run.run:
            differences.append(f"the same run is in {previous.file or 'memory'}")
        faults += [f"{run.run} ({run.file or 'in memory'}): {difference}" for difference in differences]
    if faults:
        raise PredictionsError(
            "Predictions and data.lock are about different data.",
            faults=faults,
            fix="move these files away and train the runs again, or restore data.lock",
        )
    return Aligned(
        runs=tuple(run.run for run in runs),
        abouts=tuple(run.about for run in runs),
        oof_ids=lock.train_ids[rows],
        oof_logits=np.stack([run.oof_logits for run in runs]),
        oof_labels=lock.train_labels[rows],
        test_ids=lock.test_ids,
        test_logits=np.stack([run.test_logits for run in runs]),
        classes=tuple(lock.classes),
        target=lock.target,
        groups=None if lock.groups is None else lock.groups[rows],
    )


def _join(run: Predictions, lock: Lock, rows: np.ndarray) -> tuple[Predictions, list[str]]:
    """A run with its logits of the lock's validation `rows` and test rows, without ids and labels; how it differs."""
    found, labels = {"target": "class"} | run.about, lock.train_labels[rows]
    about = {"fingerprint": lock.fingerprint, "fold_sha256": lock.fold_sha256, "target": lock.target_name}
    faults = [
        f"{key}: expected {value[:12]}, found {found[key][:12]}" for key, value in about.items() if found[key] != value
    ]
    if run.classes != tuple(lock.classes):
        faults.append(f"classes: expected {examples(lock.classes)}, found {examples(run.classes)}")
    oof, oof_faults = rows_of_ids(run.oof_ids, lock.train_ids[rows], part="validation ")
    test, test_faults = rows_of_ids(run.test_ids, lock.test_ids, part="test ")
    if not oof_faults and run.oof_labels.shape == labels.shape:
        differs = (run.oof_labels[oof] != labels).reshape(len(labels), -1).any(axis=1)
        if differs.any():
            faults.append(f"other labels in {differs.sum()} rows (ids {examples(lock.train_ids[rows][differs])})")
    nothing = dict.fromkeys(("oof_ids", "oof_labels", "test_ids"), labels[:0])
    run = replace(run, oof_logits=run.oof_logits[oof], test_logits=run.test_logits[test], **nothing)
    return run, faults + oof_faults + test_faults


def rows_of_ids(ids: np.ndarray, expected: np.ndarray, *, part: str = "") -> tuple[np.ndarray | slice, list[str]]:
    """The places of the `expected` ids in `ids`, or else those of a `part` that are missing, unknown or repeated."""
    if np.array_equal(ids, expected):
        return slice(None), []
    order = np.argsort(ids)
    ids = ids[order]
    differences = {
        "missing": np.setdiff1d(expected, ids),
        "unknown": np.setdiff1d(ids, expected),
        "repeated": np.unique(ids[1:][ids[1:] == ids[:-1]]),
    }
    faults = [f"{len(rows)} {part}ids are {kind} ({examples(rows)})" for kind, rows in differences.items() if len(rows)]
    return order if faults else order[np.searchsorted(ids, expected)], faults
