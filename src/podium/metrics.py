"""Metrics of a leaderboard: functions of probabilities `(n, classes)` and labels `(n,)`, with NumPy only.

The ensemble scores thousands of draws of rows. scikit-learn, with which the tests compare these metrics, needs
milliseconds for each.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

FEW_CLASSES = 64
# The normal quantile of a two-sided 95 % interval.
Z_95 = 1.959963984540054
MOST_RANKED = 100  # the largest k of MAP@k, as of [submission] most


def over_classes(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Reduce the last axis of values (..., classes); several times faster than NumPy if that axis is short."""
    if values.shape[-1] > FEW_CLASSES:
        return operation.reduce(values, axis=-1)
    result = values[..., 0].copy()
    for place in range(1, values.shape[-1]):
        operation(result, values[..., place], out=result)
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits `(..., classes)`, as float64 of the same shape; the last axis sums to 1."""
    exponentials = logits.astype(np.float64)
    exponentials -= over_classes(np.maximum, exponentials)[..., None]
    np.exp(exponentials, out=exponentials)
    exponentials /= over_classes(np.add, exponentials)[..., None]
    return exponentials


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits (..., classes), in their own type."""
    shifted = logits - over_classes(np.maximum, logits)[..., None]
    shifted -= np.log(over_classes(np.add, np.exp(shifted)))[..., None]
    return shifted


