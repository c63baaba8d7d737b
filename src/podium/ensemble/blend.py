"""One blend: members, temperatures and weights, fitted on some rows and applied to any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from podium.ensemble.pool import Pool, calibrated, weighted_sum
from podium.ensemble.strategies.calibrate import fit_temperature
from podium.ensemble.strategies.table import STRATEGIES
from podium.targets.target import CLASS, Target

MIN_PROBABILITY = np.finfo(np.float32).tiny
# Rows, and values, that are blended at a time, so that the arrays between logits and blend stay small.
ROWS_AT_A_TIME, VALUES_AT_A_TIME = 2000, 4_000_000


@dataclass(frozen=True, eq=False)
class Blend:
    """A strategy fitted on a pool; `probabilities` applies it to any rows of the same runs."""

    strategy: str
    average: str
    temperatures: np.ndarray  # (runs,); 1 if none was fitted
    weights: np.ndarray  # (runs,)
    biases: np.ndarray | None  # (classes,), only for the strategy stack
    temperature: float = 1.0  # of the blend
    target: Target = CLASS
    cuts: np.ndarray | None = None  # what `Target.fit_cuts` gives

    @property
    def averages_logits(self) -> bool:
        """Whether the blend is a weighted sum of log-probabilities, as that of one run is in any case."""
        return self.average == "logits" or np.count_nonzero(self.weights) == 1

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of the cells' logits (runs, n, classes)."""
        return self.values(blended([self], logits)[0])

    def of_rows(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, outputs) of the runs' logits (runs, n, outputs) of rows, which a submission is made of."""
        return self.target.rows(self.probabilities(self.target.cells(logits)))

    def values(self, logs: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of what `blended` gives."""
        return self.target.values(logs / self.temperature, self.cuts)

    def logs_of(self, mean: np.ndarray) -> np.ndarray:
        """Log-probabilities, up to a constant per row, of the weighted mean of what is averaged."""
        if not self.averages_logits:
            return np.log(np.maximum(mean, MIN_PROBABILITY))
        return mean if self.biases is None else mean + self.biases


def fit_blends(pool: Pool, candidates: Sequence[tuple[str, str]]) -> list[Blend]:
    """Select members and fit temperatures and weights on a pool's rows, for each candidate (strategy, average).

    If no run is a member by these rows, although one is by all validation rows, the best run is the only member.
    """
    gains = pool.gains()
    members = np.flatnonzero(pool.select(gains)[0])
    members = members if len(members) else np.array([gains.argmax()])
    logits, temperatures = pool.logs, np.ones(len(pool.runs))
    if pool.fits_temperatures:
        temperatures = np.array([fit_temperature(run, pool.labels) for run in pool.logs])
        pool = replace(pool, logs=calibrated(pool.logs, temperatures, pool.target))
    of_members, blends = pool.of_runs(members), []
    for strategy, average in candidates:
        # The strategy best chooses among all runs, not only among members.
        material, places = (pool, slice(None)) if strategy == "best" else (of_members, members)
        weights = np.zeros(len(pool.runs))
        weights[places], biases = STRATEGIES[strategy](material, average)
        blends.append(Blend(strategy, average, temperatures, weights, biases, target=pool.target))
    for place, logs in enumerate(blended(blends, logits)):
        temperature = fit_temperature(logs, pool.labels) if pool.target.has_probabilities else 1.0
        cuts = pool.target.fit_cuts(logs / temperature, pool.labels, pool.metric)
        blends[place] = replace(blends[place], temperature=temperature, cuts=cuts)
    return blends


def blended(blends: Sequence[Blend], logits: np.ndarray) -> np.ndarray:
    """The log-probabilities of each blend (blends, n, classes) before its temperature, up to a constant per row.

    `logits` (runs, n, classes). All blends must come from one call of `fit_blends`: the run temperatures of the first
    are used for all.
    """
    used = np.flatnonzero(np.any([blend.weights for blend in blends], axis=0))
    need_probabilities = not all(blend.averages_logits for blend in blends)
    result = np.empty((len(blends), *logits.shape[1:]))
    size = max(1, min(ROWS_AT_A_TIME, VALUES_AT_A_TIME // (len(used) * logits.shape[2])))
    for start in range(0, logits.shape[1], size):
        rows = slice(start, start + size)
        logs = calibrated(logits[used, rows], blends[0].temperatures[used], blends[0].target)
        probabilities = np.exp(logs) if need_probabilities else None
        for place, blend in enumerate(blends):
            averaged = logs if blend.averages_logits else probabilities
            result[place, rows] = blend.logs_of(weighted_sum(averaged, blend.weights[used]))
    return result


def without_each_run(blend: Blend, logits: np.ndarray) -> dict[int, np.ndarray]:
    """The log-probabilities (n, classes) of a blend without each of its runs, by the run's place; no run if it has one.

    A run's weight is divided among the others, in proportion to the size of theirs: `logits` (runs, n, classes). The
    time is linear in the number of runs.
    """
    used = np.flatnonzero(blend.weights)
    if len(used) == 1:
        return {}
    weights, sizes = blend.weights[used], np.abs(blend.weights[used])  # the coefficients of a stack may be negative
    values = calibrated(logits[used], blend.temperatures[used], blend.target)
    values = values if blend.averages_logits else np.exp(values)
    shares = weights / [np.delete(sizes, place).sum() for place in range(len(used))]
    others = _sums_of_others(values, weights)
    by_size = others if (weights > 0).all() else _sums_of_others(values, sizes)
    logs = blend.logs_of(others + shares[:, None, None] * by_size)
    return dict(zip(used.tolist(), logs, strict=True))


def _sums_of_others(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each run, the weighted sum of all other runs' values (m, n, classes), without cancellation."""
    weighted = weights[:, None, None] * values
    sums = np.zeros(values.shape)
    sums[1:] = np.add.accumulate(weighted[:-1])
    sums[:-1] += np.add.accumulate(weighted[:0:-1])[::-1]
    return sums
