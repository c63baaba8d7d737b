"""One blend: members, temperatures and weights, fitted on some rows and applied to any."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.select import select
from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.stack import weighted_sum
from podium.ensemble.strategies.table import STRATEGIES, Material
from podium.predictions.align import Aligned
from podium.targets.base import CLASS, Target

MIN_PROBABILITY = np.finfo(np.float32).tiny
# Rows, and values, that are blended at a time, so that the arrays between logits and blend stay small.
ROWS_AT_A_TIME, VALUES_AT_A_TIME = 2000, 4_000_000
# Logits of all pools that are fitted side by side: each needs its own copies. A larger pool is fitted alone, and its
# temperatures run by run.
MANY_LOGITS = 20_000_000


@dataclass(frozen=True, eq=False)
class Pool:
    """The predictions of all runs for one set of n cells (see podium.targets); blends are fitted on it."""

    runs: tuple[str, ...]
    architectures: tuple[str, ...]
    log_probabilities: np.ndarray  # (runs, n, classes) float64, without temperatures; numbers (runs, n, 1)
    predicted: np.ndarray  # (runs, n): the most probable class, or the number
    labels: np.ndarray  # (n,)
    fits_temperatures: bool  # whether a temperature is fitted to each run
    target: Target
    strata: np.ndarray  # (n,) int: of which each part of a split gets its share
    units: np.ndarray | None  # (n,): which rows are split and drawn together; None: each alone
    counted: str  # what is drawn: rows or groups

    @property
    def errors(self) -> np.ndarray:
        """The error of each run for each row, (runs, n)."""
        return self.target.errors(self.predicted, self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Which rows each run predicts correctly: (runs, n) bool."""
        return self.predicted == self.labels

    def gains(self, metric: str) -> np.ndarray:
        """The score of each run by a metric, (runs,): more is better; -inf if these rows have no score."""
        if metric == "accuracy":
            return self.correct.mean(axis=1)
        measure = self.target.metrics[metric]
        values = map(self.target.values_of_logs, self.log_probabilities)
        gains = [measure.gain(measure(run, self.labels)) for run in values]
        return np.nan_to_num(gains, nan=-np.inf)

    def rows(self, indices: np.ndarray) -> "Pool":
        """A pool with the same runs, but only the rows at `indices`."""
        return replace(
            self,
            log_probabilities=self.log_probabilities[:, indices],
            predicted=self.predicted[:, indices],
            labels=self.labels[indices],
        )


