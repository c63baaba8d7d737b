"""Scores of blends on rows that were not used to fit them: repeated, stratified cross-fitting.

Everything that looks at labels (selection, temperatures, weights) uses all parts of the validation rows except one,
and is scored on that part. Rows of one group are always in the same part.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import MANY_LOGITS, Blend, Pool, blended, fit_blends
from podium.seeding import stream_seed


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What each candidate (strategy, average) predicts for every row, fitted without that row."""

    probabilities: np.ndarray  # (candidates, repeats, n, classes) float32
    blends: tuple[tuple[np.ndarray, list[Blend]], ...]  # first repeat: rows, and the blends fitted without them

    def uncalibrated(self, pool: Pool, place: int) -> np.ndarray:
        """The probabilities (n, classes) of candidate number `place`, without temperature and cut points."""
        probabilities = np.empty_like(self.probabilities[place, 0])
        for rows, blends in self.blends:
            blend = replace(blends[place], temperature=1.0, cuts=None)
            probabilities[rows] = blend.probabilities(pool.log_probabilities[:, rows])
        return probabilities


def split_rows(labels: np.ndarray, groups: np.ndarray | None, settings: Ensemble) -> np.ndarray:
    """The part, from 0, in which each row is scored: (repeats, n). Classes have equal shares in all parts."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    unit_labels = np.zeros(count, np.int64)
    unit_labels[units[::-1]] = labels[::-1]  # the label of a group's first row
    parts = np.empty((settings.cross_fit_repeats, len(labels)), np.int64)
    for repeat in range(settings.cross_fit_repeats):
        generator = np.random.default_rng(stream_seed(settings.seed, f"cross-fit/{repeat}"))
        shuffled = generator.permutation(count)
        by_label = shuffled[np.argsort(unit_labels[shuffled], kind="stable")]
        unit_parts = np.empty(count, np.int64)
        unit_parts[by_label] = np.arange(count) % min(settings.cross_fit_parts, count)
        parts[repeat] = unit_parts[units]
    return parts


def cross_fit(
    pool: Pool, parts: np.ndarray, candidates: Sequence[tuple[str, str]], settings: Ensemble, *, metric: str
) -> CrossFit:
    """Fit every candidate (strategy, average) on all parts except one, and predict that part; parts (repeats, n)."""
    repeats, rows = parts.shape
    probabilities = np.empty((len(candidates), repeats, rows, pool.target.value_width), np.float32)

    def fit(job: tuple[int, int]) -> tuple[np.ndarray, list[Blend]]:
        repeat, part = job
        outside = np.flatnonzero(parts[repeat] == part)
        inside = np.flatnonzero(parts[repeat] != part)
        blends = fit_blends(pool.rows(inside), candidates, settings, metric=metric)
        logs = blended(blends, pool.log_probabilities[:, outside])
        for place, blend in enumerate(blends):
            probabilities[place, repeat, outside] = blend.values(logs[place])
        return outside, blends

    jobs = [(repeat, part) for repeat in range(repeats) for part in range(parts[repeat].max() + 1)]
    results = map_in_threads(fit, jobs, threads=max(1, MANY_LOGITS // pool.log_probabilities.size))
    first_repeat = tuple(result for result, (repeat, _) in zip(results, jobs, strict=True) if repeat == 0)
    return CrossFit(probabilities, first_repeat)


def map_in_threads(function: Callable, jobs: Sequence, *, threads: int = 1000) -> list:
    """The results of `function` for all jobs, in order, with at most one thread per core: NumPy releases the GIL."""
    with ThreadPoolExecutor(min(threads, len(os.sched_getaffinity(0)))) as executor:
        return list(executor.map(function, jobs))
