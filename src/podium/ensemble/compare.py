"""Intervals of scores, paired comparisons, and the correction for choosing a strategy.

All of them use one bootstrap over rows (over groups, if rows have groups): the score of each strategy's cross-fitted
predictions on the drawn rows, and on the rows that were not drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from podium.ensemble.strategies.table import STRATEGIES
from podium.metrics import METRICS, Z_95, Metric, wilson_interval
from podium.seeding import stream_seed

DRAWS, FEWER_DRAWS = 1000, 200
# Largest number of drawn rows in all: with very many rows, fewer draws are enough.
MOST_DRAWN = 20_000_000


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Gains (more is better) of each strategy: on all rows, and per draw on the rows inside and outside."""

    whole: np.ndarray  # (strategies,)
    inside: np.ndarray  # (draws, strategies)
    outside: np.ndarray | None  # (draws, strategies), if requested
    rows: int
    grouped: bool = False

    def standard_errors(self) -> np.ndarray:
        """Standard errors of the paired differences, (strategies, strategies)."""
        inside = self.inside - self.inside.mean(axis=0)
        covariance = inside.T @ inside / len(inside)
        variance = np.diag(covariance)
        return np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0))

    def difference(self, strategy: int, other: int) -> tuple[float, tuple[float, float]]:
        """How much more `strategy` gains than `other`, with its 95 % interval."""
        low, high = _middle_95(self.inside[:, strategy] - self.inside[:, other])
        return float(self.whole[strategy] - self.whole[other]), (float(low), float(high))


@dataclass(frozen=True)
class Estimate:
    """A score, the 95 % interval of the true score, and that of the score on a new test."""

    score: float
    interval: tuple[float, float]
    test_interval: tuple[float, float]
    corrected_for_choosing: float  # subtracted because the strategy was chosen on these rows


@dataclass(frozen=True)
class Comparison:
    """One blend compared with another, row by row."""

    against: str
    gain: float  # more is better
    interval: tuple[float, float]
    won: int  # rows that only the first predicts correctly
    lost: int
    p: float  # McNemar's exact test
    real: bool  # the interval does not contain 0


@dataclass(frozen=True, eq=False)
class Draws:
    """Repeated draws of rows with replacement; of whole groups, if rows have groups."""

    unit: np.ndarray  # (n,): the unit, a row or a group, of each row
    counts: np.ndarray  # (draws, units) float32: how often each unit is drawn


