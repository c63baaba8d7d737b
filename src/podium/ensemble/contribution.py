"""How much each run adds to the blend, and which run to train next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from podium.ensemble.blend import without_each_run
from podium.ensemble.compare import bootstrap, holm
from podium.ensemble.cross_fit import Candidate
from podium.ensemble.pool import Pool


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


def contributions(pool: Pool, candidate: Candidate) -> tuple[Contribution, ...]:
    """What each run adds to a candidate, by cross-fitted scores (first repeat) with and without it.

    Without a run, its weight is divided among the other runs, in proportion to theirs. The verdicts are corrected for
    their number.
    """
    weights, others = candidate.blend.weights, max(len(pool.runs) - 1, 1)
    used = np.flatnonzero(weights).tolist() if np.count_nonzero(weights) > 1 else []
    without = {run: candidate.predicted[:1].copy() for run in used}
    for rows, blend in candidate.parts:
        for run, logs in without_each_run(blend, pool.logs[:, rows]).items():
            if run in without:
                without[run][0, rows] = blend.values(logs)
    resampled = bootstrap(pool, [candidate.predicted[:1], *without.values()], outside=False)
    differences = {run: resampled.difference(0, place) for place, run in enumerate(used, start=1)}
    real = dict(zip(used, holm([p for _, _, p in differences.values()]), strict=True))
    results = []
    for index, run in enumerate(pool.runs):
        loss, interval, _ = differences.get(index, (None, None, None))
        verdict = "keep: it is the whole blend" if weights[index] else "drop: it has no weight"
        if loss is not None:
            verdict = "keep" if loss > 0 else "drop: the blend is better without it"
            verdict = verdict if real[index] else "unclear: no difference beyond noise"
        similar = float((pool.error_correlation[index].sum() - pool.error_correlation[index, index]) / others)
        different = float(pool.disagreement[index].sum() / others)
        results.append(Contribution(run, similar, different, loss, interval, verdict))
    return tuple(results)


def suggest(pool: Pool, recipes: Sequence[str]) -> tuple[Suggestion, ...]:
    """Which recipe deserves one more run, the most promising first; recipes that were never trained come first.

    The value of a run is the number of rows that it predicts correctly and the other recipes' vote does not, per hour
    of training. It ranks recipes; it does not predict the gain of the blend.
    """
    gains, suggestions = pool.gains(), []
    members = pool.select(gains)[0].sum()
    for recipe in recipes:
        own = np.array([about.get("recipe_name") == recipe for about in pool.abouts])
        times = [pool.abouts[run]["seconds"] for run in np.flatnonzero(own) if "seconds" in pool.abouts[run]]
        seconds = float(np.mean(times)) if times else None
        fixed, per_hour, member = None, None, True
        if own.any():  # one more run is expected to score as the present ones do; its name comes last
            more = replace(pool, runs=(*pool.runs, "~"), abouts=(*pool.abouts, pool.abouts[own.argmax()]))
            member = bool(more.select((*gains, gains[own].mean()))[0].sum() > members)
        if own.any() and not own.all() and pool.target.has_classes:
            wrong = votes(pool.predicted[~own], pool.target.value_width).argmax(axis=1) != pool.labels
            fixed = float(pool.correct[own][:, wrong].mean()) if wrong.any() else 0.0
            per_hour = fixed * int(wrong.sum()) / seconds * 3600 if seconds else None
        suggestions.append(Suggestion(recipe, fixed, seconds, per_hour, member))
    return tuple(sorted(suggestions, key=lambda row: (row.fixed_per_hour is not None, -(row.fixed_per_hour or 0))))


def votes(predicted: np.ndarray, classes: int) -> np.ndarray:
    """How many runs predict each class, (n, classes), of predicted (runs, n)."""
    counts, rows = np.zeros((predicted.shape[1], classes), np.int64), np.arange(predicted.shape[1])
    for run in predicted:
        counts[rows, run] += 1
    return counts
