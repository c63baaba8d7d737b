"""Ensemble selection with replacement (Caruana et al., ICML 2004), with bags and a running sum.

A row that every member predicts correctly stays correct in any sum of them, because the label leads in each. So the
accuracy of a sum is computed on the other, contested rows only. The result equals that of the plain loop.
"""

import numpy as np

from podium.metrics import METRICS, Metric, softmax
from podium.seeding import stream_seed
from podium.targets.base import CLASS, Target

STEPS = 25
BAGS = 8
# Share of the members that a bag may choose from; at least two.
BAG_SHARE = 0.6


def greedy_weights(
    values: np.ndarray, labels: np.ndarray, *, metric: str, seed: int, are_logs: bool = False, target: Target = CLASS
) -> np.ndarray:
    """Weights (members,) from how often each member is chosen; labels (n,).

    `values` (members, n, classes) are probabilities, or with `are_logs` log-probabilities, whose mean is geometric.
    The result of a bag is its best prefix. Members with the same score are ordered by log loss, then by a draw from
    the stream of `seed`.
    """
    members = len(values)
    if members == 1:
        return np.ones(1)
    candidates = _Candidates(values, labels, target.metrics[metric], are_logs)
    generator = np.random.default_rng(stream_seed(seed, "greedy"))
    size = max(2, round(members * BAG_SHARE))
    # The first bag contains all members.
    bags = [np.arange(members), *(np.sort(generator.permutation(members)[:size]) for _ in range(BAGS - 1))]
    counts = [_best_prefix(candidates, bag, generator.permutation(members)) for bag in bags]
    return np.mean([bag_counts / bag_counts.sum() for bag_counts in counts], axis=0)


def _best_prefix(candidates: "_Candidates", bag: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How often each member is in the best prefix; `order` (members,) decides between equal members."""
    counts = np.zeros(candidates.members)
    best_gain, best_loss, best_counts = -np.inf, np.inf, counts
    candidates.clear()
    for step in range(1, STEPS + 1):
        gains = candidates.gains(bag, step)
        top = bag[gains >= gains.max()]
        # Log losses are expensive; they are needed between equal members, and for a prefix that may be the best.
        losses = candidates.losses(top, step) if len(top) > 1 or gains.max() >= best_gain else np.zeros(1)
        closest = top[losses <= losses.min() + 1e-12]
        chosen = closest[order[closest].argmin()]
        candidates.add(chosen)
        counts = counts.copy()
        counts[chosen] += 1
        if (gains.max(), -losses.min()) > (best_gain, -best_loss):
            best_gain, best_loss, best_counts = gains.max(), losses.min(), counts
    return best_counts


class _Candidates:
    """Scores of a running sum of members with one more member added."""

    def __init__(self, values: np.ndarray, labels: np.ndarray, metric: Metric, are_logs: bool):
        self.members, self.labels, self.metric, self.are_logs = len(values), labels, metric, are_logs
        self.by_accuracy, self.rows = metric is METRICS["accuracy"], np.arange(len(labels))
        self.of_labels = np.ascontiguousarray(values[:, self.rows, labels])  # (members, n)
        contested = _contested(values, self.of_labels)
        self.uncontested = len(labels) - len(contested)
        # (members, classes, contested): how far a class is ahead of the label. Rows are last, as they are many.
        self.lead = np.empty((self.members, values.shape[2], len(contested)), values.dtype)
        for lead, member, of_labels in zip(self.lead, values, self.of_labels, strict=True):
            np.subtract(member[contested].T, of_labels[contested], out=lead)
        self.lead[:, labels[contested], np.arange(len(contested))] = -np.inf
        self.most, self.least = self.lead.max(axis=0), self.lead.min(axis=0)  # (classes, contested)
        # (members, classes, n): all values, if a metric needs them.
        needed = values if are_logs or not self.by_accuracy else values[:, :0]
        self.values = np.ascontiguousarray(needed.transpose(0, 2, 1))

    def clear(self) -> None:
        """Start a new sum."""
        self.label_sum, self.lead_sum = np.zeros_like(self.of_labels[0]), np.zeros_like(self.lead[0])
        self.sum = np.zeros_like(self.values[0])

    def add(self, member: int) -> None:
        """Add a member to the sum."""
        self.label_sum += self.of_labels[member]
        self.lead_sum += self.lead[member]
        self.sum += self.values[member]

    def gains(self, bag: np.ndarray, count: int) -> np.ndarray:
        """The metric, more is better, of the sum with each of the bag's members added, `count` members in all."""
        if self.by_accuracy:
            return self._correct_rows()[bag] / len(self.labels)
        if self.metric is METRICS["log_loss"]:
            return -self.losses(bag, count)
        means = ((self._mean(member, count).T) for member in bag)
        blends = (softmax(mean) if self.are_logs else mean for mean in means)
        gains = [self.metric.gain(self.metric(blend, self.labels)) for blend in blends]
        return np.nan_to_num(gains, nan=-np.inf)

    def _correct_rows(self) -> np.ndarray:
        """The number of correct rows with each member added, (members,); a tie is not correct."""
        correct_with_all = (self.lead_sum + self.most).max(axis=0) < 0
        correct_with_some = (self.lead_sum + self.least).max(axis=0) < 0
        open_rows = np.flatnonzero(correct_with_some & ~correct_with_all)
        added = self.lead.take(open_rows, axis=2)
        added += self.lead_sum[:, open_rows]
        return self.uncontested + np.count_nonzero(correct_with_all) + (added.max(axis=1) < 0).sum(axis=1)

    def losses(self, members: np.ndarray, count: int) -> np.ndarray:
        """Log loss of the sum with each of the members added."""
        if self.are_logs:
            return np.array([self._log_loss_of_logs(member, count) for member in members])
        probabilities = (self.label_sum + self.of_labels[members]) / count
        return -np.log(np.maximum(probabilities, np.finfo(np.float64).eps)).mean(axis=1, dtype=np.float64)

    def _log_loss_of_logs(self, member: int, count: int) -> float:
        mean = self._mean(member, count)
        mean -= mean[self.labels, self.rows]
        top = mean.max(axis=0)
        mean -= top
        return float((np.log(np.exp(mean, out=mean).sum(axis=0)) + top).mean(dtype=np.float64))

    def _mean(self, member: int, count: int) -> np.ndarray:
        mean = self.sum + self.values[member]  # (classes, n)
        mean /= count
        return mean


def _contested(values: np.ndarray, of_labels: np.ndarray) -> np.ndarray:
    """The rows that some member does not predict correctly: values (members, n, classes), of_labels (members, n)."""
    reached = np.zeros((values.shape[2], values.shape[1]), bool)  # a class that reaches the label's value
    for member, label_values in zip(values, of_labels, strict=True):
        for place in range(len(reached)):
            reached[place] |= member[:, place] >= label_values
    return np.flatnonzero(reached.sum(axis=0) > 1)  # the label itself is one
