"""What a score may be believed: intervals, paired comparisons, and the price of having chosen.

Everything stands on one bootstrap over rows (over groups, where rows belong together): how each strategy's
cross-fitted predictions score on the drawn rows, and on those that were left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from podium.ensemble.strategies.table import STRATEGIES
from podium.metrics import METRICS, Z_95, wilson_interval
from podium.seeding import stream_seed

DRAWS, FEWER_DRAWS = 1000, 200
# Drawn rows in all: with very many rows fewer draws say as much.
MOST_DRAWN = 20_000_000


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Gains (more is better) of each strategy: on all rows, and by draws on the rows inside and outside."""

    whole: np.ndarray  # (strategies,)
    inside: np.ndarray  # (draws, strategies)
    outside: np.ndarray | None  # (draws, strategies), where they were asked for
    rows: int
    grouped: bool = False

    def standard_errors(self) -> np.ndarray:
        """Of the paired differences, (strategies, strategies)."""
        inside = self.inside - self.inside.mean(axis=0)
        covariance = inside.T @ inside / len(inside)
        variance = np.diag(covariance)
        return np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0))

    def difference(self, one: int, other: int) -> tuple[float, tuple[float, float]]:
        """How much more `one` gains than `other`, with its 95 % interval."""
        low, high = _middle_95(self.inside[:, one] - self.inside[:, other])
        return float(self.whole[one] - self.whole[other]), (float(low), float(high))


@dataclass(frozen=True)
class Estimate:
    """A score, the 95 % interval of what is true, and the interval that the score of a new test will lie in."""

    score: float
    interval: tuple[float, float]
    test_interval: tuple[float, float]
    corrected_for_choosing: float  # what was taken off because the strategy was chosen on these rows


@dataclass(frozen=True)
class Comparison:
    """One blend against another, in pairs of rows."""

    against: str
    gain: float  # more is better
    interval: tuple[float, float]
    won: int  # rows that only the first has right
    lost: int
    p: float  # McNemar's exact test
    real: bool  # the interval leaves out 0


@dataclass(frozen=True, eq=False)
class Draws:
    """Rows drawn with replacement, again and again; whole groups where rows belong together."""

    unit: np.ndarray  # (n,): which unit a row belongs to
    counts: np.ndarray  # (draws, units) float32: how often each is drawn


