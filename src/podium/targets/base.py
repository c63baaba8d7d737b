"""The target `class`, whose methods every kind of target has: what a label is, how logits become what is scored.

The ensemble works on cells: logits `(..., n, outputs)` of rows become logits `(..., cells, values)`. A row with one
class is one cell, whose values are the classes. A row with several labels is one cell for each of them, with the values
no and yes: everything that is fitted and scored on classes (temperatures, weights, intervals) then applies to them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from podium.metrics import METRICS, Metric, hits, log_softmax, softmax

# Between the names of a row's labels, in a listing of images; a name cannot contain it.
BETWEEN_NAMES = "\t"
# Of imported predictions: smaller probabilities have this one's logit.
MIN_PROBABILITY = 1e-12
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Target:
    """`class`: each row has one of several classes, a label is its index. The base of the other kinds."""

    classes: int = 0  # the number of classes, or of columns
    name: ClassVar[str] = "class"
    label_form: ClassVar[tuple[int, str, str]] = (1, "iu", "integers")  # dimensions of labels, kinds of dtype, words
    scores: ClassVar[tuple[str, ...]] = ("accuracy", "log_loss")  # of every run, whatever the competition's metric
    cells_per_row: ClassVar[int] = 1
    sums_to_one: ClassVar[bool] = True  # whether the probabilities of a row do
    has_probabilities: ClassVar[bool] = True  # so that temperatures can be fitted
    has_classes: ClassVar[bool] = True  # so that predictions are equal or not

    @property
    def described(self) -> dict[str, str]:
        """What the description of predictions has beside its other keys; nothing for `class`, as in older files."""
        return {} if self.name == "class" else {"target": self.name}

    @property
    def outputs(self) -> int:
        """How many logits a network has for a row."""
        return self.classes

    @property
    def cell_values(self) -> int:
        """How many values a cell has."""
        return self.outputs

    @property
    def value_width(self) -> int:
        """How many values are scored for a cell."""
        return self.cell_values

    def value_names(self, classes: Sequence[str]) -> Sequence[str]:
        """The names of a cell's values."""
        return classes

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Name -> metric of the values and labels of cells."""
        return METRICS

    def cells(self, logits: np.ndarray) -> np.ndarray:
        """Logits (..., cells, values) of logits (..., n, outputs)."""
        return logits

    def cell_labels(self, labels: np.ndarray) -> np.ndarray:
        """The label of each cell (cells,) int, of the labels of n rows."""
        return labels

    def rows(self, values: np.ndarray) -> np.ndarray:
        """What a submission is written from, (..., n, outputs), of the values (..., cells, values) of cells."""
        return values

    def log_values(self, logits: np.ndarray) -> np.ndarray:
        """What a blend weights, in the type of the cells' logits (..., cells, values): log-probabilities."""
        return log_softmax(logits)

    def values_of_logs(self, logs: np.ndarray) -> np.ndarray:
        """What is scored, of `log_values`: probabilities."""
        return np.exp(logs)

    def values(self, logits: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """What is scored, float64 (..., cells, value_width), of the cells' logits (..., cells, values): probabilities.

        `cuts` are what `fit_cuts` gives.
        """
        return softmax(logits)

    def fit_cuts(self, logs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray | None:
        """Cut points that maximise a metric of a blend's `log_values` (cells, values); None if it needs none."""
        return None

    def predicted(self, logs: np.ndarray) -> np.ndarray:
        """What is predicted for each cell, (runs, cells), of `log_values` or logits: the most probable class."""
        return logs.argmax(axis=-1).astype(np.int32)

    def errors(self, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The error of each of `predicted` (runs, cells), whose correlation shows how similar two runs are."""
        return predicted != labels

    def merits(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How good the prediction for each cell is, (cells,): of two predictions, the better one has more."""
        return hits(values, labels)

    def disagreement(self, predicted: np.ndarray, others: np.ndarray) -> np.ndarray:
        """How far a run's `predicted` (cells,) is from others (runs, cells), (runs,): the share of different cells."""
        return (predicted != others).sum(axis=1, dtype=np.int32) / len(predicted)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (..., n, outputs) of logits of the same shape."""
        return self.rows(self.values(self.cells(logits)))

    def columns(self, classes: Sequence[str], label_column: str) -> Sequence[str]:
        """The columns of a table of predictions that is imported."""
        return classes

    def read_values(self, values: np.ndarray) -> tuple[np.ndarray, str]:
        """Logits of an imported table (n, columns), and what it has: probabilities or logits; raises ValueError."""
        if values.min(initial=0) < 0 or values.max(initial=0) > 1:
            return values, "logits"
        if self.sums_to_one and np.abs(values.sum(axis=1) - 1).max(initial=0) > SUM_TOLERANCE:
            raise ValueError("values are between 0 and 1 but rows do not sum to 1: neither probabilities nor logits")
        return self.logits_of(values), "probabilities"

    def logits_of(self, probabilities: np.ndarray) -> np.ndarray:
        """Logits that have these probabilities (n, outputs)."""
        return np.log(np.maximum(probabilities, MIN_PROBABILITY))

    def scores_of(self, logits: np.ndarray, labels: np.ndarray, *metrics: str) -> dict[str, float]:
        """The `scores` of logits (n, outputs), and these metrics."""
        values, cell_labels = self.values(self.cells(logits)), self.cell_labels(labels)
        return {name: self.metrics[name](values, cell_labels) for name in dict.fromkeys((*self.scores, *metrics))}

    def accuracy(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """The share of correct cells of logits (n, outputs), to follow a training; NaN of numbers."""
        is_right = self.predicted(self.cells(logits)) == self.cell_labels(labels)
        return float(is_right.mean()) if self.has_classes else math.nan

    def prediction(self, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, str | float]:
        """Columns of a table for people, of an image's probabilities (outputs,): the class, and its probability."""
        return dict(zip(("label", "probability"), self.top(probabilities, classes)[0], strict=True))

    def scale(self, labels: np.ndarray) -> tuple[float, float]:
        """What is subtracted from labels of training rows, and what they are divided by: nothing."""
        return 0.0, 1.0

    def training_targets(self, labels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
        """What a network is trained on, in units of `scale`: class indices int64; other targets are float32."""
        return labels.astype(np.int64, copy=False)

    def row_losses(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How far each row's probabilities (n, outputs) are from its label, (n,): log loss in nats."""
        return METRICS["log_loss"].rows(probabilities, labels)

    def read_names(self, texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Labels of what a listing of images says about each row: its class."""
        index = {name: label for label, name in enumerate(classes)}
        return np.array([index[text] for text in texts], np.int64)

    def lock_texts(self, labels: np.ndarray) -> list:
        """What data.lock has as the label of each row: the index, or the number."""
        return labels.tolist()

    def read_lock_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Labels of `lock_texts`; raises ValueError."""
        return np.array(texts, np.int64)

    def label_faults(self, labels: np.ndarray) -> list[str]:
        """What is wrong with the values of labels in a predictions file."""
        outside = np.unique(labels[(labels < 0) | (labels >= self.classes)])
        return [f"expected 0 to {self.classes - 1}, found {', '.join(map(str, outside[:3]))}"] if len(outside) else []

    def label_text(self, label: np.ndarray, classes: Sequence[str]) -> str:
        """A row's label for people: the class name."""
        return classes[label]

    def predicted_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The label of each row with these probabilities (n, outputs): the most probable class."""
        return probabilities.argmax(axis=1)

    def top(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float | None]]:
        """What is predicted for a row with these probabilities (outputs,), with its probability if there is one."""
        return [(classes[k], float(probabilities[k])) for k in np.argsort(-probabilities, kind="stable")[:2]]

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability of the predicted label of each row (n, outputs), (n,)."""
        return probabilities.max(axis=1)

    def strata(self, labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
        """The stratum of each row (n,) int, of which every part of a split gets its share: the class.

        Kinds that choose their strata make at most `most`, of at least `least` rows if they can.
        """
        return labels

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """The share of the rows that have each class, (classes,)."""
        return np.bincount(labels, minlength=self.classes) / max(len(labels), 1)

    def certainties(self, probabilities: np.ndarray) -> np.ndarray:
        """How certain the prediction of each row (n, classes) is, (n,): the two largest probabilities' difference."""
        top_two = np.partition(probabilities, -2, axis=1)[:, -2:]
        return top_two[:, 1] - top_two[:, 0]


CLASS = Target()
