"""What each run brings to the blend, and which run to train next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from podium.ensemble.blend import Blend, Pool, blended
from podium.ensemble.compare import Draws, bootstrap
from podium.ensemble.cross_fit import CrossFit
from podium.metrics import softmax


@dataclass(frozen=True)
class Contribution:
    """One run in the blend: how alike its errors are to the others', and what the blend loses without it."""

    run: str
    error_correlation: float  # mean over the other runs
    disagreement: float  # mean share of rows where another run says something else
    loss: float | None  # gain of the blend with the run over the blend without; None where it has no weight
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Suggestion:
    """One more run of a recipe: what it may fix, and at what cost."""

    recipe: str
    rescued: float | None  # of the rows that the others' blend has wrong, the share that its runs have right
    seconds: float | None  # of one of its runs
    rescued_per_hour: float | None  # rows of the validation, in an hour of training


def error_correlations(right: np.ndarray) -> np.ndarray:
    """Correlation of errors (runs, runs) of right (runs, n) bool; 0 where a run has none, or nothing else."""
    errors = (~right).astype(np.float64)
    errors -= errors.mean(axis=1, keepdims=True)
    size = np.sqrt((errors**2).sum(axis=1))
    scaled = errors / np.where(size > 0, size, 1)[:, None]
    return scaled @ scaled.T


def disagreements(said: np.ndarray) -> np.ndarray:
    """Share of rows where two runs name other classes, (runs, runs), of said (runs, n)."""
    return np.array([(one != said).mean(axis=1) for one in said])


def contributions(
    pool: Pool, crossed: CrossFit, place: int, blend: Blend, *, metric: str, draws: Draws
) -> tuple[Contribution, ...]:
    """Each run's share in the wanted blend number `place`: what it scores on the first dealing of rows without it.

    The weights are the cross-fitted ones, the run's own shared out among the others in proportion.
    """
    used = [one for one in np.flatnonzero(blend.weights).tolist() if blend.shares_without(one) is not None]
    left = np.empty((1 + len(used), 1, *crossed.uncalibrated.shape[1:]), np.float32)
    for rows, blends in crossed.blends:
        fitted = blends[place]
        without = [fitted.shares_without(one) for one in used]
        rests = [fitted if weights is None else replace(fitted, weights=weights) for weights in without]
        left[:, 0, rows] = softmax(blended([fitted, *rests], pool.log_probabilities[:, rows]) / fitted.temperature)
    found = bootstrap(left, pool.labels, metric=metric, draws=draws, outside=False)
    alike, apart = error_correlations(pool.right), disagreements(pool.said)
    others = max(len(pool.runs) - 1, 1)
    told = []
    for one, run in enumerate(pool.runs):
        loss, interval = found.difference(0, 1 + used.index(one)) if one in used else (None, None)
        told.append(
            Contribution(
                run=run,
                error_correlation=float((alike[one].sum() - alike[one, one]) / others),
                disagreement=float(apart[one].sum() / others),
                loss=loss,
                interval=interval,
                verdict=_verdict(blend.weights[one], interval),
            )
        )
    return tuple(told)


def _verdict(weight: float, interval: tuple[float, float] | None) -> str:
    if weight and interval is None:
        return "keep it: it is the whole blend"
    if interval is None:
        return "drop it: it has no weight"
    if interval[1] < 0:
        return "drop it: the blend is better without"
    return "keep it" if interval[0] > 0 else "drop it or keep it: no difference beyond noise"


def suggest(
    pool: Pool, recipe_of: Mapping[str, str], seconds_of: Mapping[str, float], recipes: Sequence[str]
) -> tuple[Suggestion, ...]:
    """Which recipe deserves one more run, the most promising first; recipes that were never trained lead.

    A run is worth what it has right where the blend of all other recipes is wrong, in rows per hour of its
    training. That says nothing of how the blend would use it: it ranks, it does not promise.
    """
    right = pool.right
    told = []
    for recipe in recipes:
        own = np.array([recipe_of.get(run) == recipe for run in pool.runs])
        times = [seconds_of[run] for run in pool.runs if recipe_of.get(run) == recipe and run in seconds_of]
        seconds = float(np.mean(times)) if times else None
        if not own.any() or own.all():
            told.append(Suggestion(recipe, None, seconds, None))
            continue
        votes = _votes(pool.said[~own], pool.log_probabilities.shape[2])
        wrong = votes != pool.labels
        rescued = float(right[own][:, wrong].mean()) if wrong.any() else 0.0
        hourly = rescued * int(wrong.sum()) / seconds * 3600 if seconds else None
        told.append(Suggestion(recipe, rescued, seconds, hourly))
    return tuple(sorted(told, key=lambda one: (one.rescued_per_hour is not None, -(one.rescued_per_hour or 0))))


def _votes(said: np.ndarray, classes: int) -> np.ndarray:
    """The class that most runs name, (n,), the first of equal ones: said (runs, n)."""
    rows = np.arange(said.shape[1])
    counts = np.zeros((said.shape[1], classes), np.int64)
    for one in said:
        counts[rows, one] += 1
    return counts.argmax(axis=1)
