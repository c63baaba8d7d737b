"""The rows that a search judges on: held out of the rows that are not validation rows."""

from dataclasses import dataclass

import numpy as np

from podium.config.keys import Validation
from podium.data.folds import assign_folds
from podium.errors import DataError
from podium.lock import Lock
from podium.seeding import stream_seed

# Trials are judged on the first part; the winner and the recipe as it was once more on each of the next ones.
PARTS, JUDGED_AGAIN = 5, (1, 2)


@dataclass(frozen=True)
class InnerSplit:
    """Rows outside the first validation fold, dealt into parts of equal class shares; groups stay together."""

    rows: np.ndarray  # (n,) rows of the lock
    parts: np.ndarray  # (n,) 0 to PARTS - 1
    words: str  # what the rows are and what stays honest

    def training_and_judged(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to learn from, and rows to judge on."""
        return self.rows[self.parts != part], self.rows[self.parts == part]


def inner_split(lock: Lock, validation: Validation) -> InnerSplit:
    """Deal the labelled rows outside fold 0 into parts; raises DataError where a class has too few of them."""
    rows = np.flatnonzero(lock.folds != 0)
    parts = Validation(kind="k-fold", folds=PARTS, seed=stream_seed(validation.seed, "tune") % 2**32)
    groups = None if lock.groups is None else lock.groups[rows]
    try:
        assigned = assign_folds(lock.train_labels[rows], groups, parts, classes=lock.classes)
    except DataError as error:
        raise DataError(
            "Too few rows to search on.",
            expected=f"{PARTS} rows (or groups of rows) of each class beside the validation rows",
            found=error.found or f"{len(rows):,} rows",
            faults=error.faults,
            fix="label more images, or a smaller validation in competition.toml",
        ) from None
    split = InnerSplit(rows, assigned, "")
    training, judged = split.training_and_judged(0)
    return InnerSplit(rows, assigned, _words(len(training), len(judged), validation))


def _words(training: int, judged: int, validation: Validation) -> str:
    held = f"judged on {judged:,} inner rows, trained on {training:,} others"
    if validation.kind == "holdout":
        return f"{held}; the validation rows are not looked at and stay honest"
    return (
        f"{held}, all outside fold 1 of {validation.folds}: only fold 1 stays wholly honest, "
        "the other folds' scores of what is found are a little too good"
    )
