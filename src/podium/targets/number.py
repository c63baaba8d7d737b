"""Targets that are trained as a number: `number`, and `ordinal` for classes in their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from podium.metrics import CONFUSION_SCORES
from podium.targets.base import Target

# Numbers are stratified into so many parts of equal size, from the lowest to the highest.
NUMBER_STRATA = 10
# Of the search for cut points between ordered classes.
CUT_STEPS, MOST_SWEEPS = 50, 10


@dataclass(frozen=True)
class Regression(Target):
    """The base of targets that are trained as a number: a logit is that number, a blend a weighted mean of numbers."""

    sums_to_one: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        """The number."""
        return 1

    def log_values(self, logits: np.ndarray) -> np.ndarray:
        """The numbers."""
        return logits

    def values_of_logs(self, logs: np.ndarray) -> np.ndarray:
        """The numbers, or the nearest class."""
        return self.values(logs)

    def columns(self, classes: Sequence[str], label_column: str) -> Sequence[str]:
        """The label column."""
        return [label_column]

    def read_values(self, values: np.ndarray) -> tuple[np.ndarray, str]:
        """The numbers."""
        return values, "numbers"

    def scale(self, labels: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation of the training rows' labels (n,); 1 if all are equal."""
        return float(labels.mean()), float(labels.std()) or 1.0

    def training_targets(self, labels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
        """Labels (n, 1) float32 of mean 0 and standard deviation 1, for which networks are made."""
        mean, deviation = scale
        return ((labels - mean) / deviation).astype(np.float32)[:, None]

    def top(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float | None]]:
        """The prediction."""
        return [(self.label_text(self.predicted_labels(probabilities[None])[0], classes), None)]

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """Not known."""
        return np.full(len(probabilities), np.nan)

    def prediction(self, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, str | float]:
        """The number with the name of its label column, or the nearest class, without the ensemble's cut points."""
        return {"label" if self.has_classes else classes[0]: self.top(probabilities, classes)[0][0]}

    def errors(self, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Predicted minus true."""
        return predicted - labels

    def merits(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The negative distance."""
        return -self.row_losses(values, labels)


@dataclass(frozen=True)
class Number(Regression):
    """`number`: each row has a number."""

    name: ClassVar[str] = "number"
    label_form: ClassVar[tuple[int, str, str]] = (1, "f", "floats")
    scores: ClassVar[tuple[str, ...]] = ("rmse", "mae")
    has_classes: ClassVar[bool] = False

    def cell_labels(self, labels: np.ndarray) -> np.ndarray:
        """The numbers (n,) float64."""
        return labels.reshape(-1).astype(np.float64)

    def values(self, logits: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """The numbers."""
        return logits.astype(np.float64)

    def predicted(self, logs: np.ndarray) -> np.ndarray:
        """The numbers (runs, n)."""
        return logs[..., 0]

    def disagreement(self, predicted: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The mean distance."""
        return np.abs(predicted - others).mean(axis=1)

    def row_losses(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The distance."""
        return np.abs(probabilities[:, 0] - labels)

    def read_names(self, texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """The numbers."""
        return np.array(texts, np.float64)

    def read_lock_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Labels (n,) float64."""
        return np.array(texts, np.float64)

    def label_faults(self, labels: np.ndarray) -> list[str]:
        """Whether all are finite."""
        return [] if np.isfinite(labels).all() else ["expected finite numbers, found NaN or infinity"]

    def label_text(self, label: np.ndarray, classes: Sequence[str]) -> str:
        """Six digits."""
        return f"{label:.6g}"

    def predicted_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The numbers (n,)."""
        return probabilities[..., 0]

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """1: a number has no classes, and all rows count as one."""
        return np.ones(1)

    def strata(self, labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
        """Parts of equal size, from the lowest numbers to the highest."""
        parts = max(1, min(NUMBER_STRATA, most, len(labels) // max(least, 1)))
        ranks = np.empty(len(labels), np.int64)
        ranks[np.argsort(labels, kind="stable")] = np.arange(len(labels))
        return ranks * parts // max(len(labels), 1)


@dataclass(frozen=True)
class Ordinal(Regression):
    """`ordinal`: each row has one of several classes in an order, and is trained as the number of its class, from 0."""

    name: ClassVar[str] = "ordinal"
    scores: ClassVar[tuple[str, ...]] = ("accuracy", "qwk")

    @property
    def value_width(self) -> int:
        """A value for each class."""
        return self.classes

    def values(self, logits: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """1 for the class of each number (..., n, 1), 0 for others; without `cuts` it is the nearest class.

        The class is how many of the cut points (classes - 1,) are not above the number.
        """
        cuts = np.arange(self.classes - 1) + 0.5 if cuts is None else cuts
        return np.eye(self.classes)[np.searchsorted(cuts, logits[..., 0], side="right")]

    def predicted(self, logs: np.ndarray) -> np.ndarray:
        """The nearest class (runs, n)."""
        return self.values(logs).argmax(axis=-1).astype(np.int32)

    def fit_cuts(self, logs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray:
        """The cut points (classes - 1,) between classes that maximise a metric of the numbers (n, 1).

        A search along one cut point after the other, from the middles between classes, until none gains: the score is
        constant between two numbers, so that it has no gradient. A cut point is tried at CUT_STEPS quantiles of the
        numbers between its neighbours; of equal scores the one that is nearest to the middle wins.
        """
        order = np.argsort(logs[:, 0], kind="stable")
        numbers, is_label = logs[order, 0], np.eye(self.classes)[labels[order]]
        below = np.vstack([np.zeros(self.classes), np.cumsum(is_label, axis=0)])  # rows of each label below a place
        middles = np.arange(self.classes - 1) + 0.5
        cuts, score_of = middles.copy(), CONFUSION_SCORES[metric]

        def score(cuts: np.ndarray) -> float:
            places = np.concatenate([[0], np.searchsorted(numbers, cuts), [len(numbers)]])
            return score_of(np.diff(below[places], axis=0).T)

        best = score(cuts)
        for _ in range(MOST_SWEEPS):
            before = best
            for place, middle in enumerate(middles):
                low, high = cuts[place - 1] if place else -np.inf, cuts[place + 1] if place + 1 < len(cuts) else np.inf
                between = numbers[(numbers > low) & (numbers <= high)]
                tried = np.quantile(between, np.linspace(0, 1, CUT_STEPS)) if len(between) else []
                for cut in sorted(tried, key=lambda cut: abs(cut - middle)):
                    candidate = cuts.copy()
                    candidate[place] = cut
                    if (value := score(candidate)) > best + 1e-9:
                        best, cuts = value, candidate
            if best == before:
                break
        return cuts

    def cell_labels(self, labels: np.ndarray) -> np.ndarray:
        """The classes (n,), also of the targets (n, 1) that networks are trained on."""
        return np.rint(labels).astype(np.int64).reshape(-1)

    def row_losses(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How many classes the predicted one is away."""
        return np.abs(self.predicted_labels(probabilities) - labels).astype(np.float64)
