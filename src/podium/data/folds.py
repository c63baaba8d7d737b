"""Which labelled rows judge a model that never saw them."""

from collections.abc import Sequence

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
    """Assign each row the fold whose model is judged on it; -1 for a row that always trains.

    `labels` (n,) int and `groups` (n,) or None; returns (n,) int64. A holdout is fold 0. Every fold has the
    classes in the proportions of the whole; rows of one group stay together, which makes a holdout of groups
    only about `validation.rows` large. Raises DataError where that cannot be done, with the names in `classes`,
    or else their indices.
    """
    names = [repr(one) for one in classes] if classes else [str(i) for i in range(labels.max(initial=-1) + 1)]
    _check_counts(labels, groups, validation, names)
    seed = stream_seed(validation.seed, "folds") % 2**32
    if groups is not None:
        folds = _grouped(labels, np.asarray(groups), validation, seed)
    elif validation.kind == "holdout":
        folds = _holdout(labels, validation.rows, seed)
    else:
        folds = _stratified(labels, validation.folds, seed)
    _check_training_rows(labels, folds, names)
    return folds


def _holdout(labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedShuffleSplit

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=rows, random_state=seed)
    _, held_out = next(splitter.split(np.zeros(len(labels)), labels))
    folds = np.full(len(labels), ALWAYS_TRAINS, np.int64)
    folds[held_out] = 0
    return folds


def _stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    for fold, (_, judged) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        folds[judged] = fold
    return folds


def _grouped(labels: np.ndarray, groups: np.ndarray, validation: Validation, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    holdout = validation.kind == "holdout"
    count = max(2, round(len(labels) / validation.rows)) if holdout else validation.folds
    if len(np.unique(groups)) < count:
        raise DataError("Too few groups.", expected=f"{count} or more", found=str(len(np.unique(groups))))
    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for fold, (_, judged) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        folds[judged] = fold
    return np.where(folds == 0, 0, ALWAYS_TRAINS) if holdout else folds


def _check_counts(labels: np.ndarray, groups: object, validation: Validation, names: Sequence[str]) -> None:
    counts = np.bincount(labels, minlength=len(names))
    holdout = validation.kind == "holdout"
    if holdout and not len(counts) <= validation.rows <= len(labels) - len(counts):
        raise DataError(
            "The holdout does not fit the data.",
            expected=f"[validation] rows from {len(counts)} to {len(labels) - len(counts)}, "
            f"so that each of {len(counts)} classes has a row on both sides",
            found=f"rows = {validation.rows} of {len(labels)} labelled rows",
            fix="change [validation] in competition.toml",
        )
    needed = 2 if holdout or groups is not None else validation.folds
    faults = [f"class {name}: {count} row(s)" for name, count in zip(names, counts, strict=True) if count < needed]
    if faults:
        raise DataError(
            "Classes with too few labelled rows to be split.",
            expected=f"{needed} or more",
            faults=faults,
            fix="add images, leave the class out, or change [validation] in competition.toml",
        )


def _check_training_rows(labels: np.ndarray, folds: np.ndarray, names: Sequence[str]) -> None:
    """Refuse a split in which a model would have to know a class that it never saw."""
    unseen = [
        f"fold {fold}: class {names[label]}"
        for fold in np.unique(folds[folds != ALWAYS_TRAINS])
        for label in np.setdiff1d(labels, labels[folds != fold])
    ]
    if unseen:
        raise DataError("Classes whose rows all lie in one fold.", faults=unseen, fix="use fewer folds or more groups")
