"""One blend: who is a member, calibrated how, weighted how; fitted on some rows, applied to any."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.select import Choice, select
from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.stack import weighted_sum
from podium.ensemble.strategies.table import STRATEGIES, Material
from podium.metrics import METRICS, log_softmax, softmax
from podium.predictions.align import Aligned

SMALLEST = np.finfo(np.float32).tiny
# So many rows are blended at a time: what lies between logits and blend stays small.
ROWS_AT_A_TIME = 2000


@dataclass(frozen=True, eq=False)
class Pool:
    """All runs over some rows: what blends are fitted on."""

    runs: tuple[str, ...]
    architectures: tuple[str, ...]
    log_probabilities: np.ndarray  # (runs, n, classes) float32, as the runs gave them
    said: np.ndarray  # (runs, n): the most probable class
    labels: np.ndarray  # (n,)
    calibrated: bool  # whether each run needs a temperature of its own

    @property
    def right(self) -> np.ndarray:
        """Which rows each run has right: (runs, n) bool."""
        return self.said == self.labels

    def rows(self, some: np.ndarray) -> "Pool":
        """The same runs over some rows."""
        return replace(
            self,
            log_probabilities=self.log_probabilities[:, some],
            said=self.said[:, some],
            labels=self.labels[some],
        )


@dataclass(frozen=True, eq=False)
class Blend:
    """What a strategy made of a pool; `probabilities` applies it to any rows of the same runs."""

    strategy: str
    average: str
    choices: tuple[Choice, ...]  # one a run
    temperatures: np.ndarray  # (runs,); 1 where none was fitted
    weights: np.ndarray  # (runs,)
    biases: np.ndarray | None  # (classes,) of a stack
    temperature: float  # of the blend

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of logits (runs, n, classes)."""
        return softmax(blended([self], logits)[0] / self.temperature)

    def average_of(self, logs: np.ndarray, probabilities: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
        """The blend's log-probabilities (n, classes), up to a constant a row.

        Of some runs' log-probabilities (used, n, classes); their probabilities save an exponential if they are known.
        """
        if self.biases is not None:
            return weighted_sum(logs, weights) + self.biases.astype(logs.dtype)
        if self.average == "logits" or np.count_nonzero(weights) == 1:
            return weighted_sum(logs, weights)
        shares = np.exp(logs) if probabilities is None else probabilities
        return np.log(np.maximum(weighted_sum(shares, weights), SMALLEST))

    def shares_without(self, run: int) -> np.ndarray | None:
        """The weights (runs,) where one run's is shared out among the others; None where there are no others."""
        others = np.where(np.arange(len(self.weights)) == run, 0.0, self.weights)
        return others * (self.weights.sum() / others.sum()) if np.abs(others).sum() > 0 else None


def pool_of(aligned: Aligned, settings: Ensemble) -> Pool:
    """The pool of runs that are joined; `run_temperatures = "auto"` looks at how they were smoothed."""
    logs = log_softmax(aligned.oof_logits.astype(np.float32, copy=False))
    smoothing = {_smoothing(about) for about in aligned.abouts}
    differ = len(smoothing) > 1 or None in smoothing
    return Pool(
        runs=aligned.runs,
        architectures=tuple(about["architecture"] for about in aligned.abouts),
        log_probabilities=logs,
        said=logs.argmax(axis=2),
        labels=aligned.oof_labels,
        calibrated=settings.run_temperatures == "always" or (settings.run_temperatures == "auto" and differ),
    )


def fit_blends(pool: Pool, wanted: Sequence[tuple[str, str]], settings: Ensemble, *, metric: str) -> list[Blend]:
    """Select, calibrate and weigh on a pool's rows, by each wanted (strategy, average).

    Raises ConfigError where no run is a member.
    """
    choices = select(
        pool.runs,
        pool.architectures,
        accuracies=pool.right.mean(axis=1).tolist(),
        threshold=settings.threshold,
        best_per_architecture=settings.best_per_architecture,
        everyone=settings.select == "all",
    )
    temperatures, logs = np.ones(len(pool.runs)), pool.log_probabilities
    if pool.calibrated:
        temperatures = fit_temperatures(logs, pool.labels)
        logs = log_softmax(logs / temperatures[:, None, None].astype(logs.dtype))
    everyone, members = np.arange(len(pool.runs)), np.flatnonzero([choice.member for choice in choices])
    # The best single run is looked for among all runs, members or not.
    whole = Material(logs, pool.labels, metric=metric, seed=settings.seed, right=pool.right)
    some = whole
    if len(members) < len(everyone):
        some = replace(whole, log_probabilities=logs[members], right=whole.right[members])
    blends = []
    for strategy, average in wanted:
        material, places = (whole, everyone) if strategy == "best" else (some, members)
        weights, biases = STRATEGIES[strategy](material, average)
        spread = np.zeros(len(pool.runs))
        spread[places] = weights
        blend = Blend(strategy, average, choices, temperatures, spread, biases, 1.0)
        shares = material.probabilities if average == "probabilities" else None
        together = blend.average_of(material.log_probabilities, shares, weights)
        blends.append(replace(blend, temperature=float(fit_temperatures(together[None], pool.labels)[0])))
    return blends


def blended(blends: Sequence[Blend], logits: np.ndarray) -> np.ndarray:
    """The blends' log-probabilities (blends, n, classes), up to a constant a row, before their own temperatures.

    Of logits (runs, n, classes), by blends that were fitted together and so share the runs' temperatures.
    """
    used = np.flatnonzero(np.any([blend.weights for blend in blends], axis=0))
    temperatures = blends[0].temperatures[used, None, None].astype(logits.dtype)
    need_shares = any(blend.average == "probabilities" for blend in blends)
    found = np.empty((len(blends), *logits.shape[1:]), logits.dtype)
    for start in range(0, logits.shape[1], ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        logs = log_softmax(logits[used, rows] / temperatures)
        shares = np.exp(logs) if need_shares else None
        for one, blend in zip(found, blends, strict=True):
            one[rows] = blend.average_of(logs, shares, blend.weights[used])
    return found


def scores_of(probabilities: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """Accuracy, log loss and the competition's metric of probabilities (n, classes)."""
    return {name: METRICS[name](probabilities, labels) for name in dict.fromkeys(("accuracy", "log_loss", metric))}


def _smoothing(about: dict[str, Any]) -> tuple | None:
    """What made a run's probabilities soft; None where nobody knows."""
    recipe = about.get("recipe")
    if not isinstance(recipe, dict):
        return None
    return tuple(recipe.get(key, 0) for key in ("label_smoothing", "mixup", "cutmix"))
