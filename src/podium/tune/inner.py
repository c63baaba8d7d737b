"""The rows of a search: training and scored rows of its trials, none of which is a validation row."""

from dataclasses import dataclass, replace

import numpy as np

from podium.config.keys import Validation
from podium.data.folds import ALWAYS_TRAINS, assign_folds
from podium.errors import DataError
from podium.lock import Lock
from podium.seeding import stream_seed

# Trials are scored on part 0; at the end, the best trial and the recipe's own values on each of the other parts here.
PARTS, COMPARISON_PARTS = 5, (1, 2)


@dataclass(frozen=True)
class InnerSplit:
    """The labelled rows outside validation fold 0, in parts with equal shares of the classes; groups stay together."""

    lock: Lock
    rows: np.ndarray  # (n,) indices into the lock's labelled rows
    parts: np.ndarray  # (n,) 0 to PARTS - 1

    def scored_rows(self, part: int) -> np.ndarray:
        """Indices of the rows of a part; all other `rows` train."""
        return self.rows[self.parts == part]

    def labels(self, part: int) -> np.ndarray:
        """Labels of the rows of a part."""
        return self.lock.train_labels[self.scored_rows(part)]

    def lock_for(self, part: int) -> Lock:
        """A lock whose only validation rows are those of a part."""
        folds = np.full_like(self.lock.folds, ALWAYS_TRAINS)
        folds[self.scored_rows(part)] = 0
        return replace(self.lock, folds=folds)


def inner_split(lock: Lock, validation: Validation) -> InnerSplit:
    """Split the labelled rows outside fold 0 into parts; raises DataError where a class has too few of them."""
    rows = np.flatnonzero(lock.folds != 0)
    parts = Validation(kind="k-fold", folds=PARTS, seed=stream_seed(validation.seed, "tune") % 2**32)
    groups = None if lock.groups is None else lock.groups[rows]
    try:
        return InnerSplit(lock, rows, assign_folds(lock.train_labels[rows], groups, parts, classes=lock.classes))
    except DataError as error:
        raise DataError(
            "Too few rows for a search.",
            expected=f"{PARTS} rows (or groups of rows) of each class beside the validation rows",
            found=error.found or f"{len(rows):,} rows",
            faults=error.faults,
            fix="label more images, or hold out fewer validation rows in competition.toml",
        ) from None


def describe_rows(split: InnerSplit, validation: Validation) -> str:
    """How many rows train and are scored, and which scores stay honest."""
    scored = len(split.scored_rows(0))
    rows = f"scored on {scored:,} inner rows, trained on {len(split.rows) - scored:,} others"
    if validation.kind == "holdout":
        return f"{rows}; no validation row is used, so validation scores stay honest"
    return (
        f"{rows}, all outside fold 1 of {validation.folds}: only the score on fold 1 stays honest, "
        "the scores of a tuned recipe on the other folds are a little too good"
    )
