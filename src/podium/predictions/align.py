"""Several runs joined by id, with the rows of their competition's lock."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from podium.errors import PredictionsError, examples
from podium.lock import Lock
from podium.predictions.artefact import Predictions, is_increasing, widened
from podium.targets.base import Target
from podium.targets.table import target_of


@dataclass(frozen=True, eq=False)
class Aligned:
    """Several runs over the same rows: runs sorted by name, rows sorted by id."""

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
        return target_of(self.target_name, self.classes)


def align(predictions: Sequence[Predictions], lock: Lock, *, rehearsed: bool = False) -> Aligned:
    """Join runs by id; neither the order of the runs nor the order of their rows changes the result.

    `rehearsed` runs have some of the validation rows. Raises PredictionsError with every run that differs from the
    lock in data, folds, ids, labels or classes.
    """
    runs = [_sorted_by_id(run) for run in sorted(predictions, key=lambda run: run.run)]
    rows = np.flatnonzero(lock.folds >= 0)
    if rehearsed:
        rows = rows[np.isin(lock.train_ids[rows], runs[0].oof_ids)]
    rows = rows[np.argsort(lock.train_ids[rows])]
    expected = {
        "fingerprint": lock.fingerprint,
        "fold_sha256": lock.fold_sha256,
        "target": lock.target_name,
        "classes": tuple(lock.classes),
        "oof_ids": lock.train_ids[rows],
        "oof_labels": lock.train_labels[rows],
        "test_ids": np.sort(lock.test_ids),
    }
    faults = []
    for previous, run in zip([None, *runs], runs, strict=False):
        name = f"{run.run} ({run.file or 'in memory'})"
        if previous is not None and run.run == previous.run:
            faults.append(f"{name}: the same run is in {previous.file or 'memory'}")
        faults += [f"{name}: {difference}" for difference in _differences(run, expected)]
    if faults:
        raise PredictionsError(
            "Predictions and data.lock are about different data.",
            faults=faults,
            fix="move these files away and train the runs again, or restore data.lock",
        )
    return Aligned(
        runs=tuple(run.run for run in runs),
        abouts=tuple(run.about for run in runs),
        oof_ids=expected["oof_ids"],
        oof_logits=np.stack([widened(run.oof_logits) for run in runs]),
        oof_labels=expected["oof_labels"],
        test_ids=expected["test_ids"],
        test_logits=np.stack([widened(run.test_logits) for run in runs]),
        classes=expected["classes"],
        groups=None if lock.groups is None else lock.groups[rows],
        target_name=lock.target_name,
    )


def _sorted_by_id(run: Predictions) -> Predictions:
    if is_increasing(run.oof_ids) and is_increasing(run.test_ids):
        return run
    oof, test = np.argsort(run.oof_ids), np.argsort(run.test_ids)
    return replace(
        run,
        oof_ids=run.oof_ids[oof],
        oof_logits=run.oof_logits[oof],
        oof_labels=run.oof_labels[oof],
        test_ids=run.test_ids[test],
        test_logits=run.test_logits[test],
    )


def _differences(run: Predictions, expected: dict[str, Any]) -> list[str]:
    """Everything in which a run, sorted by id, differs from what the lock says."""
    faults = [
        f"{key}: expected {expected[key][:12]}, found {run.about[key][:12]}"
        for key in ("fingerprint", "fold_sha256")
        if run.about[key] != expected[key]
    ]
    if (target := run.about.get("target", "class")) != expected["target"]:
        return [*faults, f"target: expected {expected['target']}, found {target}"]
    if run.classes != expected["classes"]:
        faults.append(f"classes: expected {examples(expected['classes'])}, found {examples(run.classes)}")
    oof_faults = id_faults(run.oof_ids, expected["oof_ids"], part="validation ")
    if not oof_faults and run.oof_labels.shape == expected["oof_labels"].shape:
        differs = (run.oof_labels != expected["oof_labels"]).reshape(len(run.oof_ids), -1).any(axis=1)
        if differs.any():
            faults.append(f"other labels in {differs.sum()} rows (ids {examples(run.oof_ids[differs])})")
    return faults + oof_faults + id_faults(run.test_ids, expected["test_ids"], part="test ")


def id_faults(ids: np.ndarray, expected: np.ndarray, *, part: str = "") -> list[str]:
    """The ids of a `part` ("test ") that are missing, unknown or repeated; both arrays are sorted."""
    if np.array_equal(ids, expected):
        return []
    differences = {
        "missing": np.setdiff1d(expected, ids),
        "unknown": np.setdiff1d(ids, expected),
        "repeated": np.unique(ids[1:][ids[1:] == ids[:-1]]),
    }
    return [f"{len(rows)} {part}ids are {kind} ({examples(rows)})" for kind, rows in differences.items() if len(rows)]
