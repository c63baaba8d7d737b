"""What blends are fitted on and judged by: the predictions of all runs for the validation rows, and the labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from podium.config.keys import Ensemble
from podium.metrics import Metric, log_softmax
from podium.predictions.align import Aligned
from podium.seeding import stream_seed
from podium.targets.target import CLASS, Target

DRAWS = 1000
# Largest number of drawn rows in all: with very many rows, fewer draws are enough.
MOST_DRAWN = 20_000_000
# Keys of a recipe that make a run's probabilities less confident, and their defaults.
SMOOTHING = {
    "label_smoothing": 0,
    "mixup": 0,
    "cutmix": 0,
    "focal_gamma": 0,
    "class_weights": "none",
    "sampling": "all",
}


@dataclass(frozen=True, eq=False)
class Pool:
    """All runs' predictions for n cells (see podium.targets), the labels, and how blends of the runs are judged."""

    runs: tuple[str, ...]
    abouts: tuple[dict[str, Any], ...]
    logs: np.ndarray  # (runs, n, classes) float64 log-probabilities, without temperatures; numbers (runs, n, 1)
    predicted: np.ndarray  # (runs, n): the most probable class, or the number
    labels: np.ndarray  # (n,)
    strata: np.ndarray  # (n,) int: of which each part of a split gets its share
    units: np.ndarray  # (n,) int: the row or the group of each cell; units are split and drawn as a whole
    counted: str  # what a unit is: rows or groups
    target: Target
    metric: str
    settings: Ensemble

    @property
    def measure(self) -> Metric:
        """The metric of the competition."""
        return self.target.metrics[self.metric]

    @property
    def correct(self) -> np.ndarray:
        """Which rows each run predicts correctly: (runs, n) bool."""
        return self.predicted == self.labels

    @property
    def fits_temperatures(self) -> bool:
        """Whether a temperature is fitted to each run; `auto`: if keys differ that change how sure runs are."""
        fits, recipes = self.settings.run_temperatures, [about.get("recipe") for about in self.abouts]
        if fits == "auto":
            known = [recipe for recipe in recipes if isinstance(recipe, dict)]
            smoothings = {tuple(recipe.get(*item) for item in SMOOTHING.items()) for recipe in known}
            return self.target.has_probabilities and (len(smoothings) > 1 or len(known) < len(recipes))
        return self.target.has_probabilities and fits == "always"

    def parts(self) -> np.ndarray:
        """The part, from 0, in which each cell is scored: (repeats, n). Strata have equal shares in all parts."""
        strata, parts = self.strata[np.unique(self.units, return_index=True)[1]], []  # of a unit's first row
        for repeat in range(self.settings.cross_fit_repeats):
            generator = np.random.default_rng(stream_seed(self.settings.seed, f"cross-fit/{repeat}"))
            shuffled = generator.permutation(len(strata))
            by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
            place = np.argsort(by_stratum)  # of each unit in this order
            parts.append((place % min(self.settings.cross_fit_parts, len(place)))[self.units])
        return np.array(parts)

    @cached_property
    def draws(self) -> np.ndarray:
        """How often each unit is drawn in each draw with replacement, (draws, units) uint16, for the bootstrap."""
        count = int(self.units.max()) + 1
        draws = max(50, min(DRAWS, MOST_DRAWN // count))
        generator = np.random.default_rng(stream_seed(self.settings.seed, "bootstrap"))
        drawn = generator.integers(count, size=(draws, count), dtype=np.uint16 if count <= 65536 else np.int64)
        counts = np.empty((draws, count), np.uint16)
        for place, units in enumerate(drawn):
            counts[place] = np.bincount(units, minlength=count)
        return counts

    @cached_property
    def error_correlation(self) -> np.ndarray:
        """Correlation (runs, runs) of the runs' errors; 0 for a run whose errors are all the same."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(np.atleast_2d(np.corrcoef(self.target.errors(self.predicted, self.labels))))

    @cached_property
    def disagreement(self) -> np.ndarray:
        """How far the predictions of two runs differ, (runs, runs), as the target says."""
        return np.stack([self.target.disagreement(run, self.predicted) for run in self.predicted])

    def gains(self) -> np.ndarray:
        """The score of each run by the metric, (runs,): more is better; -inf if these rows have no score."""
        if self.metric == "accuracy":  # needs no probabilities
            return self.correct.mean(axis=1)
        values = map(self.target.values, self.logs)
        gains = [self.measure.gain(self.measure(run, self.labels)) for run in values]
        return np.nan_to_num(gains, nan=-np.inf)

    def select(self, gains: Sequence[float]) -> tuple[np.ndarray, list[str]]:
        """Choose members by their gains: (runs,) bool, and the reason for each run.

        A run is a member if its score is above the threshold, or if it is among the best of its architecture; of runs
        with equal scores, the first by name ranks higher. A metric of which less is better has no threshold.
        """
        settings, architectures = self.settings, [about["architecture"] for about in self.abouts]
        members, reasons = np.ones(len(self.runs), bool), ["all runs are members"] * len(self.runs)
        if settings.select == "all":
            return members, reasons
        totals, counts = Counter(architectures), Counter()
        limit = f"{settings.threshold:g}" if self.measure.greater_is_better else ""
        rows = zip([-gain for gain in gains], self.runs, architectures, range(len(self.runs)), strict=True)
        for loss, _, architecture, place in sorted(rows):
            counts[architecture] += 1
            rank, total = counts[architecture], totals[architecture]
            position = f"rank {rank} of {total} in its architecture" if total > 1 else "only run of its architecture"
            is_above, is_best = limit and -loss > settings.threshold, rank <= settings.best_per_architecture
            members[place] = is_above or is_best
            others = position if is_best or not limit else f"not above {limit}; {position}"
            reasons[place] = f"above threshold {limit}" if is_above else others
        return members, reasons

    def scores(self, values: np.ndarray) -> dict[str, float]:
        """The target's scores and the metric of the cells' values (n, classes)."""
        metrics = self.target.metrics
        return {name: metrics[name](values, self.labels) for name in dict.fromkeys((*self.target.scores, self.metric))}

    def of_rows(self, indices: np.ndarray) -> "Pool":
        """The pool of the cells at `indices`."""
        axes = {"logs": 1, "predicted": 1, "labels": 0, "strata": 0, "units": 0}
        return replace(self, **{name: getattr(self, name).take(indices, axis) for name, axis in axes.items()})

    def of_runs(self, indices: np.ndarray) -> "Pool":
        """The pool of the runs at `indices`; itself if these are all."""
        if len(indices) == len(self.runs):
            return self
        names, abouts = (tuple(values[place] for place in indices) for values in (self.runs, self.abouts))
        return replace(self, runs=names, abouts=abouts, logs=self.logs[indices], predicted=self.predicted[indices])


def pool_of(aligned: Aligned, settings: Ensemble, *, metric: str) -> Pool:
    """Make a pool of the cells of aligned runs."""
    target, rows = aligned.target, len(aligned.oof_ids)
    units = np.arange(rows) if aligned.groups is None else np.unique(aligned.groups, return_inverse=True)[1]
    strata = target.strata(aligned.oof_labels, least=settings.cross_fit_parts, most=rows)
    # In float64, so that what CPUs compute differently in the last bits is rounded away in the JSON.
    logs = calibrated(target.cells(aligned.oof_logits), np.ones(len(aligned.runs)), target)
    return Pool(
        runs=aligned.runs,
        abouts=aligned.abouts,
        logs=logs,
        predicted=target.predicted(logs),
        labels=target.cell_labels(aligned.oof_labels),
        strata=np.repeat(strata, target.cells_per_row),
        units=np.repeat(units, target.cells_per_row),  # the cells of a row are not independent
        counted="rows" if aligned.groups is None else "groups",
        target=target,
        metric=metric,
        settings=settings if target.has_probabilities else replace(settings, average="logits"),  # a mean of numbers
    )


def calibrated(logits: np.ndarray, temperatures: np.ndarray, target: Target = CLASS) -> np.ndarray:
    """Log-probabilities, or numbers, (runs, n, values) float64 of logits at each run's temperature, made run by run."""
    logs = np.empty(logits.shape)
    for place, (run, temperature) in enumerate(zip(logits, temperatures, strict=True)):
        scaled = run.astype(np.float64) / temperature
        logs[place] = log_softmax(scaled) if target.has_probabilities else scaled
    return logs


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over the first axis of (m, ...), in a fixed order, unlike BLAS; weights of 0 cost nothing."""
    shares = zip(values, weights, strict=True)
    return sum((value * share for value, share in shares if share), start=np.zeros(values[0].shape))
