"""What is looked at before anything is uploaded: five submissions a day are few."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from podium.config import Submission

if TYPE_CHECKING:
    from podium.data.lock import Lock

# Half the sum of the differences between two lists of shares: above the first a warning, above the second a refusal.
STRANGE = 0.10
ABSURD = 0.30
MOST_CLASSES_SHOWN = 4


@dataclass(frozen=True)
class Shares:
    """Class shares of the predictions and of the training labels, and their distance beyond what chance makes."""

    classes: tuple[str, ...]
    predicted: np.ndarray  # (classes,)
    trained: np.ndarray  # (classes,)
    distance: float  # total variation, 0 to 1, less what a sample of so many rows has by chance

    @property
    def is_strange(self) -> bool:
        """Whether to look at it."""
        return self.distance > STRANGE

    @property
    def is_absurd(self) -> bool:
        """Whether a wrong mapping, or one class for all, is likelier than such a test set."""
        return self.distance > ABSURD

    def told(self) -> str:
        """The classes that differ most: `cat 0.02 instead of 0.31`."""
        order = np.argsort(-np.abs(self.predicted - self.trained), kind="stable")[:MOST_CLASSES_SHOWN]
        pairs = (f"{self.classes[k]} {self.predicted[k]:.2f} instead of {self.trained[k]:.2f}" for k in order)
        return ", ".join(pairs)


def class_shares(file: Path, *, lock: "Lock", settings: Submission) -> Shares:
    """Compare a valid CSV's class shares with the training labels': a wrong mapping of classes shows there."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if settings.kind == "labels":
        counts = Counter(row[settings.label_column] for row in rows)
        predicted = np.array([counts[name] for name in lock.classes]) / len(rows)
    else:
        totals = np.array([sum(float(row[name]) for row in rows) for name in lock.classes])
        predicted = totals / totals.sum()
    trained = np.bincount(lock.train_labels, minlength=len(lock.classes)) / len(lock.train_labels)
    by_chance = float(np.sqrt(trained * (1 - trained) / len(rows)).sum())
    distance = max(0.0, float(np.abs(predicted - trained).sum()) / 2 - by_chance)
    return Shares(tuple(lock.classes), predicted, trained, distance)
