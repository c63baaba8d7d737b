"""Intervals of scores, paired comparisons, and the correction for choosing a strategy.

All of them use one bootstrap over rows (over groups, if rows have groups): the score of each strategy's cross-fitted
predictions on the drawn rows, and on the rows that were not drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from podium.ensemble.cross_fit import Candidate
from podium.ensemble.pool import Pool
from podium.metrics import Z_95, wilson_interval

PARTS = 20  # in which the draws are multiplied


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Gains (more is better) of each strategy: on all rows, and per draw on the rows inside and outside."""

    whole: np.ndarray  # (strategies,)
    inside: np.ndarray  # (draws, strategies)
    outside: np.ndarray | None  # (draws, strategies), if requested
    pool: Pool

    def standard_errors(self, other: int) -> np.ndarray:
        """Standard errors of the paired differences of all strategies from `other`, (strategies,)."""
        return (self.inside - self.inside[:, [other]]).std(axis=0)

    def difference(self, strategy: int, other: int) -> tuple[float, tuple[float, float], float]:
        """How much more `strategy` gains than `other`, its 95 % interval, and its two-sided p value (normal)."""
        gain = float(self.whole[strategy] - self.whole[other])
        differences = self.inside[:, strategy] - self.inside[:, other]
        error, interval = float(differences.std()), tuple(_middle_95(differences).tolist())
        return gain, interval, math.erfc(abs(gain) / error / math.sqrt(2)) if error else float(gain == 0)


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


def bootstrap(pool: Pool, predicted: Sequence[np.ndarray], *, outside: bool = True) -> Bootstrap:
    """Score each strategy's predictions (repeats, n, classes) on all draws, and with `outside` on the other rows.

    A metric that is no mean over rows is evaluated on each draw of the first repeat. A draw without rows or without a
    score has the score of all rows.
    """
    measure, labels = pool.measure, pool.labels
    whole = np.array([np.mean([measure.gain(measure(repeat, labels)) for repeat in repeats]) for repeats in predicted])
    if measure.rows:
        rows = [np.mean([measure.rows(repeat, labels) for repeat in repeats], axis=0) for repeats in predicted]
        # (units, strategies + 1): the last column is the number of rows
        totals = np.stack([np.bincount(pool.units, weights=row) for row in [*rows, np.ones(len(labels))]], axis=1)
    else:
        scores = [measure.of_counts(repeats[0], labels) for repeats in predicted]

    def gains(counts: np.ndarray) -> np.ndarray:
        """Gains (draws, strategies) of counts (draws, units); NaN where a draw has none."""
        if measure.rows:
            # In parts that the processor's cache holds, as the whole product would copy all counts as float64 first.
            sums = np.concatenate([part.astype(np.float64) @ totals for part in np.array_split(counts, PARTS)])
            with np.errstate(invalid="ignore"):
                return measure.gain(sums[:, :-1] / sums[:, -1:])
        values = np.full((len(counts), len(scores)), np.nan)
        for place in np.flatnonzero(counts.any(axis=1)):
            row_counts = counts[place, pool.units].astype(np.float64)
            values[place] = [measure.gain(score(row_counts)) for score in scores]
        return values

    inside, not_drawn = gains(pool.draws), None
    inside = np.where(np.isnan(inside), whole, inside)
    if outside:
        not_drawn = gains(pool.draws == 0)
        not_drawn = np.where(np.isnan(not_drawn), inside, not_drawn)
    return Bootstrap(whole, inside, not_drawn, pool)


