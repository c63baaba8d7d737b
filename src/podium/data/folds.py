"""Assign labelled rows to folds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from podium.config.keys import Validation
from podium.errors import DataError
from podium.seeding import stream_seed

ALWAYS_TRAINS = -1


def assign_folds(
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    validation: Validation,
    *,
    classes: Sequence[str] | None = None,
) -> np.ndarray:
    """The fold whose model is validated on each row; -1 for a row that is only used for training.

    `labels` (n,) int and `groups` (n,) or None; returns (n,) int64. A holdout is fold 0. Folds are
    stratified by class. Rows of one group stay in one fold, so a holdout of groups has only about
    `validation.rows` rows. Raises DataError if the data cannot be split so; its message has the names in
    `classes`, or else class indices.
    """
    names = [repr(name) for name in classes] if classes else [str(i) for i in range(labels.max(initial=-1) + 1)]
    _check_counts(labels, groups, validation, names)
    splitter = _splitter(len(labels), groups, validation)
    folds = np.full(len(labels), ALWAYS_TRAINS, np.int64)
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        if fold == 0 or validation.kind == "k-fold":
            folds[rows] = fold
    _check_training_rows(labels, folds, names)
    return folds


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


def _check_counts(labels: np.ndarray, groups: object, validation: Validation, names: Sequence[str]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    holdout = validation.kind == "holdout"
    if holdout and not len(counts) <= validation.rows <= len(labels) - len(counts):
        raise DataError(
            "The holdout does not fit the data.",
            expected=f"[validation] rows from {len(counts)} to {len(labels) - len(counts)}, "
            f"so that each of {len(counts)} classes has a row in both parts",
            found=f"rows = {validation.rows} of {len(labels)} labelled rows",
            fix="change [validation] in competition.toml",
        )
    needed = 2 if holdout or groups is not None else validation.folds
    faults = [f"class {name}: {count} row(s)" for name, count in zip(names, counts, strict=True) if count < needed]
    if faults:
        raise DataError(
            "Some classes have too few labelled rows to be split.",
            expected=f"{needed} or more",
            faults=faults,
            fix="add images, remove the class, or change [validation] in competition.toml",
        )


def _check_training_rows(labels: np.ndarray, folds: np.ndarray, names: Sequence[str]) -> None:
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
