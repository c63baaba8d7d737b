"""The rows of a search: training and scored rows of its trials, none of which is a validation row."""

from dataclasses import replace

import numpy as np

from podium.config.keys import Validation
from podium.data.folds import ALWAYS_TRAINS, assign_folds
from podium.errors import DataError
from podium.lock import Lock
from podium.seeding import stream_seed

# Trials are scored on part 0; at the end, the best trial and the recipe's own values on each of the other parts here.
PARTS, COMPARISON_PARTS = 5, (1, 2)


def inner_split(lock: Lock, validation: Validation) -> Lock:
    """A lock whose folds are parts, 0 to PARTS - 1, of the labelled rows outside fold 0; the others have -1.

    These are the rows of fold 0, and external data, without which a search trains.

    The parts have equal shares of the classes, and groups stay together. Classes with too few rows for this have -1.
    Raises DataError if fewer than two classes have enough.
    """
    rows, folds = np.flatnonzero((lock.folds != 0) & ~lock.is_extra), np.full_like(lock.folds, ALWAYS_TRAINS)
    parts = Validation(kind="k-fold", folds=PARTS, seed=stream_seed(validation.seed, "tune") % 2**32)
    groups = None if lock.groups is None else lock.groups[rows]
    try:
        folds[rows] = assign_folds(lock.train_labels[rows], groups, parts, classes=lock.classes, target=lock.target)
    except DataError as error:
        raise DataError(
            "Too few rows for a search.",
            expected=f"{PARTS} rows (or groups of rows) of each class beside the validation rows",
            found=error.found or f"{len(rows):,} rows",
            faults=error.faults,
            fix="label more images, or hold out fewer validation rows in competition.toml",
        ) from None
    return replace(lock, folds=folds)


def describe_rows(inner: Lock, validation: Validation) -> str:
    """How many rows train and are scored, and which scores stay honest."""
    scored, others = np.count_nonzero(inner.folds == 0), np.count_nonzero(inner.folds > 0)
    unused, honest = "validation row", "validation scores stay honest"
    if validation.kind == "k-fold":
        unused, honest = f"row of fold 1 of {validation.folds}", "only the score on that fold stays honest"
    return f"scored on {scored:,} inner rows, trained on {others:,} others; no {unused} is used, so {honest}"
