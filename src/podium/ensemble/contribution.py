"""How much each run adds to the blend, and which run to train next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import Blend, Pool, without_each_run
from podium.ensemble.compare import Draws, bootstrap, holm
from podium.ensemble.cross_fit import CrossFit
from podium.ensemble.select import select
from podium.targets.base import CLASS, Target


@dataclass(frozen=True)
class Contribution:
    """One run in the blend: how similar its errors are to those of the others, and what the blend loses without it."""

    run: str
    error_correlation: float  # mean over the other runs
    disagreement: float  # mean over the other runs: of classes, the share of rows with another class
    loss: float | None  # gain of the blend with the run over the blend without it; None if it has no weight
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class Suggestion:
    """One more run of a recipe: the errors that it may fix, and its cost."""

    recipe: str
    fixed: float | None  # of the rows that the other recipes' vote gets wrong, the share that its runs get right
    seconds: float | None  # of one of its runs
    fixed_per_hour: float | None  # validation rows per hour of training
    member: bool  # whether such a run is one more member by the settings; True for a recipe without runs


def error_correlations(errors: np.ndarray) -> np.ndarray:
    """Correlation (runs, runs) of errors (runs, n); 0 for a run whose errors are all the same."""
    errors = errors.astype(np.float64)
    errors -= errors.mean(axis=1, keepdims=True)
    size = np.sqrt((errors**2).sum(axis=1))
    scaled = errors / np.where(size > 0, size, 1)[:, None]
    return scaled @ scaled.T


def disagreements(predicted: np.ndarray, target: Target = CLASS) -> np.ndarray:
    """How far the predictions of two runs differ, (runs, runs), as the target says, of predicted (runs, n)."""
    shares = np.zeros((len(predicted), len(predicted)))
    for place, run in enumerate(predicted):
        shares[place, place:] = shares[place:, place] = target.disagreement(run, predicted[place:])
    return shares


def contributions(
    pool: Pool,
    crossed: CrossFit,
    place: int,
    blend: Blend,
    *,
    metric: str,
    draws: Draws,
    correlation: np.ndarray,
    disagreement: np.ndarray,
) -> tuple[Contribution, ...]:
    """What each run adds to candidate number `place`, by cross-fitted scores (first repeat) with and without it.

    Without a run, its weight is divided among the other runs, in proportion to theirs. The verdicts are corrected for
    their number.
    """
    used = np.flatnonzero(blend.weights).tolist()
    used = used if len(used) > 1 else []
    place_of = {run: index for index, run in enumerate(used, start=1)}
    probabilities = np.empty((1 + len(used), 1, *crossed.probabilities.shape[2:]), np.float32)
    probabilities[:] = crossed.probabilities[place, :1]
    for part, blends in crossed.blends:
        for rows, run, logs in without_each_run(blends[place], pool.log_probabilities[:, part]):
            if run in place_of:
                probabilities[place_of[run], 0, part[rows]] = blends[place].values(logs)
    resampled = bootstrap(probabilities, pool.labels, metric=metric, draws=draws, outside=False, target=pool.target)
    real = holm([resampled.p(0, 1 + place) for place in range(len(used))])
    other_runs = max(len(pool.runs) - 1, 1)
    results = []
    for index, run in enumerate(pool.runs):
        loss, interval = resampled.difference(0, 1 + used.index(index)) if index in used else (None, None)
        results.append(
            Contribution(
                run=run,
                error_correlation=float((correlation[index].sum() - correlation[index, index]) / other_runs),
                disagreement=float(disagreement[index].sum() / other_runs),
                loss=loss,
                interval=interval,
                verdict=_verdict(blend.weights[index], loss, index in used and real[used.index(index)]),
            )
        )
    return tuple(results)


def _verdict(weight: float, loss: float | None, real: bool) -> str:
    if loss is None:
        return "keep: it is the whole blend" if weight else "drop: it has no weight"
    if not real:
        return "unclear: no difference beyond noise"
    return "keep" if loss > 0 else "drop: the blend is better without it"


def suggest(
    pool: Pool,
    recipe_of: Mapping[str, str],
    seconds_of: Mapping[str, float],
    recipes: Sequence[str],
    *,
    settings: Ensemble,
    metric: str,
) -> tuple[Suggestion, ...]:
    """Which recipe deserves one more run, the most promising first; recipes that were never trained come first.

    The value of a run is the number of rows that it predicts correctly and the other recipes' vote does not, per hour
    of training. It ranks recipes; it does not predict the gain of the blend.
    """
    gains, suggestions = pool.gains(metric), []
    choices = select(pool.runs, pool.architectures, gains, settings, metric=metric)
    for recipe in recipes:
        own = np.array([recipe_of.get(run) == recipe for run in pool.runs])
        times = [seconds_of[run] for run in pool.runs if recipe_of.get(run) == recipe and run in seconds_of]
        seconds = float(np.mean(times)) if times else None
        fixed, per_hour, member = None, None, True
        if own.any():  # one more run is expected to score as the present ones do; its name comes last
            runs, architectures = (*pool.runs, "~"), (*pool.architectures, pool.architectures[own.argmax()])
            more = select(runs, architectures, (*gains, gains[own].mean()), settings, metric=metric)
            member = sum(choice.member for choice in more) > sum(choice.member for choice in choices)
        if own.any() and not own.all() and pool.target.has_classes:
            wrong = votes(pool.predicted[~own], pool.target.value_width).argmax(axis=1) != pool.labels
            fixed = float(pool.correct[own][:, wrong].mean()) if wrong.any() else 0.0
            per_hour = fixed * int(wrong.sum()) / seconds * 3600 if seconds else None
        suggestions.append(Suggestion(recipe, fixed, seconds, per_hour, member))
    return tuple(sorted(suggestions, key=lambda row: (row.fixed_per_hour is not None, -(row.fixed_per_hour or 0))))


def votes(predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many runs predict each class, (n, classes), of predicted (runs, n)."""
    rows = np.arange(predicted.shape[1])
    counts = np.zeros((predicted.shape[1], classes), np.int32)
    for run in predicted:
        counts[rows, run] += 1
    return counts