def draw_rows(rows: int, groups: np.ndarray | None, seed: int) -> Draws:
    """Draws for n rows; groups (n,) or None."""
    unit = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(unit.max()) + 1
    draws = max(50, min(DRAWS, MOST_DRAWN // count))
    stream = np.random.default_rng(stream_seed(seed, "bootstrap"))
    drawn = stream.integers(count, size=(draws, count), dtype=np.uint16 if count <= 65536 else np.int64)
    counts = np.empty((draws, count), np.float32)
    for one, row in zip(counts, drawn, strict=True):
        one[:] = np.bincount(row, minlength=count)
    return Draws(unit, counts)


def bootstrap(
    probabilities: np.ndarray, labels: np.ndarray, *, metric: str, draws: Draws, outside: bool = True
) -> Bootstrap:
    """Score all draws, with `outside` also what they leave: probabilities (strategies, repeats, n, classes)."""
    score = _by_rows if METRICS[metric].rows is not None else _by_draws
    whole, *drawn = score(probabilities, labels, metric, draws, outside)
    return Bootstrap(whole, *drawn, len(labels), draws.counts.shape[1] < len(labels))


Gains = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # on all rows, on the drawn ones, on those left out


def _by_rows(probabilities: np.ndarray, labels: np.ndarray, metric: str, draws: Draws, outside: bool) -> Gains:
    """For metrics that are a mean over rows: two matrix products."""
    measure, count = METRICS[metric], draws.counts.shape[1]
    gains = np.stack([[measure.gain(1) * measure.rows(one, labels) for one in each] for each in probabilities])
    gains = gains.mean(axis=1)  # (strategies, n)
    totals = np.stack([np.bincount(draws.unit, weights=one, minlength=count) for one in gains], axis=1)
    sizes = np.bincount(draws.unit, minlength=count)[:, None].astype(np.float32)
    totals = totals.astype(np.float32)
    inside = (draws.counts @ totals) / (draws.counts @ sizes)
    if not outside:
        return gains.mean(axis=1), inside, None
    left = (draws.counts == 0).astype(np.float32)
    room = left @ sizes
    return gains.mean(axis=1), inside, np.where(room > 0, (left @ totals) / np.maximum(room, 1), inside)


def _by_draws(probabilities: np.ndarray, labels: np.ndarray, metric: str, draws: Draws, outside: bool) -> Gains:
    """For metrics of all rows together: one evaluation a draw, on the first repeat."""
    measure, first = METRICS[metric], probabilities[:, 0]

    def gains(rows: np.ndarray) -> list[float]:
        return [measure.gain(measure(one[rows], labels[rows])) for one in first]

    inside, left = [], []
    for drawn in draws.counts[:FEWER_DRAWS]:
        times = drawn[draws.unit].astype(int)
        inside.append(gains(np.repeat(np.arange(len(labels)), times)))
        if outside:
            left.append(gains(np.flatnonzero(times == 0)) if (times == 0).any() else inside[-1])
    whole = [np.mean([measure.gain(measure(one, labels)) for one in each]) for each in probabilities]
    return np.array(whole), np.nan_to_num(inside), np.nan_to_num(left) if outside else None


def choose(means: np.ndarray, errors: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The strategy that `auto` takes, by gains (..., strategies) and the paired standard errors: indices (...).

    The simplest within one standard error of the best; the best single run where that one does not beat it by
    more than 1.96 standard errors.
    """
    order = [names.index(name) for name in STRATEGIES if name in names]
    top = means.argmax(axis=-1)
    taken = top.copy()
    for one in reversed(order):
        near = np.take_along_axis(means, top[..., None], -1)[..., 0] - means[..., one] <= errors[top, one]
        taken = np.where(near, one, taken)
    single = names.index("best")
    beats = np.take_along_axis(means, taken[..., None], -1)[..., 0] - means[..., single] > Z_95 * errors[taken, single]
    return np.where(beats, taken, single)


def estimate(found: Bootstrap, taken: int, *, names: Sequence[str], metric: str, chosen: bool, tests: int) -> Estimate:
    """The honest score of strategy `taken`; where it was `chosen` on these rows, less what choosing flatters.

    That is the bootstrap bias-corrected cross-validation of Tsamardinos et al. (Machine Learning 107, 2018): choose
    on the drawn rows, score on those left out. Intervals of an accuracy are Wilson's.
    """
    measure, flattered = METRICS[metric], 0.0
    if chosen:
        picks = choose(found.inside, found.standard_errors(), names)
        outside = np.take_along_axis(found.outside, picks[:, None], axis=1).mean()
        flattered = float(found.whole[taken] - outside)
    gain = float(found.whole[taken]) - flattered
    low, high = _middle_95(found.inside[:, taken] - found.inside[:, taken].mean()) + gain
    wider = math.sqrt(1 + found.rows / tests)
    ends = [(low, high), (gain - (gain - low) * wider, gain + (high - gain) * wider)]
    if metric == "accuracy":
        gain, rows = min(max(gain, 0.0), 1.0), float(found.rows)
        if found.grouped:  # rows of a group are worth less than as many others: by their design effect
            plain = max(gain * (1 - gain), 1 / rows) / rows
            rows /= max(float(found.inside[:, taken].var()) / plain, 1.0)
        together = 1 / (1 / rows + 1 / tests)
        ends = [wilson_interval(gain * rows, rows), wilson_interval(gain * together, together)]
    scores = np.clip(np.sort([[measure.gain(end) for end in pair] for pair in ends]), measure.least, measure.most)
    interval, test_interval = ((float(low), float(high)) for low, high in scores)
    return Estimate(measure.gain(gain), interval, test_interval, flattered)


def plain_interval(found: Bootstrap, one: int, *, metric: str) -> tuple[float, float]:
    """The 95 % interval of a strategy's score, nothing taken off for having been chosen."""
    return estimate(found, one, names=(), metric=metric, chosen=False, tests=found.rows).interval


def compare(found: Bootstrap, right: np.ndarray, one: int, other: int, *, against: str) -> Comparison:
    """Strategy `one` against `other`; right (strategies, n) bool of one repeat."""
    gain, interval = found.difference(one, other)
    won, lost = int((right[one] & ~right[other]).sum()), int((right[other] & ~right[one]).sum())
    real = not interval[0] <= 0 <= interval[1]
    return Comparison(against, gain, interval, won, lost, mcnemar(won, lost), real)


def _middle_95(values: np.ndarray) -> np.ndarray:
    """The 2.5th and the 97.5th percentile: NumPy's own imports its masked arrays first, which takes 20 ms."""
    return np.interp([0.025, 0.975], np.linspace(0, 1, len(values)), np.sort(values))


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p that `won` and `lost` rows differ so much by chance (McNemar, 1947)."""
    count = won + lost
    if count == 0:
        return 1.0
    log_halves = count * math.log(2)
    tail = sum(
        math.exp(math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) - log_halves)
        for k in range(min(won, lost) + 1)
    )
    return min(1.0, 2 * tail)
