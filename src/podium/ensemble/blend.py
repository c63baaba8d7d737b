"""One blend: members, temperatures and weights, fitted on some rows and applied to any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.select import select
from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.stack import weighted_sum
from podium.ensemble.strategies.table import STRATEGIES, Material
from podium.metrics import METRICS, log_softmax, softmax
from podium.predictions.align import Aligned

MIN_PROBABILITY = np.finfo(np.float32).tiny
# Rows that are blended at a time, so that the arrays between logits and blend stay small.
ROWS_AT_A_TIME = 2000


@dataclass(frozen=True, eq=False)
class Pool:
    """The predictions of all runs for one set of rows; blends are fitted on it."""

    runs: tuple[str, ...]
    architectures: tuple[str, ...]
    log_probabilities: np.ndarray  # (runs, n, classes) float64, without temperatures
    predicted: np.ndarray  # (runs, n): the most probable class
    labels: np.ndarray  # (n,)
    fits_temperatures: bool  # whether a temperature is fitted to each run

    @property
    def correct(self) -> np.ndarray:
        """Which rows each run predicts correctly: (runs, n) bool."""
        return self.predicted == self.labels

    def gains(self, metric: str) -> np.ndarray:
        """The score of each run by a metric, (runs,): more is better; -inf if these rows have no score."""
        if metric == "accuracy":
            return self.correct.mean(axis=1)
        measure = METRICS[metric]
        gains = [measure.gain(measure(np.exp(logs), self.labels)) for logs in self.log_probabilities]
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

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of logits (runs, n, classes)."""
        return softmax(blended([self], logits)[0] / self.temperature)

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

    def weights_without(self, run: int) -> np.ndarray | None:
        """The weights (runs,) after `run` is removed and its weight shared; None if no other run has a weight."""
        others = np.where(np.arange(len(self.weights)) == run, 0.0, self.weights)
        sizes = np.abs(others)  # the coefficients of a stack may be negative
        return others + self.weights[run] * sizes / sizes.sum() if sizes.any() else None


def pool_of(aligned: Aligned, settings: Ensemble) -> Pool:
    """Make a pool from aligned runs.

    With `run_temperatures = "auto"`, each run gets its own temperature if label smoothing, mixup or cutmix differ.
    """
    # In float64, so that what CPUs compute differently in the last bits is rounded away in the JSON.
    logs = log_softmax(aligned.oof_logits.astype(np.float64))
    smoothings = {_smoothing(about) for about in aligned.abouts}
    differ = len(smoothings) > 1 or None in smoothings
    return Pool(
        runs=aligned.runs,
        architectures=tuple(about["architecture"] for about in aligned.abouts),
        log_probabilities=logs,
        predicted=logs.argmax(axis=2),
        labels=aligned.oof_labels,
        fits_temperatures=settings.run_temperatures == "always" or (settings.run_temperatures == "auto" and differ),
    )


def fit_blends(pool: Pool, candidates: Sequence[tuple[str, str]], settings: Ensemble, *, metric: str) -> list[Blend]:
    """Select members and fit temperatures and weights on a pool's rows, for each candidate (strategy, average).

    If no run is a member by these rows, although one is by all validation rows, the best run is the only member.
    """
    temperatures, logs = np.ones(len(pool.runs)), pool.log_probabilities
    if pool.fits_temperatures:
        temperatures = fit_temperatures(logs, pool.labels)
        logs = log_softmax(logs / temperatures[:, None, None])
    gains = pool.gains(metric)
    choices = select(pool.runs, pool.architectures, gains, settings, metric=metric)
    runs, members = np.arange(len(pool.runs)), np.flatnonzero([choice.member for choice in choices])
    if not len(members):
        members = np.array([gains.argmax()])
    of_runs = Material(logs, pool.labels, metric=metric, seed=settings.seed, correct=pool.correct)
    of_members = of_runs
    if len(members) < len(runs):
        of_members = replace(of_runs, log_probabilities=logs[members], correct=of_runs.correct[members])
    blends = []
    for strategy, average in candidates:
        # The strategy best chooses among all runs, not only among members.
        material, places = (of_runs, runs) if strategy == "best" else (of_members, members)
        member_weights, biases = STRATEGIES[strategy](material, average)
        weights = np.zeros(len(pool.runs))
        weights[places] = member_weights
        blend = Blend(strategy, average, temperatures, weights, biases, 1.0)
        probabilities = material.probabilities if average == "probabilities" else None
        blend_logs = blend.average_of(material.log_probabilities, probabilities, member_weights)
        blends.append(replace(blend, temperature=float(fit_temperatures(blend_logs[None], pool.labels)[0])))
    return blends


def blended(blends: Sequence[Blend], logits: np.ndarray) -> np.ndarray:
    """The log-probabilities of each blend (blends, n, classes) before its temperature, up to a constant per row.

    `logits` (runs, n, classes). All blends must come from one call of `fit_blends`: the run temperatures of the first
    are used for all.
    """
    used = np.flatnonzero(np.any([blend.weights for blend in blends], axis=0))
    temperatures = blends[0].temperatures[used, None, None]
    need_probabilities = any(blend.average == "probabilities" for blend in blends)
    result = np.empty((len(blends), *logits.shape[1:]))
    for start in range(0, logits.shape[1], ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        logs = log_softmax(logits[used, rows] / temperatures)
        probabilities = np.exp(logs) if need_probabilities else None
        for place, blend in enumerate(blends):
            result[place, rows] = blend.average_of(logs, probabilities, blend.weights[used])
    return result


def scores_of(probabilities: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """Accuracy, log loss and the competition's metric of probabilities (n, classes)."""
    return {name: METRICS[name](probabilities, labels) for name in dict.fromkeys(("accuracy", "log_loss", metric))}


def _smoothing(about: dict[str, Any]) -> tuple | None:
    """The settings that made a run's probabilities less confident; None if they are not known."""
    recipe = about.get("recipe")
    if not isinstance(recipe, dict):
        return None
    return tuple(recipe.get(key, 0) for key in ("label_smoothing", "mixup", "cutmix"))
