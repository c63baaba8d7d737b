"""Ensemble selection with replacement (Caruana et al., ICML 2004), with bags.

A row that every member predicts correctly stays correct in any sum of them, because the label leads in each. So the
accuracy of a sum is computed on the other, contested rows only. The result equals that of the plain loop.
"""

import numpy as np

from podium.ensemble.pool import Pool, weighted_sum
from podium.metrics import softmax
from podium.seeding import stream_seed

STEPS = 25
BAGS = 8
# Share of the members that a bag may choose from; at least two.
BAG_SHARE = 0.6


def greedy_weights(pool: Pool, average: str) -> tuple[np.ndarray, None]:
    """Weights (members,) from how often each member of a pool is chosen.

    The result of a bag is its best prefix. Members with the same score are ordered by log loss, then by a draw from
    the stream of the seed.
    """
    members = len(pool.runs)
    if members == 1:
        return np.ones(1), None
    scores = _Scores(pool, average)
    generator = np.random.default_rng(stream_seed(pool.settings.seed, "greedy"))
    size = max(2, round(members * BAG_SHARE))
    # The first bag contains all members.
    bags = [np.arange(members), *(np.sort(generator.permutation(members)[:size]) for _ in range(BAGS - 1))]
    counts = [_best_prefix(scores, bag, generator.permutation(members)) for bag in bags]
    return np.mean([bag_counts / bag_counts.sum() for bag_counts in counts], axis=0), None


def _best_prefix(scores: "_Scores", bag: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How often each member is in the best prefix; `order` (members,) decides between equal members."""
    counts = np.zeros(len(order))
    best = (-np.inf, -np.inf, counts)
    for _ in range(STEPS):
        gains = scores.gains(counts, bag)
        top = bag[gains >= gains.max()]
        # Log losses are expensive; they are needed between equal members, and for a prefix that may be the best.
        losses = scores.losses(counts, top) if len(top) > 1 or gains.max() >= best[0] else np.zeros(1)
        closest = top[losses <= losses.min() + 1e-12]
        counts = counts.copy()
        counts[closest[order[closest].argmin()]] += 1
        if (gains.max(), -losses.min()) > best[:2]:
            best = (gains.max(), -losses.min(), counts)
    return best[2]


class _Scores:
    """Scores of the mean of members, of which each is in it `counts` (members,) times, with one more of them."""

    def __init__(self, pool: Pool, average: str):
        self.pool, self.labels, self.are_logs = pool, pool.labels, average == "logits"
        self.values = pool.logs if self.are_logs else np.exp(pool.logs)  # (members, n, classes)
        self.of_labels = self.values[:, np.arange(len(self.labels)), self.labels]  # (members, n)
        # (members, classes, n): how far a class is ahead of the label. Rows are last, as they are many.
        self.leads = np.ascontiguousarray((self.values - self.of_labels[:, :, None]).transpose(0, 2, 1))
        self.contested = np.flatnonzero((np.count_nonzero(self.leads >= 0, axis=1) > 1).any(axis=0))
        self.contested_leads = self.leads.take(self.contested, axis=2)
        self.contested_leads[:, self.labels[self.contested], np.arange(len(self.contested))] = -np.inf

    def gains(self, counts: np.ndarray, bag: np.ndarray) -> np.ndarray:
        """The metric, more is better, of the mean with each of the bag's members added; a tie is not correct."""
        if self.pool.metric == "log_loss":
            return -self.losses(counts, bag)
        if self.pool.metric == "accuracy":
            leads = weighted_sum(self.contested_leads, counts) + self.contested_leads[bag]
            wrong = np.count_nonzero(leads.max(axis=1) >= 0, axis=1)
            return (len(self.labels) - wrong) / len(self.labels)
        measure, total = self.pool.measure, weighted_sum(self.values, counts)
        means = ((total + self.values[member]) / (counts.sum() + 1) for member in bag)
        blends = (softmax(mean) if self.are_logs else mean for mean in means)
        return np.nan_to_num([measure.gain(measure(blend, self.labels)) for blend in blends], nan=-np.inf)

    def losses(self, counts: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Log loss of the mean with each of the members added."""
        if self.are_logs:
            total = weighted_sum(self.leads, counts)
            return np.array([_log_loss((total + self.leads[member]) / (counts.sum() + 1)) for member in members])
        total = weighted_sum(self.of_labels, counts)
        probabilities = (total + self.of_labels[members]) / (counts.sum() + 1)
        return -np.log(np.maximum(probabilities, np.finfo(np.float64).eps)).mean(axis=1)


def _log_loss(leads: np.ndarray) -> float:
    """Log loss of how far the logits of classes are ahead of the label's, (classes, n)."""
    top = leads.max(axis=0)
    return float((np.log(np.exp(leads - top).sum(axis=0)) + top).mean())