@dataclass(frozen=True, eq=False)
class Blend:
    """A strategy fitted on a pool; `probabilities` applies it to any rows of the same runs."""

    strategy: str
    average: str
    temperatures: np.ndarray  # (runs,); 1 if none was fitted
    weights: np.ndarray  # (runs,)
    biases: np.ndarray | None  # (classes,), only for the strategy stack
    temperature: float  # of the blend
    target: Target = CLASS
    cuts: np.ndarray | None = None  # what `Target.fit_cuts` gives

    @property
    def is_calibrated(self) -> bool:
        """Whether its values are probabilities to which a temperature was fitted, and which no cut points shift."""
        return self.target.has_probabilities and self.cuts is None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of the cells' logits (runs, n, classes)."""
        return self.values(blended([self], logits)[0])

    def values(self, logs: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of what `blended` gives."""
        return self.target.values(logs / self.temperature, self.cuts)

    def average_of(self, logs: np.ndarray, probabilities: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
        """Combine the log-probabilities `logs` (m, n, classes) of m runs; each row may be off by a constant.

        `weights` (m,) has one weight per run. Pass `probabilities` = exp(`logs`) if they are known, else None.
        """
        if self.biases is not None:
            return weighted_sum(logs, weights) + self.biases
        if self.average == "logits" or np.count_nonzero(weights) == 1:
            return weighted_sum(logs, weights)
        shares = np.exp(logs) if probabilities is None else probabilities
        return np.log(np.maximum(weighted_sum(shares, weights), MIN_PROBABILITY))


def pool_of(aligned: Aligned, settings: Ensemble) -> Pool:
    """Make a pool of the cells of aligned runs.

    With `run_temperatures = "auto"`, each run gets its own temperature if keys differ that change how sure runs are.
    """
    # In float64, so that what CPUs compute differently in the last bits is rounded away in the JSON.
    target, units = aligned.target, aligned.groups
    if target.cells_per_row > 1:  # the cells of a row are not independent
        units = np.repeat(np.arange(len(aligned.oof_ids)) if units is None else units, target.cells_per_row)
    strata = target.strata(aligned.oof_labels, least=settings.cross_fit_parts, most=len(aligned.oof_ids))
    logs = calibrated(target.cells(aligned.oof_logits), np.ones(len(aligned.runs)), target)
    smoothings = {_smoothing(about) for about in aligned.abouts}
    differ = len(smoothings) > 1 or None in smoothings
    return Pool(
        runs=aligned.runs,
        architectures=tuple(about["architecture"] for about in aligned.abouts),
        log_probabilities=logs,
        predicted=target.predicted(logs),
        labels=target.cell_labels(aligned.oof_labels),
        target=target,
        strata=np.repeat(strata, target.cells_per_row),
        units=units,
        counted="rows" if aligned.groups is None else "groups",
        fits_temperatures=target.has_probabilities
        and (settings.run_temperatures == "always" or (settings.run_temperatures == "auto" and differ)),
    )


def fit_blends(pool: Pool, candidates: Sequence[tuple[str, str]], settings: Ensemble, *, metric: str) -> list[Blend]:
    """Select members and fit temperatures and weights on a pool's rows, for each candidate (strategy, average).

    If no run is a member by these rows, although one is by all validation rows, the best run is the only member.
    """
    temperatures, logs = np.ones(len(pool.runs)), pool.log_probabilities
    if pool.fits_temperatures:
        together = len(logs) if logs.size <= MANY_LOGITS else 1
        groups = [logs[start : start + together] for start in range(0, len(logs), together)]
        temperatures = np.concatenate([fit_temperatures(group, pool.labels) for group in groups])
        logs = calibrated(logs, temperatures, pool.target)
    gains = pool.gains(metric)
    choices = select(pool.runs, pool.architectures, gains, settings, metric=metric)
    runs, members = np.arange(len(pool.runs)), np.flatnonzero([choice.member for choice in choices])
    if not len(members):
        members = np.array([gains.argmax()])
    of_runs = Material(logs, pool.labels, metric=metric, seed=settings.seed, correct=pool.correct, target=pool.target)
    of_members = of_runs
    if len(members) < len(runs):
        of_members = replace(of_runs, log_probabilities=logs[members], correct=of_runs.correct[members])
    blends = []
    for strategy, average in candidates:
        # The strategy best chooses among all runs, not only among members.
        material, places = (of_runs, runs) if strategy == "best" else (of_members, members)
        weights = np.zeros(len(pool.runs))
        weights[places], biases = STRATEGIES[strategy](material, average)
        blends.append(Blend(strategy, average, temperatures, weights, biases, 1.0, pool.target))
    for place, in_sample in enumerate(blended(blends, logs, are_calibrated=True)):
        has_temperature = pool.target.has_probabilities
        temperature = float(fit_temperatures(in_sample[None], pool.labels)[0]) if has_temperature else 1.0
        cuts = pool.target.fit_cuts(in_sample / temperature, pool.labels, metric)
        blends[place] = replace(blends[place], temperature=temperature, cuts=cuts)
    return blends


def calibrated(logits: np.ndarray, temperatures: np.ndarray, target: Target = CLASS) -> np.ndarray:
    """Log-probabilities (runs, n, classes) float64 of logits at each run's temperature, made run by run."""
    logs = np.empty(logits.shape)
    for place, (run, temperature) in enumerate(zip(logits, temperatures, strict=True)):
        logs[place] = target.log_values(run.astype(np.float64) / temperature)
    return logs


def blended(blends: Sequence[Blend], logits: np.ndarray, *, are_calibrated: bool = False) -> np.ndarray:
    """The log-probabilities of each blend (blends, n, classes) before its temperature, up to a constant per row.

    `logits` (runs, n, classes), or log-probabilities at the runs' temperatures (`are_calibrated`). All blends must come
    from one call of `fit_blends`: the run temperatures of the first are used for all.
    """
    used = np.flatnonzero(np.any([blend.weights for blend in blends], axis=0))
    need_probabilities = any(blend.average == "probabilities" for blend in blends)
    result = np.empty((len(blends), *logits.shape[1:]))
    for rows in row_blocks(logits.shape[1], len(used) * logits.shape[2]):
        logs = logits[used, rows]
        if not are_calibrated:
            logs = calibrated(logs, blends[0].temperatures[used], blends[0].target)
        probabilities = np.exp(logs) if need_probabilities else None
        for place, blend in enumerate(blends):
            result[place, rows] = blend.average_of(logs, probabilities, blend.weights[used])
    return result


def without_each_run(blend: Blend, logits: np.ndarray) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Yield some rows, a run that has a weight, and the blend's log-probabilities of these rows without that run.

    A run's weight is divided among the others, in proportion to the size of theirs: `logits` (runs, n, classes). The
    time is linear in the number of runs. A blend of one run yields nothing.
    """
    used = np.flatnonzero(blend.weights)
    weights, sizes = blend.weights[used], np.abs(blend.weights[used])  # the coefficients of a stack may be negative
    shares = [weight / np.delete(sizes, place).sum() for place, weight in enumerate(weights)] if len(used) > 1 else []
    are_logs = blend.biases is not None or blend.average == "logits"
    for rows in row_blocks(logits.shape[1], len(used) * logits.shape[2], multiple_of=blend.target.cells_per_row):
        logs = calibrated(logits[used, rows], blend.temperatures[used], blend.target)
        values = logs if are_logs else np.exp(logs, out=logs)
        others = _sums_of_others(values, weights)
        other_sizes = others if blend.biases is None else _sums_of_others(values, sizes)
        for run, share, total, size in zip(used.tolist(), shares, others, other_sizes, strict=False):
            blend_of_others = total + share * size
            if blend.biases is not None:
                blend_of_others += blend.biases
            yield rows, run, blend_of_others if are_logs else np.log(np.maximum(blend_of_others, MIN_PROBABILITY))


def _sums_of_others(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each run, the weighted sum of all other runs' values (m, n, classes), without cancellation."""
    sums = np.zeros(values.shape)
    for order in (range(len(values)), reversed(range(len(values)))):
        total = np.zeros(values.shape[1:])
        for place in order:
            sums[place] += total
            total += weights[place] * values[place]
    return sums


def row_blocks(rows: int, values_per_row: int, *, multiple_of: int = 1) -> list[slice]:
    """Slices of all rows, so small that the arrays made from one block stay small; their size is a multiple."""
    size = max(1, min(ROWS_AT_A_TIME, VALUES_AT_A_TIME // values_per_row) // multiple_of) * multiple_of
    return [slice(start, start + size) for start in range(0, rows, size)]


def scores_of(probabilities: np.ndarray, labels: np.ndarray, metric: str, target: Target) -> dict[str, float]:
    """The target's scores and the competition's metric of the cells' probabilities (n, classes)."""
    return {name: target.metrics[name](probabilities, labels) for name in dict.fromkeys((*target.scores, metric))}


def _smoothing(about: dict[str, Any]) -> tuple | None:
    """The settings that made a run's probabilities less confident; None if they are not known."""
    recipe = about.get("recipe")
    if not isinstance(recipe, dict):
        return None
    recipe = {"class_weights": "none", "sampling": "all"} | recipe
    keys = ("label_smoothing", "mixup", "cutmix", "focal_gamma", "class_weights", "sampling")
    return tuple(recipe.get(key, 0) for key in keys)
