"""Several runs over the same rows, joined by id."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.errors import PredictionsError
from podium.predictions.artefact import Predictions, examples, is_increasing, widened


@dataclass(frozen=True, eq=False)
class Aligned:
    """Several runs over the same rows: runs sorted by name, rows sorted by id."""

    runs: tuple[str, ...]
    abouts: tuple[dict[str, Any], ...]
    oof_ids: np.ndarray  # (n,) str
    oof_logits: np.ndarray  # (runs, n, classes) float
    oof_labels: np.ndarray  # (n,) int
    test_ids: np.ndarray  # (m,) str
    test_logits: np.ndarray  # (runs, m, classes) float
    classes: tuple[str, ...]


def align(predictions: Sequence[Predictions]) -> Aligned:
    """Join runs by id; neither the order of the runs nor the order of their rows changes the result.

    Raises PredictionsError with every run whose ids, labels, classes, folds or data differ from the first run's.
    """
    if not predictions:
        raise PredictionsError("There are no predictions to align.", expected="at least one run", found="none")
    runs = [_sorted_by_id(run) for run in sorted(predictions, key=lambda run: run.run)]
    first = runs[0]
    faults = []
    for previous, run in zip([None, *runs], runs, strict=False):
        name = f"{run.run} ({run.file or 'in memory'})"
        if previous is not None and run.run == previous.run:
            faults.append(f"{name}: the same run is in {previous.file or 'memory'}")
        faults += [f"{name}: {difference}" for difference in _differences(run, first)]
    if faults:
        raise PredictionsError(
            "These runs cannot be blended, because they do not have the same rows.",
            expected=f"the rows of {first.run} ({first.file or 'in memory'})",
            fix="train the runs that differ again, or move their files away",
            faults=faults,
        )
    return Aligned(
        runs=tuple(run.run for run in runs),
        abouts=tuple(run.about for run in runs),
        oof_ids=first.oof_ids,
        oof_logits=np.stack([widened(run.oof_logits) for run in runs]),
        oof_labels=first.oof_labels,
        test_ids=first.test_ids,
        test_logits=np.stack([widened(run.test_logits) for run in runs]),
        classes=first.classes,
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


def _differences(run: Predictions, first: Predictions) -> list[str]:
    """Why a run cannot be blended with the first; both are sorted by id."""
    faults = []
    if run.classes != first.classes:
        faults.append(f"classes {examples(run.classes, most=4)} instead of {examples(first.classes, most=4)}")
    for key, words in (("fold_sha256", "folds"), ("fingerprint", "data fingerprint")):
        if run.about[key] != first.about[key]:
            faults.append(f"{words} {run.about[key][:12]} instead of {first.about[key][:12]}")
    oof_faults = id_faults(run.oof_ids, first.oof_ids, part="validation ")
    if not oof_faults and (differs := run.oof_labels != first.oof_labels).any():
        faults.append(f"other labels in {differs.sum()} rows (ids {examples(run.oof_ids[differs])})")
    return faults + oof_faults + id_faults(run.test_ids, first.test_ids, part="test ")


def id_faults(ids: np.ndarray, expected: np.ndarray, *, part: str = "") -> list[str]:
    """The ids of a `part` ("test ") that are missing, unknown or repeated; both arrays are sorted."""
    if np.array_equal(ids, expected):
        return []
    differences = {
        "missing": np.setdiff1d(expected, ids),
        "unknown": np.setdiff1d(ids, expected),
        "repeated": np.unique(ids[1:][ids[1:] == ids[:-1]]),
    }
    return [f"{len(some)} {part}ids are {word} ({examples(some)})" for word, some in differences.items() if len(some)]
