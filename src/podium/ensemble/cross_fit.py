"""Scores of blends on rows that had no say in them: repeated, stratified cross-fitting.

Everything that looks at labels (select, calibrate, weigh) happens on one part of the validation rows, the score on
the other; rows of one group lie on one side.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import Blend, Pool, blended, fit_blends
from podium.metrics import softmax
from podium.seeding import stream_seed

# Above this many logits in a pool, parts are worked through one by one: each of them needs its own copies.
MANY_LOGITS = 20_000_000


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What each wanted (strategy, average) says of every row, fitted without it."""

    wanted: tuple[tuple[str, str], ...]
    probabilities: np.ndarray  # (wanted, repeats, n, classes) float32
    uncalibrated: np.ndarray  # (wanted, n, classes) float32: the first repeat's, without the blend's temperature
    blends: tuple[tuple[np.ndarray, list[Blend]], ...]  # of the first repeat: rows, and what was fitted without them


def split_rows(labels: np.ndarray, groups: np.ndarray | None, settings: Ensemble) -> np.ndarray:
    """The part, from 0, that each row is scored in: (repeats, n). Parts have the classes in equal shares."""
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    label_of = np.zeros(count, np.int64)
    label_of[units[::-1]] = labels[::-1]  # a group's first row speaks for it
    parts = np.empty((settings.cross_fit_repeats, len(labels)), np.int64)
    for repeat in range(settings.cross_fit_repeats):
        draw = np.random.default_rng(stream_seed(settings.seed, f"cross-fit/{repeat}"))
        mixed = draw.permutation(count)
        order = mixed[np.argsort(label_of[mixed], kind="stable")]
        dealt = np.empty(count, np.int64)
        dealt[order] = np.arange(count) % min(settings.cross_fit_parts, count)
        parts[repeat] = dealt[units]
    return parts


def cross_fit(
    pool: Pool, parts: np.ndarray, wanted: Sequence[tuple[str, str]], settings: Ensemble, *, metric: str
) -> CrossFit:
    """Fit every wanted (strategy, average) on all parts but one and score it on that: parts (repeats, n)."""
    repeats, rows = parts.shape
    found = np.empty((len(wanted), repeats, rows, pool.log_probabilities.shape[2]), np.float32)
    first = np.empty_like(found[:, 0])

    def fit(job: tuple[int, int]) -> tuple[np.ndarray, list[Blend]]:
        repeat, part = job
        outside = np.flatnonzero(parts[repeat] == part)
        inside = np.flatnonzero(parts[repeat] != part)
        blends = fit_blends(pool.rows(inside), wanted, settings, metric=metric)
        logs = blended(blends, pool.log_probabilities[:, outside])
        found[:, repeat, outside] = softmax(logs / np.array([blend.temperature for blend in blends])[:, None, None])
        if repeat == 0:
            first[:, outside] = softmax(logs)
        return outside, blends

    jobs = [(repeat, part) for repeat in range(repeats) for part in range(parts[repeat].max() + 1)]
    done = side_by_side(fit, jobs, alone=pool.log_probabilities.size > MANY_LOGITS)
    fitted = tuple(one for one, (repeat, _) in zip(done, jobs, strict=True) if repeat == 0)
    return CrossFit(tuple(wanted), found, first, fitted)


def side_by_side(work: Callable, jobs: Sequence, *, alone: bool = False) -> list:
    """Results of all jobs in order, on all cores: NumPy lets other threads work meanwhile."""
    cores = 1 if alone else len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as workers:
        return list(workers.map(work, jobs))
