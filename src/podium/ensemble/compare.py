"""Intervals of scores, paired comparisons, and the correction for choosing a strategy.

All of them use one bootstrap over rows (over groups, if rows have groups): the score of each strategy's cross-fitted
predictions on the drawn rows, and on the rows that were not drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from podium.metrics import METRICS, Z_95, Metric, wilson_interval
from podium.seeding import stream_seed
from podium.targets.base import CLASS, Target

DRAWS = 1000
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

    def p(self, strategy: int, other: int) -> float:
        """Two-sided p value of the difference, by its normal approximation."""
        gain = self.whole[strategy] - self.whole[other]
        error = float((self.inside[:, strategy] - self.inside[:, other]).std())
        return math.erfc(abs(gain) / error / math.sqrt(2)) if error else float(gain == 0)


@dataclass(frozen=True)
class Estimate:
    """A score, the 95 % interval of the true score, and that of the score on a new test."""

    score: float
    interval: tuple[float, float]
    test_interval: tuple[float, float] | None  # None: there are no test images
    corrected_for_choosing: float  # subtracted because the strategy was chosen on these rows


@dataclass(frozen=True)
class Comparison:
    """One blend compared with another, row by row."""

    against: str
    gain: float  # more is better
    interval: tuple[float, float]
    won: int  # rows that only the first predicts correctly; or groups of which it predicts more rows correctly
    lost: int
    counted: str  # rows or groups
    p: float  # McNemar's exact test of these rows or groups
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
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    metric: str,
    draws: Draws,
    outside: bool = True,
    target: Target = CLASS,
) -> Bootstrap:
    """Score all draws of probabilities (strategies, repeats, n, classes); with `outside` also the rows not drawn."""
    measure = target.metrics[metric]
    whole, score = (_row_means if measure.rows else _whole_draws)(probabilities, labels, measure, draws.unit)
    inside, not_drawn = score(draws.counts), None
    inside = np.where(np.isnan(inside), whole, inside)
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
    totals = np.stack([np.bincount(unit, weights=row) for row in [*gains, np.ones(len(labels))]], axis=1)

    def score(counts: np.ndarray) -> np.ndarray:
        sums = counts @ totals  # the last column is the number of rows
        with np.errstate(invalid="ignore"):
            return sums[:, :-1] / sums[:, -1:]

    return gains.mean(axis=1), score


def _whole_draws(probabilities: np.ndarray, labels: np.ndarray, metric: Metric, unit: np.ndarray) -> Gains:
    """Gains of any other metric: one evaluation per draw, on the first repeat."""
    scores = [metric.of_counts(repeats[0], labels) for repeats in probabilities]

    def score(counts: np.ndarray) -> np.ndarray:
        gains = np.full((len(counts), len(probabilities)), np.nan)
        for place, drawn in enumerate(counts):
            if drawn.any():
                row_counts = drawn[unit].astype(np.float64)
                gains[place] = [metric.gain(score(row_counts)) for score in scores]
        return gains

    return np.array([np.mean([metric.gain(metric(r, labels)) for r in repeats]) for repeats in probabilities]), score


def choose(means: np.ndarray, errors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The strategy that `auto` chooses, by gains (..., strategies) and paired standard errors: indices (...).

    It is log-loss, unless another strategy is ahead of it by more than one standard error, the best run by 1.96: then
    the one that is furthest ahead.
    """
    null = names.index("log-loss")
    enough = np.where(np.array(names) == "best", Z_95, 1.0) * errors[:, null] + 1e-12
    leads = means - means[..., [null]]
    leads = np.where(leads > enough, leads, -np.inf)
    leads[..., null] = 0
    return leads.argmax(axis=-1)


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
    wider = math.sqrt(1 + resampled.rows / max(tests, 1))
    ends = [(low, high), (gain - (gain - low) * wider, gain + (high - gain) * wider)]
    if metric == "accuracy":
        gain, rows = min(max(gain, 0.0), 1.0), float(resampled.rows)
        if resampled.grouped:  # rows of a group are alike, so that they count as fewer rows (the design effect)
            ungrouped_variance = max(gain * (1 - gain), 1 / rows) / rows
            rows /= max(float(inside.var()) / ungrouped_variance, 1.0)
        both = 1 / (1 / rows + 1 / max(tests, 1))
        ends = [wilson_interval(gain * rows, rows), wilson_interval(gain * both, both)]
    scores = np.clip(np.sort([[measure.gain(end) for end in pair] for pair in ends]), measure.least, measure.most)
    interval, test_interval = ((float(low), float(high)) for low, high in scores)
    return Estimate(measure.gain(gain), interval, test_interval if tests else None, optimism)


def compare(
    resampled: Bootstrap,
    correct: np.ndarray,
    strategy: int,
    other: int,
    *,
    unit: np.ndarray,
    against: str,
    counted: str = "rows",
) -> Comparison:
    """Compare two strategies; correct (strategies, n), of which more is better; unit (n,): each row's row or group.

    Rows of a group are alike, so that McNemar's test counts groups.
    """
    gain, interval = resampled.difference(strategy, other)
    more_correct = np.bincount(unit, weights=correct[strategy].astype(float) - correct[other])
    won, lost = int((more_correct > 0).sum()), int((more_correct < 0).sum())
    return Comparison(
        against=against,
        gain=gain,
        interval=interval,
        won=won,
        lost=lost,
        counted=counted,
        p=mcnemar(won, lost),
        real=not interval[0] <= 0 <= interval[1],
    )


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which of several differences are real, so that any of them is noise in 5 % of all cases (Holm, 1979)."""
    order, real = sorted(range(len(p_values)), key=lambda place: p_values[place]), [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > 0.05 / (len(order) - rank):
            break
        real[place] = True
    return real


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p value of `won` against `lost` rows or groups (McNemar, 1947).

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
