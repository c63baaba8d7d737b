"""Which runs are members: all above a threshold, and the best of each architecture."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from podium.ensemble.pool import Pool
from podium.errors import ConfigError


class Choice(NamedTuple):
    """Whether a run is a member of the ensemble, and the reason."""

    member: bool
    reason: str


def select(pool: Pool, gains: Sequence[float]) -> list[Choice]:
    """Choose members by their gains, in the order of the pool's runs.

    A run is a member if its score is above the threshold, or if it is among the best of its architecture; of runs with
    equal scores, the first by name ranks higher. A metric of which less is better has no threshold.
    """
    settings, architectures = pool.settings, [about["architecture"] for about in pool.abouts]
    if settings.select == "all":
        return [Choice(True, "all runs are members")] * len(pool.runs)
    totals, counts, choices = Counter(architectures), Counter(), {}
    limit = f"{settings.threshold:g}" if pool.measure.greater_is_better else ""
    for loss, run, architecture in sorted(zip([-gain for gain in gains], pool.runs, architectures, strict=True)):
        counts[architecture] += 1
        rank, total = counts[architecture], totals[architecture]
        position = f"rank {rank} of {total} in its architecture" if total > 1 else "only run of its architecture"
        is_best = rank <= settings.best_per_architecture
        if limit and -loss > settings.threshold:
            choices[run] = Choice(True, f"above threshold {limit}")
        else:
            choices[run] = Choice(is_best, position if is_best or not limit else f"not above {limit}; {position}")
    return [choices[run] for run in pool.runs]


def check_members(choices: Sequence[Choice], pool: Pool) -> None:
    """Raise ConfigError if no run is a member."""
    threshold, best = pool.settings.threshold, pool.settings.best_per_architecture
    if not any(choice.member for choice in choices):
        raise ConfigError(
            "No run is a member of the ensemble.",
            expected="a [ensemble] threshold that some run reaches, or best_per_architecture = 1",
            found=f"threshold = {threshold:g}, best_per_architecture = {best}",
            fix="edit [ensemble] in competition.toml",
        )
