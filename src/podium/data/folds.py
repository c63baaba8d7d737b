"""Assign labelled rows to folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.config.keys import Validation
from podium.errors import DataError
from podium.seeding import stream_seed
from podium.targets.base import CLASS, Target

ALWAYS_TRAINS = -1


def assign_folds(
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    validation: Validation,
    *,
    classes: Sequence[str] | None = None,
    target: Target = CLASS,
) -> np.ndarray:
    """The fold whose model is validated on each row; -1 for a row that is only used for training.

    `labels` as `target` has them and `groups` (n,) or None; returns (n,) int64. A holdout is fold 0. Folds are
    stratified by class, or by the target's strata. Rows of one group stay in one fold, so a holdout of groups has only
    about `validation.rows` rows. Classes with too few rows for all folds are only used for training. Raises DataError
    if the data cannot be split so; its message has the names in `classes`, or else indices.
    """
    strata = _strata(labels, groups, validation, target)
    names = [str(i) for i in range(strata.max(initial=-1) + 1)]
    if classes and strata is labels:
        names = [repr(name) for name in classes]
    fewest, labels = 2 if strata is labels else 1, strata
    split = np.flatnonzero(_in_splittable_classes(labels, groups, validation))
    counts, groups = np.unique_counts(labels[split]).counts, None if groups is None else np.asarray(groups)[split]
    _check_counts(counts, len(split), validation, fewest=fewest)
    splitter = _splitter(len(split), groups, validation)
    folds = np.full(len(labels), ALWAYS_TRAINS, np.int64)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(split)), labels[split], groups)):
        if fold == 0 or validation.kind == "k-fold":
            folds[split[rows]] = fold
    check_training_rows(labels, folds, names)
    return folds


def _in_splittable_classes(labels: np.ndarray, groups: object, validation: Validation) -> np.ndarray:
    """Which rows (n,) are split: not those of a class with too few rows or groups, nor other rows of their groups."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    needed, kept = _least_rows(groups, validation), labels >= 0
    while True:
        pairs = np.unique(np.stack([labels[kept], units[kept]]), axis=1)
        rare = kept & (np.bincount(pairs[0], minlength=labels.max(initial=-1) + 1)[labels] < needed)
        if not rare.any():
            return kept
        kept = kept & ~np.isin(units, units[rare])


def _strata(labels: np.ndarray, groups: object, validation: Validation, target: Target) -> np.ndarray:
    """The class of each row (n,), or its stratum, of which there are so few that each has rows in every part."""
    holdout, least = validation.kind == "holdout", _least_rows(groups, validation)
    most = min(validation.rows, len(labels) - validation.rows) if holdout else len(labels)
    return target.strata(labels, least=least, most=most)


def _least_rows(groups: object, validation: Validation) -> int:
    """How many rows of a class are needed."""
    return 2 if validation.kind == "holdout" or groups is not None else validation.folds


def _splitter(rows: int, groups: object, validation: Validation) -> Any:
    """The scikit-learn splitter of a split; a holdout of groups is the first of several folds."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

    seed = stream_seed(validation.seed, "folds") % 2**32
    holdout = validation.kind == "holdout"
    if groups is None and holdout:
        return StratifiedShuffleSplit(n_splits=1, test_size=validation.rows, random_state=seed)
    if groups is None:
        return StratifiedKFold(validation.folds, shuffle=True, random_state=seed)
    count = max(2, round(rows / validation.rows)) if holdout else validation.folds
    if len(np.unique(groups)) < count:
        raise DataError("Too few groups.", expected=f"{count} or more", found=str(len(np.unique(groups))))
    return StratifiedGroupKFold(count, shuffle=True, random_state=seed)


def _check_counts(counts: np.ndarray, rows: int, validation: Validation, *, fewest: int) -> None:
    """Raise DataError unless rows of `fewest` classes can be split, with each of the `counts` classes in both parts."""
    if len(counts) < fewest:
        raise DataError(
            "Too few classes have enough labelled rows to be split.",
            expected=f"{fewest} or more",
            found=str(len(counts)),
            fix="add images, or change [validation] in competition.toml",
        )
    if validation.kind == "holdout" and not len(counts) <= validation.rows <= rows - len(counts):
        raise DataError(
            "The holdout does not fit the data.",
            expected=f"[validation] rows from {len(counts)} to {rows - len(counts)}, "
            f"so that each of {len(counts)} classes has a row in both parts",
            found=f"rows = {validation.rows} of {rows} labelled rows",
            fix="change [validation] in competition.toml",
        )


def check_training_rows(labels: np.ndarray, folds: np.ndarray, names: Sequence[str]) -> None:
    """Raise DataError if a class of a fold is missing in the fold's training rows."""
    unseen = [
        f"fold {fold}: class {names[label]}"
        for fold in np.unique(folds[folds != ALWAYS_TRAINS])
        for label in np.setdiff1d(labels, labels[folds != fold])
    ]
    if unseen:
        raise DataError(
            "Some classes have all their rows in one fold.", faults=unseen, fix="use fewer folds or more groups"
        )
