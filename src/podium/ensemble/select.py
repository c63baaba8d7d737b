"""Which runs are members: all above a threshold, and the best of each architecture."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from podium.ensemble.pool import Pool


def select(pool: Pool, gains: Sequence[float]) -> tuple[np.ndarray, list[str]]:
    """Choose members by their gains: (runs,) bool, and the reason for each run.

    A run is a member if its score is above the threshold, or if it is among the best of its architecture; of runs with
    equal scores, the first by name ranks higher. A metric of which less is better has no threshold.
    """
    settings, architectures = pool.settings, [about["architecture"] for about in pool.abouts]
    members, reasons = np.ones(len(pool.runs), bool), ["all runs are members"] * len(pool.runs)
    if settings.select == "all":
        return members, reasons
    totals, counts = Counter(architectures), Counter()
    limit = f"{settings.threshold:g}" if pool.measure.greater_is_better else ""
    rows = zip([-gain for gain in gains], pool.runs, architectures, range(len(pool.runs)), strict=True)
    for loss, _, architecture, place in sorted(rows):
        counts[architecture] += 1
        rank, total = counts[architecture], totals[architecture]
        position = f"rank {rank} of {total} in its architecture" if total > 1 else "only run of its architecture"
        is_above, is_best = limit and -loss > settings.threshold, rank <= settings.best_per_architecture
        members[place] = is_above or is_best
        others = position if is_best or not limit else f"not above {limit}; {position}"
        reasons[place] = f"above threshold {limit}" if is_above else others
    return members, reasons
