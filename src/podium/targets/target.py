"""The four kinds of target, and for each of them: what a label is, how logits become what is scored.

    class        one of several classes; a label is its index
    multi-label  any number of labels: 0 or 1 in each of several columns
    ordinal      one of several classes in their order; a network is trained on the number of the class, from 0
    number       a number

The ensemble works on cells: logits `(..., n, outputs)` of rows become logits `(..., cells, values)`. A row is one cell,
whose values are the classes, or its number. A row with several labels is one cell for each column, with the values no
and yes: everything that is fitted and scored on classes (temperatures, weights, intervals) then applies to them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from podium.metrics import METRICS, Metric, column_metric, hits, softmax
from podium.targets.cut_points import best_f1_cut, best_order_cuts
from podium.targets.strata import label_strata, number_strata

# Name -> the scores of every run, whatever the competition's metric.
TARGETS = {
    "class": ("accuracy", "log_loss"),
    "multi-label": ("accuracy", "log_loss"),
    "ordinal": ("accuracy", "qwk"),
    "number": ("rmse", "mae"),
}
# Between the names of a row's labels, in a listing of images; a name cannot contain it.
BETWEEN_NAMES = "\t"
# Squares of larger numbers overflow in float32.
LARGEST_NUMBER = 1e18


@dataclass(frozen=True)
class Target:
    """A kind of target with a number of `classes`, or of columns; 1 for a number."""

    name: str = "class"
    classes: int = 0

    @property
    def has_columns(self) -> bool:
        """Whether a label has a column for each class."""
        return self.name == "multi-label"

    @property
    def has_probabilities(self) -> bool:
        """Whether logits give probabilities, to which temperatures can be fitted; else a logit is a number."""
        return self.name in ("class", "multi-label")

    @property
    def has_classes(self) -> bool:
        """Whether two predictions are either equal or not; numbers are more or less different."""
        return self.name != "number"

    @property
    def scores(self) -> tuple[str, str]:
        """The names of two scores that every run has."""
        return TARGETS[self.name]

    @property
    def outputs(self) -> int:
        """How many logits a network has for a row."""
        return self.classes if self.has_probabilities else 1

    @property
    def cells_per_row(self) -> int:
        """How many cells a row has."""
        return self.classes if self.has_columns else 1

    @property
    def value_width(self) -> int:
        """How many values are scored for a cell."""
        return 2 if self.has_columns else self.classes

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Name -> metric of the values and labels of cells; a mean of columns, if these are scored one by one."""
        of_column = {"auc": METRICS["auc"], "macro_f1": METRICS["micro_f1"]} if self.has_columns else {}
        return METRICS | {name: column_metric(metric, self.classes) for name, metric in of_column.items()}

    # From logits to what is scored.
    def cells(self, logits: np.ndarray) -> np.ndarray:
        """Logits (..., cells, values) of logits (..., n, outputs).

        Of columns, each logit is that of yes; the logit of no is 0, so that the softmax of both is the sigmoid.
        """
        if not self.has_columns:
            return logits
        *others, rows, columns = logits.shape
        return np.stack([np.zeros_like(logits), logits], axis=-1).reshape(*others, rows * columns, 2)

    def cell_labels(self, labels: np.ndarray) -> np.ndarray:
        """The label of each cell, (cells,) int64 or numbers, of the labels of n rows or their `training_targets`."""
        return np.rint(labels).astype(np.int64).ravel() if self.has_classes else labels.astype(np.float64).ravel()

    def rows(self, values: np.ndarray) -> np.ndarray:
        """What a submission is written from, (..., n, outputs), of the values (..., cells, values) of cells."""
        return values[..., 1].reshape(*values.shape[:-2], -1, self.classes) if self.has_columns else values

    def values(self, logits: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        """What is scored, float64 (..., cells, value_width), of the cells' logits (..., cells, values).

        These are probabilities, numbers, or of an ordinal target 1 for the class of the number, 0 for others. `cuts`
        are what `fit_cuts` gives: the class is how many of the cut points are not above the number, without them the
        nearest. Probabilities of columns are shifted so that those of logits at the column's threshold are 1/2.
        """
        if self.name == "ordinal":
            cuts = np.arange(self.classes - 1) + 0.5 if cuts is None else cuts
            return np.eye(self.classes)[np.searchsorted(cuts, logits[..., 0], side="right")]
        if cuts is not None:
            logits = logits - np.resize(cuts, logits.shape[-2])[:, None] * np.array([0.0, 1.0])
        return softmax(logits) if self.has_probabilities else logits.astype(np.float64)

    def fit_cuts(self, logs: np.ndarray, labels: np.ndarray, metric: str) -> np.ndarray | None:
        """Cut points that maximise a metric of log-probabilities or numbers (cells, values); None if it needs none.

        They are between classes, (classes - 1,), or F1's thresholds of logits, (columns,) or (1,) for all columns.
        """
        if self.name == "ordinal":
            return best_order_cuts(logs[:, 0], labels, self.classes, metric)
        columns = {"macro_f1": self.classes, "micro_f1": 1}.get(metric) if self.has_columns else None
        if not columns:
            return None
        logits = logs[:, 1] - logs[:, 0]
        return np.array([best_f1_cut(logits[place::columns], labels[place::columns]) for place in range(columns)])

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """What a submission is written from, (..., n, outputs), of logits of the same shape."""
        return self.rows(self.values(self.cells(logits)))

    def scores_of(self, logits: np.ndarray, labels: np.ndarray, *metrics: str) -> dict[str, float]:
        """The `scores` of logits (n, outputs), and these metrics."""
        values, cell_labels = self.values(self.cells(logits)), self.cell_labels(labels)
        return {name: self.metrics[name](values, cell_labels) for name in dict.fromkeys((*self.scores, *metrics))}

    def score_of_submitted(self, values: np.ndarray, labels: np.ndarray, metric: str) -> float:
        """A metric of what a submission has for rows: probabilities, numbers, or 1 for a label, (n, outputs)."""
        cells = np.stack([1 - values, values], axis=-1).reshape(-1, 2) if self.has_columns else values
        if self.has_classes:  # rescaled as Kaggle does
            cells = cells / cells.sum(axis=1, keepdims=True)
        return self.metrics[metric](cells, self.cell_labels(labels))

    # Predictions of cells.
    def predicted(self, logs: np.ndarray) -> np.ndarray:
        """The most probable class of each cell, or its number, (runs, cells), of logits (runs, cells, values)."""
        if not self.has_classes:
            return logs[..., 0]
        return (logs if self.has_probabilities else self.values(logs)).argmax(axis=-1).astype(np.int32)

    def errors(self, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The error of each of `predicted` (runs, cells), whose correlation shows how similar two runs are."""
        return predicted != labels if self.has_probabilities else predicted - labels

    def merits(self, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How good the prediction for each cell is, (cells,): of two predictions, the better one has more."""
        return hits(values, labels) if self.has_probabilities else -self.row_losses(values, labels)

    def disagreement(self, predicted: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The share of cells that a run predicts (cells,) unlike other runs (runs, cells), or the distance: (runs,)."""
        if not self.has_classes:
            return np.abs(predicted - others).mean(axis=1)
        return (predicted != others).sum(axis=1, dtype=np.int32) / len(predicted)

    # Predictions of rows.
    def predicted_labels(self, probabilities: np.ndarray) -> np.ndarray:
        """The label of each row (n, outputs): the most probable class, 1 for columns above 1/2, or the number."""
        if self.has_columns:
            return (probabilities > 0.5).astype(np.uint8)
        return probabilities.argmax(axis=-1) if self.has_classes else probabilities[..., 0]

    def row_losses(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """How far each row's probabilities (n, outputs) are from its label, (n,): log loss in nats, or the distance."""
        if not self.has_probabilities:
            return np.abs(self.predicted_labels(probabilities) - labels).astype(np.float64)
        if self.has_columns:
            probabilities = np.stack([1 - probabilities, probabilities], axis=-1).reshape(-1, 2)
        return METRICS["log_loss"].rows(probabilities, self.cell_labels(labels)).reshape(len(labels), -1).mean(axis=1)

    def confidences(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability of each row's predicted label, (n,), of (n, outputs); the mean of columns; NaN of numbers."""
        if self.has_columns:
            return np.maximum(probabilities, 1 - probabilities).mean(axis=1)
        return probabilities.max(axis=1) if self.has_probabilities else np.full(len(probabilities), np.nan)

    def top(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float | None]]:
        """What is predicted for a row (outputs,): the two most probable classes with probabilities, or the label."""
        if not self.has_probabilities:
            return [(self.label_text(self.predicted_labels(probabilities), classes), None)]
        return [(classes[k], float(probabilities[k])) for k in np.argsort(-probabilities, kind="stable")[:2]]

    def prediction(self, probabilities: np.ndarray, classes: Sequence[str]) -> dict[str, str | float]:
        """Columns of a table for people, of an image's probabilities (outputs,): the class and its probability.

        Of columns, the probability of each; of numbers, the number or its nearest class, without the ensemble's cuts.
        """
        if self.has_columns:
            return dict(zip(classes, probabilities.tolist(), strict=True))
        label, probability = self.top(probabilities, classes)[0]
        known = {} if probability is None else {"probability": probability}
        return {"label" if self.has_classes else classes[0]: label, **known}

    # Labels.
    def label_text(self, label: np.ndarray, classes: Sequence[str]) -> str:
        """A row's label for people: the class name, the names of the columns with 1, or six digits of the number."""
        if self.has_columns:
            return ", ".join(name for name, value in zip(classes, label, strict=True) if value) or "none"
        return classes[label] if self.has_classes else f"{label:.6g}"

    def read_names(self, texts: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Labels of what a listing of images says about each row: its class, the names of its labels, or its number."""
        if self.has_columns:
            names = [set(text.split(BETWEEN_NAMES)) for text in texts]
            return np.array([[name in row for name in classes] for row in names], np.uint8).reshape(len(texts), -1)
        index = {name: label for label, name in enumerate(classes)}
        return np.array([index[text] for text in texts], np.int64) if self.has_classes else np.array(texts, np.float64)

    def lock_texts(self, labels: np.ndarray) -> list:
        """What data.lock has as the label of each row: the index, the columns as digits such as 0110, or the number."""
        return ["".join(map(str, row)) for row in labels.tolist()] if self.has_columns else labels.tolist()

    def read_lock_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Labels of `lock_texts`: int64, uint8 of columns, float64 of numbers; raises ValueError."""
        if not self.has_columns:
            return np.array(texts, np.int64 if self.has_classes else np.float64)
        labels = np.array([list(text) for text in texts], np.uint8).reshape(-1, self.classes)
        if (labels > 1).any():
            raise ValueError("a label is neither 0 nor 1")
        return labels

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """The share of the rows that have each class, (classes,); 1 for numbers, as all rows count as one class."""
        if self.has_columns:
            return labels.sum(axis=0) / max(len(labels), 1)
        return np.bincount(labels, minlength=self.classes) / max(len(labels), 1) if self.has_classes else np.ones(1)

    def prior(self, labels: np.ndarray) -> np.ndarray:
        """The probabilities (outputs,) of a row of which nothing is known: the classes' shares, or the mean number."""
        return self.shares(labels) if self.has_classes else np.array([labels.mean()])

    def strata(self, labels: np.ndarray, *, least: int, most: int) -> np.ndarray:
        """The stratum of each row (n,) int, of which every part of a split gets its share: the class.

        Of columns and numbers, at most `most` strata are made, of at least `least` rows if they can be.
        """
        if self.has_columns:
            return label_strata(labels, least=least, most=most)
        return labels if self.has_classes else number_strata(labels, least=least, most=most)

    # Training.
    def scale(self, labels: np.ndarray) -> tuple[float, float]:
        """What is subtracted from labels of training rows, and what they are divided by.

        Networks are made for targets of mean 0 and standard deviation 1; (0, 1) where these are no numbers.
        """
        return (0.0, 1.0) if self.has_probabilities else (float(labels.mean()), float(labels.std()) or 1.0)

    def training_targets(self, labels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
        """What a network is trained on: classes int64, columns float32, numbers (n, 1) float32 in units of `scale`."""
        if not self.has_probabilities:
            return ((labels - scale[0]) / scale[1]).astype(np.float32)[:, None]
        return labels.astype(np.float32 if self.has_columns else np.int64, copy=False)


CLASS = Target()
