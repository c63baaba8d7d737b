"""What a blend predicts wrongly: scores by class, confused classes, rows with a large loss, suspected labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from podium.ensemble.strategies.calibrate import BINS
from podium.metrics import METRICS, confusion_matrix, hits
from podium.targets.target import CLASS, Target

# Rows with a smaller loss (a probability of the label above 0.9) are not shown among the largest losses.
SMALL_LOSS = 0.1
NUMBER_PARTS = 5


class ClassScore(NamedTuple):
    """Scores of one class; `rows` have it as their label."""

    name: str
    rows: int
    recall: float
    precision: float
    f1: float


class ConfusedPair(NamedTuple):
    """Rows with the label `label` that are predicted as `predicted`."""

    label: str
    predicted: str
    rows: int
    share: float  # of the rows with this label


def class_scores(counts: np.ndarray, classes: Sequence[str]) -> list[ClassScore]:
    """Recall, precision and F1 of each class of a confusion matrix, lowest F1 first; NaN for a class without rows."""
    correct, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (correct / labelled, correct / predicted, 2 * correct / (labelled + predicted))
    values = zip(classes, labelled.tolist(), *(column.tolist() for column in columns), strict=True)
    return sorted((ClassScore(*row) for row in values), key=lambda score: (np.isnan(score.f1), score.f1))


def confused_pairs(counts: np.ndarray, classes: Sequence[str], *, most: int) -> list[ConfusedPair]:
    """The pairs of label and wrong prediction with the most rows of a confusion matrix."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows_per_label = counts.sum(axis=1)
    return [
        ConfusedPair(classes[k], classes[j], int(wrong[k, j]), float(wrong[k, j] / rows_per_label[k]))
        for k, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[k, j]
    ]


class ColumnScore(NamedTuple):
    """Scores of one column of a multi-label target; `rows` have 1 in it."""

    name: str
    rows: int
    auc: float  # NaN if all labels are the same
    recall: float
    precision: float
    f1: float


def column_scores(probabilities: np.ndarray, labels: np.ndarray, columns: Sequence[str]) -> list[ColumnScore]:
    """AUC, and recall, precision and F1 at a probability of 1/2, of (n, columns), the lowest AUC first."""
    scores = []
    for name, values, truth in zip(columns, probabilities.T, labels.T.astype(np.int64), strict=True):
        pairs = np.stack([1 - values, values], axis=1)
        _, rows, *of_one = max(class_scores(confusion_matrix(pairs, truth), ("0", "1")))
        scores.append(ColumnScore(name, rows, METRICS["auc"](pairs, truth), *of_one))
    return sorted(scores, key=lambda score: (np.isnan(score.auc), score.auc))


class NumberScore(NamedTuple):
    """Errors of the rows whose labels are in one part of all labels, from the lowest."""

    low: float
    high: float
    rows: int
    mae: float
    bias: float  # mean of predicted minus true


def number_scores(values: np.ndarray, labels: np.ndarray) -> list[NumberScore]:
    """The errors of numbers (n,) in five parts of equal size, by their labels (n,)."""
    parts = np.array_split(np.argsort(labels, kind="stable"), min(NUMBER_PARTS, len(labels)))
    errors = values - labels
    return [
        NumberScore(*labels[part[[0, -1]]].tolist(), len(part), np.abs(errors[part]).mean(), errors[part].mean())
        for part in parts
    ]


def largest_losses(probabilities: np.ndarray, labels: np.ndarray, *, most: int, target: Target = CLASS) -> np.ndarray:
    """Row indices by falling loss, at most `most`, without rows whose loss is small."""
    losses = target.row_losses(probabilities, labels)
    rows = np.argsort(-losses, kind="stable")[:most]
    return rows[losses[rows] > SMALL_LOSS]


def least_certain(probabilities: np.ndarray, *, most: int, target: Target = CLASS) -> np.ndarray:
    """Row indices of the least certain predictions, the least certain first."""
    return np.argsort(target.confidences(probabilities), kind="stable")[:most]


def suspected_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices of rows whose label may be wrong, most likely first.

    The rule of confident learning (Northcutt et al., arXiv:1911.00068): the threshold of a class is its mean
    probability in the rows that have it as their label. A row is suspected if, among the classes that reach their
    threshold in it, the most probable one is not its label.
    """
    own = probabilities[np.arange(len(labels)), labels]
    count = np.bincount(labels, minlength=probabilities.shape[1])
    thresholds = np.bincount(labels, weights=own, minlength=len(count)) / np.maximum(count, 1)
    thresholds[count == 0] = np.inf
    confident = np.where(probabilities >= thresholds, probabilities, 0)
    suspected = np.flatnonzero((confident.max(axis=1) > 0) & (confident.argmax(axis=1) != labels))
    margin = own[suspected] - probabilities[suspected].max(axis=1)
    return suspected[np.argsort(margin, kind="stable")]


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean confidence, accuracy and number of rows of each equal bin of confidence that has rows: (bins, 3)."""
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, hits(probabilities, labels))]
    used = rows > 0
    return np.stack([*(values[used] / rows[used] for values in sums), rows[used]], axis=1)
