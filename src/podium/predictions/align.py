"""Several runs over the same rows, joined by id."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.errors import PredictionsError
from podium.predictions.artefact import Predictions, _are_in_order, _widened, examples


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
    """Join runs by id; neither the order of the runs nor that of any run's rows changes the result.

    Raises PredictionsError naming every run whose ids, labels, classes, folds or data are not the first's.
    """
    if not predictions:
        raise PredictionsError("There are no predictions to align.", expected="at least one run", found="none")
    members = [_sorted_by_id(one) for one in sorted(predictions, key=lambda one: one.run)]
    first = members[0]
    faults = [
        f"{one.run} ({one.file or 'in memory'}): {fault}"
        for before, one in zip([None, *members], members, strict=False)
        for fault in _differences(one, first=first, before=before)
    ]
    if faults:
        raise PredictionsError(
            "These runs cannot be blended: they are not about the same rows.",
            expected=f"what {first.run} has ({first.file or 'in memory'})",
            fix="train the runs that differ again, or move their files away",
            faults=faults,
        )
    return Aligned(
        runs=tuple(one.run for one in members),
        abouts=tuple(one.about for one in members),
        oof_ids=first.oof_ids,
        oof_logits=np.stack([_widened(one.oof_logits) for one in members]),
        oof_labels=first.oof_labels,
        test_ids=first.test_ids,
        test_logits=np.stack([_widened(one.test_logits) for one in members]),
        classes=first.classes,
    )


def _sorted_by_id(one: Predictions) -> Predictions:
    if _are_in_order(one.oof_ids) and _are_in_order(one.test_ids):
        return one
    oof, test = np.argsort(one.oof_ids), np.argsort(one.test_ids)
    return replace(
        one,
        oof_ids=one.oof_ids[oof],
        oof_logits=one.oof_logits[oof],
        oof_labels=one.oof_labels[oof],
        test_ids=one.test_ids[test],
        test_logits=one.test_logits[test],
    )


def _differences(one: Predictions, *, first: Predictions, before: Predictions | None) -> list[str]:
    """Why a run cannot be blended with the first, both sorted by id; `before` is its neighbour by name."""
    faults = []
    if before is not None and one.run == before.run:
        faults.append(f"the same run is in {before.file or 'memory'}")
    if one.classes != first.classes:
        faults.append(f"classes {examples(one.classes, most=4)} instead of {examples(first.classes, most=4)}")
    for name, words in (("fold_sha256", "folds"), ("fingerprint", "data fingerprint")):
        if one.about[name] != first.about[name]:
            faults.append(f"{words} {one.about[name][:12]} instead of {first.about[name][:12]}")
    oof_differ = _ids_differ("validation", one.oof_ids, first.oof_ids)
    other_labels = [] if oof_differ else one.oof_ids[one.oof_labels != first.oof_labels]
    if len(other_labels):
        faults.append(f"has other labels in {len(other_labels)} rows (ids {examples(other_labels)})")
    return faults + oof_differ + _ids_differ("test", one.test_ids, first.test_ids)


def _ids_differ(part: str, ids: np.ndarray, expected: np.ndarray) -> list[str]:
    if np.array_equal(ids, expected):
        return []
    missing, extra = np.setdiff1d(expected, ids), np.setdiff1d(ids, expected)
    told = [f"lacks {len(missing)} {part} ids ({examples(missing)})"] if len(missing) else []
    told += [f"has {len(extra)} other {part} ids ({examples(extra)})"] if len(extra) else []
    return told or [f"has {part} ids more than once"]
