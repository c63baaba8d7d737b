"""The target `multi-label`: any number of labels in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from podium.metrics import METRICS, Metric, column_metric, softmax
from podium.targets.base import BETWEEN_NAMES, Target


@dataclass(frozen=True)
class MultiLabel(Target):
    """`multi-label`: each row has any number of labels, 0 or 1 in each of several columns."""

    name: ClassVar[str] = "multi-label"
    label_form: ClassVar[tuple[int, str, str]] = (2, "iub", "0 and 1")
    sums_to_one: ClassVar[bool] = False

    @property
    def cells_per_row(self) -> int:
        """A cell for each column."""
        return self.classes

    @property
    def cell_values(self) -> int:
        """No and yes."""
        return 2

    def value_names(self, classes: Sequence[str]) -> Sequence[str]:
        """The same for all columns."""
        return ("0", "1")

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of cells: a mean of columns, which have the same share of log loss and accuracy anyway."""
        of_column = {"auc": METRICS["auc"], "macro_f1": METRICS["micro_f1"]}
        return METRICS | {name: column_metric(metric, self.classes) for name, metric in of_column.items()}

    def values(self, logits: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """Probabilities, shifted so that those of logits at a column's threshold in `cuts` are 1/2.

        `cuts` (columns,) or (1,) for all columns; the cells are those of whole rows.
        """
        shifts = np.zeros(1) if cuts is None else cuts
        return softmax(logits - np.resize(shifts, logits.shape[-2])[:, None] * np.array([0.0, 1.0]))

    def fit_cuts(self, logs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray | None:
        """The thresholds of logits that maximise F1: of each column for macro_f1, one for micro_f1."""
        columns = {"macro_f1": self.classes, "micro_f1": 1}.get(metric)
        if not columns:
            return None
        logits = logs[:, 1] - logs[:, 0]
        return np.array([_best_cut(logits[place::columns], labels[place::columns]) for place in range(columns)])

    def cells(self, logits: np.ndarray) -> np.ndarray:
        """Each logit is that of yes; the logit of no is 0, so that the softmax of both is the sigmoid."""
        *others, rows, columns = logits.shape
        return np.stack([np.zeros_like(logits), logits], axis=-1).reshape(*others, rows * columns, 2)

    def cell_labels(self, labels: np.ndarray) -> np.ndarray:
        """The columns of each row, one after the other."""
        return labels.astype(np.int64).ravel()

    def rows(self, values: np.ndarray) -> np.ndarray:
        """The probability of yes in each column."""
        *others, cells, _ = values.shape
        return values[..., 1].reshape(*others, cells // self.classes, self.classes)

    def logits_of(self, probabilities: np.ndarray) -> np.ndarray:
        """The log odds of yes."""
        return super().logits_of(probabilities) - super().logits_of(1 - probabilities)

    def prediction(self, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, str | float]:
        """The probability of yes in each column."""
        return dict(zip(classes, probabilities.tolist(), strict=True))

    def training_targets(self, labels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
        """0 and 1 as float32."""
        return labels.astype(np.float32)

    def row_losses(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The mean log loss of the columns."""
        pairs = np.stack([1 - probabilities, probabilities], axis=-1).reshape(-1, 2)
        return METRICS["log_loss"].rows(pairs, self.cell_labels(labels)).reshape(labels.shape).mean(axis=1)

    def read_names(self, texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """1 for each name in a row's text."""
        names = [set(text.split(BETWEEN_NAMES)) for text in texts]
        return np.array([[name in row for name in classes] for row in names], np.uint8).reshape(len(texts), -1)

    def lock_texts(self, labels: np.ndarray) -> list:
        """The columns as digits, such as 0110."""
        return ["".join(map(str, row)) for row in labels.tolist()]

    def read_lock_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Labels (n, columns) uint8."""
        labels = np.array([list(text) for text in texts], np.uint8).reshape(-1, self.classes)
        if (labels > 1).any():
            raise ValueError("a label is neither 0 nor 1")
        return labels

    def label_faults(self, labels: np.ndarray) -> list[str]:
        """Whether there is a column for each class, with 0 and 1."""
        if labels.shape[1] != self.classes:
            return [f"expected {self.classes} columns, found {labels.shape[1]}"]
        return ["expected 0 and 1, found others"] if ((labels != 0) & (labels != 1)).any() else []

    def label_text(self, label: np.ndarray, classes: Sequence[str]) -> str:
        """The names of the columns with 1."""
        return ", ".join(name for name, value in zip(classes, label, strict=True) if value) or "none"

    def predicted_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """1 where the probability of yes is above 1/2."""
        return (probabilities > 0.5).astype(np.uint8)

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """The mean over the columns."""
        return np.maximum(probabilities, 1 - probabilities).mean(axis=1)

    def strata(self, labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
        """Rows with the same labels are a stratum, rarer ones by their rarest label alone, the rest together.

        The rarest label first is the order of Sechidis et al. (ECML 2011), who assign labels to folds one by one.
        """
        frequency = np.where(labels, labels.sum(axis=0), len(labels) + 1)
        rarest = np.where(labels.any(axis=1), frequency.argmin(axis=1), self.classes)
        combinations = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        while True:
            strata = _with_rare_ones(combinations, rarest + combinations.max() + 1, least=least)
            strata = _with_rare_ones(strata, np.full(len(labels), -1), least=least)
            values, counts = np.unique(strata, return_counts=True)
            if values[0] == -1 and counts[0] < least:  # too few for a stratum of their own
                strata[strata == -1] = values[counts.argmax()]
            numbers = np.unique(strata, return_inverse=True)[1]
            if numbers.max(initial=0) < most or least > len(labels):
                return numbers
            least *= 2

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """The share of the rows with 1 in each column."""
        return labels.sum(axis=0) / max(len(labels), 1)

    def certainties(self, probabilities: np.ndarray) -> np.ndarray:
        """The distance from 1/2 of the least certain column."""
        return np.abs(probabilities - 0.5).min(axis=1)


def _best_cut(logits: np.ndarray, labels: np.ndarray) -> float:
    """The threshold, between two logits (n,), with the best F1 for labels (n,) 0 or 1; of equal ones the nearest to 0.

    It is 0 if no label is 1.
    """
    if not labels.any():
        return 0.0
    order = np.argsort(-logits, kind="stable")
    ordered = np.append(logits[order], logits.min() - 1)
    f1 = 2 * np.cumsum(labels[order]) / (np.arange(1, len(labels) + 1) + labels.sum())  # of yes for the first 1, 2, ...
    f1[ordered[:-1] == ordered[1:]] = 0
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    cuts = (ordered[best] + ordered[best + 1]) / 2
    return float(cuts[np.abs(cuts).argmin()])


def _with_rare_ones(strata: np.ndarray, others: np.ndarray, *, least: int) -> np.ndarray:
    """The stratum of each row (n,), or that in `others` if fewer than `least` rows have it."""
    counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[2][counts[1].reshape(-1)] < least, others, strata)