def hits(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which rows (n,) have their label as the most probable class, the first of equal ones."""
    return probabilities.argmax(axis=1) == labels


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log of the probability of each row's label, (n,), in nats; a probability of 0 counts as 2.2e-16."""
    of_labels = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    smallest = np.finfo(np.float64).eps
    return -np.log(np.clip(of_labels, smallest, 1 - smallest))


def reciprocal_ranks(probabilities: np.ndarray, labels: np.ndarray, *, most: int) -> np.ndarray:
    """1 / rank of each row's label by probability, (n,), equal ones in the order of the classes; 0 beyond `most`."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranks = 1 + (order == labels[:, None]).argmax(axis=1)
    return np.where(ranks <= most, 1 / ranks, 0.0)


def errors_of_numbers(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each number (n, 1) minus its label, (n,)."""
    return values[:, 0].astype(np.float64) - labels


def wilson_interval(correct: float, rows: float) -> tuple[float, float]:
    """The 95 % interval for a share of `correct` out of `rows` (E. B. Wilson, 1927)."""
    if not 0 <= correct <= rows or rows == 0:
        raise ValueError(f"expected 0 <= correct <= rows and at least one row, got {correct} of {rows}")
    share, z = correct / rows, Z_95
    middle = share + z * z / (2 * rows)
    half = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


# How often each row counts, (n,) float64 -> the score.
ScoreOfCounts = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Metric:
    """A metric, its direction and its range."""

    rows: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # values per row, if the metric is their mean
    of_counts: Callable[[np.ndarray, np.ndarray], ScoreOfCounts] | None = None  # if it is not: the score of drawn rows
    greater_is_better: bool = True
    least: float = 0.0
    most: float = 1.0

    def __call__(self, probabilities: np.ndarray, labels: np.ndarray) -> float:
        """The metric of probabilities `(n, classes)` for labels `(n,)`."""
        if self.rows:
            return float(np.mean(self.rows(probabilities, labels)))
        return self.of_counts(probabilities, labels)(np.ones(len(labels)))

    def gain(self, score: float) -> float:
        """The score, or its negative if less is better: more gain is always better."""
        return score if self.greater_is_better else -score


def _of_classes(score: "ScoreOfClasses", probabilities: np.ndarray, labels: np.ndarray) -> ScoreOfCounts:
    """A score of CLASS_SCORES, in which each row counts as often as it was drawn."""
    classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    is_correct, squares = predicted == labels, np.square(predicted - labels)

    def score_of(counts: np.ndarray) -> float:
        weights = ((labels, counts * is_correct), (labels, counts), (predicted, counts))
        return score(
            *(np.bincount(of_rows, weight, minlength=classes) for of_rows, weight in weights), counts @ squares
        )

    return score_of


def _mean_of_known(scores: Sequence[float] | np.ndarray) -> float:
    """The mean without NaN, which is the score of a class or column without rows; NaN if nothing is left."""
    known = np.compress(~np.isnan(scores), scores)
    return float(known.mean()) if len(known) else math.nan


def _shares(correct: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The `correct` rows of each class, (classes,), divided by its `rows`; NaN where these are 0."""
    with np.errstate(invalid="ignore"):
        return correct / rows


def _f1s(correct: np.ndarray, labelled: np.ndarray, predicted: np.ndarray, _: float) -> np.ndarray:
    """F1 of each class; NaN without labels and predictions."""
    return 2 * _shares(correct, labelled + predicted)


def _qwk(_: np.ndarray, labelled: np.ndarray, predicted: np.ndarray, squares: float) -> float:
    """Cohen's kappa with quadratic weights, for classes in their order (1: perfect, 0: chance).

    It is 1 if all labels and all predictions are the same class.
    """
    place = np.arange(len(labelled))
    by_chance = labelled @ np.square(place[:, None] - place) @ predicted / labelled.sum()
    return 1.0 - float(squares / by_chance) if by_chance else 1.0


def _auc(probabilities: np.ndarray, labels: np.ndarray) -> ScoreOfCounts:
    """Area under the ROC curve: of the second of two classes; with more classes, the mean of each against the rest.

    A class that no row or every row has is left out, as it has no curve; NaN if no class has one.
    """
    classes = probabilities.shape[1]
    areas = [_area_of_counts(probabilities[:, k], labels == k) for k in ([1] if classes == 2 else range(classes))]
    return lambda counts: _mean_of_known([area(counts) for area in areas])


def _area_of_counts(scores: np.ndarray, positive: np.ndarray) -> ScoreOfCounts:
    """The chance that a positive row scores above a negative one, a tie counting half (Mann and Whitney)."""
    places = np.unique(scores, return_inverse=True)[1]  # equal scores have the same place

    def area(counts: np.ndarray) -> float:
        positives = np.bincount(places, counts * positive)
        negatives = np.bincount(places, counts) - positives
        pairs = positives.sum() * negatives.sum()
        below = np.cumsum(negatives) - negatives / 2
        return float(positives @ below / pairs) if pairs else math.nan

    return area


def _rmse(values: np.ndarray, labels: np.ndarray) -> ScoreOfCounts:
    """Root of the mean squared error."""
    squares = np.square(errors_of_numbers(values, labels))
    return lambda counts: math.sqrt(counts @ squares / counts.sum())


def _r2(values: np.ndarray, labels: np.ndarray) -> ScoreOfCounts:
    """1 - squared error / squared distance of the labels from their mean; NaN if all labels are equal."""
    squares = np.square(errors_of_numbers(values, labels))

    def score(counts: np.ndarray) -> float:
        around_mean = counts @ np.square(labels - counts @ labels / counts.sum())
        return 1 - float(counts @ squares / around_mean) if around_mean > 0 else math.nan

    return score


def column_metric(metric: Metric, columns: int) -> Metric:
    """The mean of a metric over columns, of cells (n * columns, 2) that have the columns of each row side by side.

    A column without a score, as one that has no positive row has no AUC, is left out.
    """

    def of_counts(probabilities: np.ndarray, labels: np.ndarray) -> ScoreOfCounts:
        parts = [slice(column, None, columns) for column in range(columns)]
        scores = [(metric.of_counts(probabilities[part], labels[part]), part) for part in parts]
        return lambda counts: _mean_of_known([score(counts[part]) for score, part in scores])

    return replace(metric, of_counts=of_counts)


# Metrics of how many rows of each class are correct, have it as label, and are predicted as it, each (classes,), and of
# the sum of all squared differences between label and prediction. Of 20,000 classes, a confusion matrix would have 400
# million cells.
ScoreOfClasses = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]
CLASS_SCORES: dict[str, ScoreOfClasses] = {
    "accuracy": lambda correct, labelled, *_: float(correct.sum() / labelled.sum()),
    "balanced_accuracy": lambda correct, labelled, *_: _mean_of_known(_shares(correct, labelled)),
    "macro_f1": lambda *counts: _mean_of_known(_f1s(*counts)),
    "micro_f1": lambda *counts: float(np.nan_to_num(_f1s(*counts)[1])),  # of the classes no and yes; 0 without yes
    "qwk": _qwk,
}


def score_of_confusion(name: str, confusion: np.ndarray) -> float:
    """A metric of a confusion matrix (row the label, column the prediction)."""
    label, prediction = np.indices(confusion.shape)
    squares = (np.square(label - prediction) * confusion).sum()
    return CLASS_SCORES[name](np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0), squares)


METRICS = {
    **{name: Metric(of_counts=partial(_of_classes, score)) for name, score in CLASS_SCORES.items()},
    "accuracy": Metric(rows=hits),
    "qwk": Metric(of_counts=partial(_of_classes, _qwk), least=-1.0),
    "log_loss": Metric(rows=log_losses, greater_is_better=False, most=math.inf),
    "auc": Metric(of_counts=_auc),
    **{f"map_at_{k}": Metric(rows=partial(reciprocal_ranks, most=k)) for k in range(1, MOST_RANKED + 1)},
    # Of numbers (n, 1) and labels (n,).
    "rmse": Metric(of_counts=_rmse, greater_is_better=False, most=math.inf),
    "mae": Metric(
        rows=lambda values, labels: np.abs(errors_of_numbers(values, labels)), greater_is_better=False, most=math.inf
    ),
    "r2": Metric(of_counts=_r2, least=-math.inf),
}
accuracy, log_loss = METRICS["accuracy"], METRICS["log_loss"]
