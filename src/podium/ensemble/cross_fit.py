"""Scores of blends on rows that were not used to fit them: repeated, stratified cross-fitting.

Everything that looks at labels (selection, temperatures, weights) uses all parts of the validation rows except one,
and is scored on that part. Rows of one group are always in the same part.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from podium.ensemble.blend import Blend, blended, fit_blends
from podium.ensemble.pool import Pool

# Logits of all pools that are fitted side by side: each needs its own copies.
MANY_LOGITS = 20_000_000


@dataclass(frozen=True, eq=False)
class Candidate:
    """A strategy with a kind of average: its blend, and what blends that were fitted without a row predict for it."""

    blend: Blend  # fitted on all rows
    predicted: np.ndarray  # (repeats, n, classes) float32
    parts: list[tuple[np.ndarray, Blend]]  # of the first repeat: rows, and the blend that was fitted without them

    def uncalibrated(self, pool: Pool) -> np.ndarray:
        """The probabilities (n, classes) of the first repeat, without temperature and cut points."""
        probabilities = np.empty_like(self.predicted[0])
        for rows, blend in self.parts:
            probabilities[rows] = replace(blend, temperature=1.0, cuts=None).probabilities(pool.logs[:, rows])
        return probabilities


def cross_fit(pool: Pool, pairs: Sequence[tuple[str, str]]) -> list[Candidate]:
    """Fit each pair (strategy, average) on all rows, and on all parts except one, whose rows it then predicts."""
    parts = pool.parts()
    predicted = np.empty((len(pairs), *parts.shape, pool.target.value_width), np.float32)

    def fit(repeat: int, part: int) -> tuple[np.ndarray, list[Blend]]:
        outside, inside = np.flatnonzero(parts[repeat] == part), np.flatnonzero(parts[repeat] != part)
        blends = fit_blends(pool.of_rows(inside), pairs)
        for place, logs in enumerate(blended(blends, pool.logs[:, outside])):
            predicted[place, repeat, outside] = blends[place].values(logs)
        return outside, blends

    jobs = [partial(fit, repeat, part) for repeat, row in enumerate(parts) for part in range(row.max() + 1)]
    threads = max(1, MANY_LOGITS // pool.logs.size)
    whole, *fitted = map_in_threads(lambda job: job(), [partial(fit_blends, pool, pairs), *jobs], threads=threads)
    first_repeat = fitted[: parts[0].max() + 1]
    return [
        Candidate(blend, predicted[place], [(rows, blends[place]) for rows, blends in first_repeat])
        for place, blend in enumerate(whole)
    ]


def map_in_threads(function: Callable, jobs: Sequence, *, threads: int = 1000) -> list:
    """The results of `function` for all jobs, in order, with at most one thread per core: NumPy releases the GIL."""
    with ThreadPoolExecutor(min(threads, len(os.sched_getaffinity(0)))) as executor:
        return list(executor.map(function, jobs))
