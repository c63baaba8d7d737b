"""Assign labelled rows to folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.config.keys import Validation
from podium.errors import DataError
from podium.seeding import stream_seed
from podium.targets.target import CLASS, Target

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
    holdout = validation.kind == "holdout"
    needed = 2 if holdout or groups is not None else validation.folds  # rows, or groups, of a class
    most = min(validation.rows, len(labels) - validation.rows) if holdout else len(labels)
    strata = target.strata(labels, least=needed, most=most)
    names = classes if classes and strata is labels else range(strata.max(initial=-1) + 1)
    split = np.flatnonzero(_in_splittable_classes(strata, groups, needed=needed))
    groups = None if groups is None else np.asarray(groups)[split]
    _check_counts(np.unique(strata[split], return_counts=True)[1], validation, fewest=2 if strata is labels else 1)
    folds = np.full(len(labels), ALWAYS_TRAINS, np.int64)
    splits = _splitter(len(split), groups, validation).split(split, strata[split], groups)
    for fold, (_, rows) in enumerate(splits):
        if fold == 0 or not holdout:
            folds[split[rows]] = fold
    check_training_rows(strata, folds, names)
    return folds


def _in_splittable_classes(labels: np.ndarray, groups: object, *, needed: int) -> np.ndarray:
    """Which rows (n,) are split: not those of a class with too few rows or groups, nor other rows of their groups."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    kept = labels >= 0
    while True:
        pairs = np.unique(np.stack([labels[kept], units[kept]]), axis=1)
        rare = kept & (np.bincount(pairs[0], minlength=labels.max(initial=-1) + 1)[labels] < needed)
        if not rare.any():
            return kept
        kept = kept & ~np.isin(units, units[rare])


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


def _check_counts(counts: np.ndarray, validation: Validation, *, fewest: int) -> None:
    """Raise DataError unless there are `fewest` classes, each of which (it has `counts` rows) can be in both parts."""
    classes, rows, fix = len(counts), counts.sum(), "add images, or change [validation] in competition.toml"
    if classes < fewest:
        what = "Too few classes have enough labelled rows to be split."
        raise DataError(what, expected=f"{fewest} or more", found=str(classes), fix=fix)
    if validation.kind == "holdout" and not classes <= validation.rows <= rows - classes:
        raise DataError(
            "The holdout does not fit the data.",
            expected=f"[validation] rows from {classes} to {rows - classes}, "
            f"so that each of {classes} classes has a row in both parts",
            found=f"rows = {validation.rows} of {rows} labelled rows",
            fix=fix,
        )


def check_training_rows(labels: np.ndarray, folds: np.ndarray, names: Sequence[str] | range) -> None:
    """Raise DataError if a class of a fold is missing in the fold's training rows."""
    unseen = [
        f"fold {fold}: class {names[label]!r}"
        for fold in np.unique(folds[folds != ALWAYS_TRAINS])
        for label in np.setdiff1d(labels, labels[folds != fold])
    ]
    if unseen:
        what, fix = "Some classes have all their rows in one fold.", "use fewer folds or more groups"
        raise DataError(what, faults=unseen, fix=fix)