def choose(resampled: Bootstrap, gains: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The strategy that `auto` chooses by gains (..., strategies) of the strategies `names`: indices (...).

    It is log-loss, unless another strategy is ahead of it by more than one standard error, the best run by 1.96: then
    the one that is furthest ahead.
    """
    null = names.index("log-loss")
    enough = np.where(np.array(names) == "best", Z_95, 1.0) * resampled.standard_errors(null) + 1e-12
    leads = gains - gains[..., [null]]
    leads = np.where(leads > enough, leads, -np.inf)
    leads[..., null] = 0
    return leads.argmax(axis=-1)


def estimate(resampled: Bootstrap, place: int, *, tests: int, chosen_among: Sequence[str] | None = None) -> Estimate:
    """The cross-fitted score of strategy number `place`, corrected if it was chosen on these rows by its score.

    The correction is the bootstrap bias-corrected cross-validation of Tsamardinos et al. (Machine Learning 107, 2018):
    choose among the strategies on the drawn rows, score on the others. A choice cannot make a score too bad, so that
    what is found below zero is noise, and counts as zero. Intervals of an accuracy are Wilson's.
    """
    measure, rows, units = resampled.pool.measure, float(len(resampled.pool.labels)), resampled.pool.draws.shape[1]
    optimism, inside = 0.0, resampled.inside[:, place]
    if chosen_among is not None:
        choices = choose(resampled, resampled.inside, chosen_among)
        outside = np.take_along_axis(resampled.outside, choices[:, None], axis=1).mean()
        optimism = max(0.0, float(resampled.whole[place] - outside))
    gain = float(resampled.whole[place]) - optimism
    if resampled.pool.metric == "accuracy":
        gain = min(max(gain, 0.0), 1.0)
        if units < rows:  # rows of a group are alike, so that they count as fewer rows (the design effect)
            ungrouped_variance = max(gain * (1 - gain), 1 / rows) / rows
            rows /= max(float(inside.var()) / ungrouped_variance, 1.0)
        both = 1 / (1 / rows + 1 / max(tests, 1))
        ends = [wilson_interval(gain * count, count) for count in (rows, both)]
    else:
        ends = gain + _middle_95(inside - inside.mean()) * [[1], [math.sqrt(1 + rows / max(tests, 1))]]
    scores = np.clip(np.sort([[measure.gain(end) for end in pair] for pair in ends]), measure.least, measure.most)
    interval, test_interval = map(tuple, scores.tolist())
    return Estimate(measure.gain(gain), interval, test_interval if tests else None, optimism)


def compare(resampled: Bootstrap, candidates: Sequence[Candidate], place: int) -> tuple[Comparison, ...]:
    """Compare candidate `place` with the best run, the uniform blend, and each candidate ahead of it beyond noise.

    Rows of a group are alike, so that McNemar's test counts groups.
    """
    pool, comparisons = resampled.pool, []
    differences = [resampled.difference(place, other) for other in range(len(candidates))]
    differ = holm([p for _, _, p in differences])
    merits = pool.target.merits(candidates[place].predicted[0], pool.labels).astype(float)
    for other, (gain, interval, _) in enumerate(differences):
        against = candidates[other].blend.strategy
        if other == place or not (against in ("best", "uniform") or (differ[other] and gain < 0)):
            continue
        of_other = pool.target.merits(candidates[other].predicted[0], pool.labels)
        more_correct = np.bincount(pool.units, weights=merits - of_other)
        won, lost = int((more_correct > 0).sum()), int((more_correct < 0).sum())
        is_real = not interval[0] <= 0 <= interval[1]
        comparisons.append(Comparison(against, gain, interval, won, lost, pool.counted, mcnemar(won, lost), is_real))
    return tuple(comparisons)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Which of several differences are real, (k,) bool; any of them is noise in 5 % of all cases (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    are_small = np.asarray(p_values)[order] <= 0.05 / np.arange(len(order), 0, -1)
    return np.logical_and.accumulate(are_small)[np.argsort(order)]


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p value of `won` against `lost` rows or groups (McNemar, 1947).

    `scipy.stats.binomtest` gives the same, but its import takes longer than the whole command.
    """
    count, ways, total = won + lost, 1, 1  # ways to choose k of them, and their sum: integers of any size
    for k in range(min(won, lost)):
        ways = ways * (count - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / 2**count)


def _middle_95(values: np.ndarray) -> np.ndarray:
    """The 2.5th and the 97.5th percentile; `np.percentile` first imports masked arrays, which takes 20 ms."""
    return np.interp([0.025, 0.975], np.linspace(0, 1, len(values)), np.sort(values))
