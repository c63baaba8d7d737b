"""Ensemble selection with replacement (Caruana et al., ICML 2004), bagged, with a running sum.

Adding a run to a sum of probabilities cannot lower the margin of the label by more than the run's own margin
is below zero: margins add at least. A row that every run gets right stays right whatever is chosen, so that only
the few contested rows are looked at. The result is the plain loop's.
"""

import numpy as np

from podium.metrics import METRICS, softmax
from podium.seeding import stream_seed

STEPS = 25
BAGS = 8
# Of the runs, how many a bag may choose from; two at least.
BAG_SHARE = 0.6


def greedy_weights(
    averaged: np.ndarray, labels: np.ndarray, *, metric: str, seed: int, are_logs: bool = False
) -> np.ndarray:
    """Weights (members,) from how often each member is chosen: what is averaged (members, n, classes), labels (n,).

    Probabilities, or with `are_logs` log-probabilities, whose mean is the geometric one. In each bag the best
    prefix counts. Members that are equally good are told apart by log loss, then by a draw from the stream of
    `seed`.
    """
    members = len(averaged)
    if members == 1:
        return np.ones(1)
    judge = _Judge(averaged, labels, metric, are_logs)
    draw = np.random.default_rng(stream_seed(seed, "greedy"))
    size = max(2, round(members * BAG_SHARE))
    # The first bag has everyone.
    bags = [np.arange(members), *(np.sort(draw.permutation(members)[:size]) for _ in range(BAGS - 1))]
    counts = [_chosen(judge, bag, draw.permutation(members)) for bag in bags]
    return np.mean([one / one.sum() for one in counts], axis=0)


def _chosen(judge: "_Judge", bag: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How often each member is in the best prefix; `order` (members,) settles what nothing else does."""
    counts = np.zeros(judge.members)
    best, best_loss, best_counts = -np.inf, np.inf, counts
    judge.empty()
    for step in range(1, STEPS + 1):
        gains = judge.gains(bag, step)
        top = bag[gains >= gains.max()]
        losses = judge.losses(top, step) if len(top) > 1 or gains.max() >= best else np.zeros(1)  # they cost most
        closest = top[losses <= losses.min() + 1e-12]
        taken = closest[order[closest].argmin()]
        judge.add(taken)
        counts = counts.copy()
        counts[taken] += 1
        if (gains.max(), -losses.min()) > (best, -best_loss):
            best, best_loss, best_counts = gains.max(), losses.min(), counts
    return best_counts


class _Judge:
    """What the metric says of a running sum of members with one more added."""

    def __init__(self, averaged: np.ndarray, labels: np.ndarray, metric: str, are_logs: bool):
        self.members, self.labels, self.metric, self.are_logs = len(averaged), labels, METRICS[metric], are_logs
        self.by_hits, self.rows = metric == "accuracy", np.arange(len(labels))
        self.right = np.ascontiguousarray(averaged[:, self.rows, labels])  # (members, n)
        contested = _contested(averaged, self.right)
        self.sure = len(labels) - len(contested)
        # Above 0 where another class is ahead of the label. Rows are last: there are many of them and few classes.
        self.lead = np.empty((self.members, averaged.shape[2], len(contested)), averaged.dtype)
        for lead, one, right in zip(self.lead, averaged, self.right, strict=True):
            np.subtract(one[contested].T, right[contested], out=lead)
        self.lead[:, labels[contested], np.arange(len(contested))] = -np.inf
        self.most, self.least = self.lead.max(axis=0), self.lead.min(axis=0)  # (classes, contested)
        # Of every row, what not all metrics need: (members, classes, n).
        needed = averaged if are_logs or not self.by_hits else averaged[:, :0]
        self.whole = np.ascontiguousarray(needed.transpose(0, 2, 1))

    def empty(self) -> None:
        """Start a new sum."""
        self.right_sum, self.lead_sum, self.sum = (np.zeros_like(of[0]) for of in (self.right, self.lead, self.whole))

    def add(self, member: int) -> None:
        """Add a member to the sum."""
        self.right_sum += self.right[member]
        self.lead_sum += self.lead[member]
        self.sum += self.whole[member]

    def gains(self, bag: np.ndarray, count: int) -> np.ndarray:
        """The metric, more is better, of the sum with each of the bag's members added: `count` of them."""
        if self.by_hits:
            return self._hits()[bag] / len(self.labels)
        if self.metric is METRICS["log_loss"]:
            return -self.losses(bag, count)
        return np.array([self.metric.gain(self.metric(self._blend(one, count), self.labels)) for one in bag])

    def _hits(self) -> np.ndarray:
        """Rows that are right with each member added, (members,); a tie is not right."""
        right_with_all = (self.lead_sum + self.most).max(axis=0) < 0
        right_with_some = (self.lead_sum + self.least).max(axis=0) < 0
        # What no member can turn is not looked at.
        open_rows = np.flatnonzero(right_with_some & ~right_with_all)
        added = self.lead.take(open_rows, axis=2)
        added += self.lead_sum[:, open_rows]
        return self.sure + np.count_nonzero(right_with_all) + (added.max(axis=1) < 0).sum(axis=1)

    def losses(self, some: np.ndarray, count: int) -> np.ndarray:
        """Log loss of the sum with each of some members added."""
        if self.are_logs:
            return np.array([self._log_loss_of_logs(one, count) for one in some])
        shares = (self.right_sum + self.right[some]) / count
        return -np.log(np.maximum(shares, np.finfo(np.float64).eps)).mean(axis=1, dtype=np.float64)

    def _log_loss_of_logs(self, member: int, count: int) -> float:
        mean = self._mean(member, count)
        mean -= mean[self.labels, self.rows]
        top = mean.max(axis=0)
        mean -= top
        return float((np.log(np.exp(mean, out=mean).sum(axis=0)) + top).mean(dtype=np.float64))

    def _mean(self, member: int, count: int) -> np.ndarray:
        mean = self.sum + self.whole[member]  # (classes, n)
        mean /= count
        return mean

    def _blend(self, member: int, count: int) -> np.ndarray:
        mean = self._mean(member, count).T
        return softmax(mean) if self.are_logs else mean


def _contested(averaged: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rows that some member has not right: averaged (members, n, classes), right (members, n)."""
    reached = np.zeros((averaged.shape[2], averaged.shape[1]), bool)
    for one, own in zip(averaged, right, strict=True):
        for place in range(len(reached)):
            reached[place] |= one[:, place] >= own
    return np.flatnonzero(reached.sum(axis=0) > 1)  # the label itself reaches