def draw_rows(rows: int, groups: np.ndarray | None, seed: int) -> Draws:
    """Draws for n rows; groups (n,) or None."""
    unit = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(unit.max()) + 1
    draws = max(50, min(DRAWS, MOST_DRAWN // count))
    generator = np.random.default_rng(stream_seed(seed, "bootstrap"))
    drawn = generator.integers(count, size=(draws, count), dtype=np.uint16 if count <= 65536 else np.int64)
    counts = np.empty((draws, count), np.float32)
    for place, units in enumerate(drawn):
        counts[place] = np.bincount(units, minlength=count)
    return Draws(unit, counts)


def bootstrap(
    probabilities: np.ndarray, labels: np.ndarray, *, metric: str, draws: Draws, outside: bool = True
) -> Bootstrap:
    """Score all draws of probabilities (strategies, repeats, n, classes); with `outside` also the rows not drawn."""
    is_mean = METRICS[metric].rows is not None
    whole, score = (_row_means if is_mean else _whole_draws)(probabilities, labels, METRICS[metric], draws.unit)
    inside, not_drawn = np.nan_to_num(score(draws.counts)), None
    if outside:
        not_drawn = score((draws.counts == 0).astype(np.float32))
        not_drawn = np.where(np.isnan(not_drawn), inside, not_drawn)
    return Bootstrap(whole, inside, not_drawn, rows=len(labels), grouped=draws.counts.shape[1] < len(labels))


# The gains on all rows (strategies,), and a function: counts (draws, units) -> gains (draws, strategies), NaN if a draw
# has no rows or no score.
Gains = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def _row_means(probabilities: np.ndarray, labels: np.ndarray, metric: Metric, unit: np.ndarray) -> Gains:
    """Gains of a metric that is a mean over rows, by matrix products."""
    gains = [[metric.gain(1) * metric.rows(repeat, labels) for repeat in repeats] for repeats in probabilities]
    gains = np.stack(gains).mean(axis=1)  # (strategies, n)
    totals = np.stack([np.bincount(unit, weights=row) for row in gains], axis=1).astype(np.float32)
    sizes = np.bincount(unit)[:, None].astype(np.float32)

    def score(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (counts @ totals) / (counts @ sizes)

    return gains.mean(axis=1), score


def _whole_draws(probabilities: np.ndarray, labels: np.ndarray, metric: Metric, unit: np.ndarray) -> Gains:
    """Gains of any other metric: one evaluation per draw, on the first repeat."""

    def score(counts: np.ndarray) -> np.ndarray:
        gains = np.full((min(len(counts), FEWER_DRAWS), len(probabilities)), np.nan)
        for place, drawn in enumerate(counts[:FEWER_DRAWS]):
            rows = np.repeat(np.arange(len(labels)), drawn[unit].astype(int))
            if len(rows):
                gains[place] = [metric.gain(metric(repeats[0, rows], labels[rows])) for repeats in probabilities]
        return gains

    return np.array([np.mean([metric.gain(metric(r, labels)) for r in repeats]) for repeats in probabilities]), score


def choose(means: np.ndarray, errors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The strategy that `auto` chooses, by gains (..., strategies) and paired standard errors: indices (...).

    It is the simplest strategy within one standard error of the best one. If that does not beat the best single run
    by more than 1.96 standard errors, it is the best single run.
    """
    top = means.argmax(axis=-1)
    choice = top.copy()
    for place in reversed([names.index(name) for name in STRATEGIES if name in names]):
        gap = np.take_along_axis(means, top[..., None], -1)[..., 0] - means[..., place]
        choice = np.where(gap <= errors[top, place], place, choice)
    single = names.index("best")
    lead = np.take_along_axis(means, choice[..., None], -1)[..., 0] - means[..., single]
    return np.where(lead > Z_95 * errors[choice, single], choice, single)


def estimate(
    resampled: Bootstrap, place: int, *, metric: str, tests: int, chosen_among: Sequence[str] | None = None
) -> Estimate:
    """The cross-fitted score of strategy number `place`, corrected if it was chosen on these rows by its score.

    The correction is the bootstrap bias-corrected cross-validation of Tsamardinos et al. (Machine Learning 107, 2018):
    choose among the strategies on the drawn rows, score on the others. Intervals of an accuracy are Wilson's.
    """
    measure, optimism = METRICS[metric], 0.0
    if chosen_among is not None:
        choices = choose(resampled.inside, resampled.standard_errors(), chosen_among)
        outside = np.take_along_axis(resampled.outside, choices[:, None], axis=1).mean()
        optimism = float(resampled.whole[place] - outside)
    gain = float(resampled.whole[place]) - optimism
    inside = resampled.inside[:, place]
    low, high = _middle_95(inside - inside.mean()) + gain
    wider = math.sqrt(1 + resampled.rows / tests)
    ends = [(low, high), (gain - (gain - low) * wider, gain + (high - gain) * wider)]
    if metric == "accuracy":
        gain, rows = min(max(gain, 0.0), 1.0), float(resampled.rows)
        if resampled.grouped:  # rows of a group are alike, so that they count as fewer rows (the design effect)
            ungrouped_variance = max(gain * (1 - gain), 1 / rows) / rows
            rows /= max(float(inside.var()) / ungrouped_variance, 1.0)
        both = 1 / (1 / rows + 1 / tests)
        ends = [wilson_interval(gain * rows, rows), wilson_interval(gain * both, both)]
    scores = np.clip(np.sort([[measure.gain(end) for end in pair] for pair in ends]), measure.least, measure.most)
    interval, test_interval = ((float(low), float(high)) for low, high in scores)
    return Estimate(measure.gain(gain), interval, test_interval, optimism)


def compare(resampled: Bootstrap, correct: np.ndarray, strategy: int, other: int, *, against: str) -> Comparison:
    """Compare two strategies; correct (strategies, n) bool of one repeat."""
    gain, interval = resampled.difference(strategy, other)
    won = int((correct[strategy] & ~correct[other]).sum())
    lost = int((correct[other] & ~correct[strategy]).sum())
    real = not interval[0] <= 0 <= interval[1]
    return Comparison(against, gain, interval, won, lost, mcnemar(won, lost), real)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p value of `won` against `lost` rows (McNemar, 1947).

    `scipy.stats.binomtest` gives the same, but its import takes longer than the whole command.
    """
    count = won + lost
    log_coefficients = [
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(min(won, lost) + 1)
    ]
    return min(1.0, 2 * sum(math.exp(value - count * math.log(2)) for value in log_coefficients))


def _middle_95(values: np.ndarray) -> np.ndarray:
    """The 2.5th and the 97.5th percentile; `np.percentile` first imports masked arrays, which takes 20 ms."""
    return np.interp([0.025, 0.975], np.linspace(0, 1, len(values)), np.sort(values))
