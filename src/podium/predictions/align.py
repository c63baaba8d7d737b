"""All runs of a competition, joined by id with the rows of its lock."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from podium.errors import PredictionsError, examples
from podium.lock import Lock
from podium.predictions.artefact import Predictions, load_predictions, widened
from podium.predictions.size import check_memory
from podium.targets.target import Target
from podium.workspace import Workspace


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
    groups: np.ndarray | None = None  # (n,) str; None if rows have no groups
    target_name: str = "class"

    @cached_property
    def target(self) -> Target:
        """What the labels are, and how logits are scored."""
        return Target(self.target_name, len(self.classes))


def load_runs(workspace: Workspace, *, rehearsed: bool = False) -> Aligned:
    """All runs in `oof/<competition>`, joined by id; `rehearsed` runs have only some of the validation rows.

    Raises SubmissionError if there are no predictions, PredictionsError if they are damaged, or do not belong to the
    data of `data.lock`, or if blending them needs more memory than is available.
    """
    check_memory(workspace)
    files, lock = workspace.paths.predictions_files(), workspace.lock
    rows = _validation_rows(lock, load_predictions(files[0]) if rehearsed else None)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        # Each run is joined when it is read, so that the ids of a thousand runs are not in memory together.
        return _stack(list(threads.map(lambda file: _join(load_predictions(file), lock, rows), files)), lock, rows)


def align(predictions: Sequence[Predictions], lock: Lock, *, rehearsed: bool = False) -> Aligned:
    """Join runs by id; neither the order of the runs nor the order of their rows changes the result.

    `rehearsed` runs have some of the validation rows. Raises PredictionsError with every run that differs from the
    lock in data, folds, ids, labels or classes.
    """
    rows = _validation_rows(lock, predictions[0] if rehearsed else None)
    return _stack([_join(run, lock, rows) for run in predictions], lock, rows)


def _validation_rows(lock: Lock, rehearsed: Predictions | None) -> np.ndarray:
    """The indices of the lock's validation rows, or of those that a rehearsed run has."""
    rows = np.flatnonzero(lock.folds >= 0)
    return rows if rehearsed is None else rows[np.isin(lock.train_ids[rows], rehearsed.oof_ids)]


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
        groups=None if lock.groups is None else lock.groups[rows],
        target_name=lock.target_name,
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
    logits = {"oof_logits": widened(run.oof_logits[oof]), "test_logits": widened(run.test_logits[test])}
    nothing = dict.fromkeys(("oof_ids", "oof_labels", "test_ids"), labels[:0])
    return replace(run, **logits, **nothing), faults + oof_faults + test_faults


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
