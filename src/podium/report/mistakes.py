"""What a blend gets wrong: counts by class, rows by loss, labels that may be the mistake; NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from podium.ensemble.strategies.calibrate import BINS
from podium.metrics import log_losses

# A smaller loss than this is none to look at: the label was given nine tenths.
SMALL_LOSS = 0.1


@dataclass(frozen=True)
class ClassScore:
    """One class: rows that have it, and how many of those that said or had it were right."""

    name: str
    rows: int
    recall: float
    precision: float
    f1: float


@dataclass(frozen=True)
class Pair:
    """Rows of one class that were taken for another."""

    label: str
    said: str
    rows: int
    share: float  # of the label's rows


def confusion(labels: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row the label, column what was said."""
    return np.bincount(labels * classes + said, minlength=classes * classes).reshape(classes, classes)


def class_scores(counts: np.ndarray, classes: Sequence[str]) -> list[ClassScore]:
    """Recall, precision and F1 of each class, the worst F1 first; NaN where a class has no rows."""
    right, had, told = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision, f1 = right / had, right / told, 2 * right / (had + told)
    scores = [
        ClassScore(name, int(had[k]), float(recall[k]), float(precision[k]), float(f1[k]))
        for k, name in enumerate(classes)
    ]
    return sorted(scores, key=lambda one: (np.isnan(one.f1), one.f1))


def confused_pairs(counts: np.ndarray, classes: Sequence[str], *, most: int) -> list[Pair]:
    """The pairs of classes that are confused in most rows, in one direction each."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    had = counts.sum(axis=1)
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Pair(classes[label], classes[said], int(wrong[label, said]), float(wrong[label, said] / had[label]))
        for label, said in pairs
        if wrong[label, said]
    ]


def largest_losses(probabilities: np.ndarray, labels: np.ndarray, *, most: int) -> np.ndarray:
    """Rows whose label was given the least probability, the worst first; at most all whose loss is not small."""
    losses = log_losses(probabilities, labels)
    worst = np.argsort(-losses, kind="stable")[:most]
    return worst[losses[worst] > SMALL_LOSS]


def least_certain(probabilities: np.ndarray, *, most: int) -> np.ndarray:
    """Rows whose two most probable classes are nearest to each other, the nearest first."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.argsort(two[:, 1] - two[:, 0], kind="stable")[:most]


def suspected_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows whose label may be wrong, the likeliest first.

    The rule of confident learning (Northcutt et al., arXiv:1911.00068): a row is suspected where another class is
    given more than that class is usually given in its own rows, and is the most probable of those.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    own = probabilities[rows, labels]
    count = np.maximum(np.bincount(labels, minlength=classes), 1)
    usual = np.bincount(labels, weights=own, minlength=classes) / count
    usual[np.bincount(labels, minlength=classes) == 0] = np.inf
    confident = np.where(probabilities >= usual, probabilities, 0)
    suspected = np.flatnonzero((confident.max(axis=1) > 0) & (confident.argmax(axis=1) != labels))
    margin = own[suspected] - probabilities[suspected].max(axis=1)
    return suspected[np.argsort(margin, kind="stable")]


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of equal bins of confidence that have rows: mean confidence, accuracy, rows; (bins, 3)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    seen = rows > 0
    sums = [np.bincount(bins, weights=values, minlength=BINS)[seen] for values in (confidence, right)]
    return np.stack([*(values / rows[seen] for values in sums), rows[seen]], axis=1)
