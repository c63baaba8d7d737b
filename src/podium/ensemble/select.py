"""Which runs are members: all above a threshold, and the best of each architecture."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from podium.config.keys import Ensemble
from podium.errors import ConfigError
from podium.metrics import METRICS


class Choice(NamedTuple):
    """Whether a run is a member of the ensemble, and the reason."""

    member: bool
    reason: str


def select(
    runs: Sequence[str], architectures: Sequence[str], gains: Sequence[float], settings: Ensemble, *, metric: str
) -> list[Choice]:
    """Choose members by their gain, a validation score of which more is better, in the order of `runs`.

    A run is a member if its score is above the threshold, or if it is among the best of its architecture; of runs with
    equal scores, the first by name ranks higher. A metric of which less is better has no threshold.
    """
    if settings.select == "all":
        return [Choice(True, "all runs are members")] * len(runs)
    choices, ranks, counts = [], {}, Counter()
    has_threshold = METRICS[metric].greater_is_better
    for _, run, architecture in sorted(zip([-gain for gain in gains], runs, architectures, strict=True)):
        counts[architecture] += 1
        ranks[run] = counts[architecture]
    for run, architecture, gain in zip(runs, architectures, gains, strict=True):
        rank = ranks[run]
        position = f"rank {rank} of {counts[architecture]} in its architecture"
        if counts[architecture] == 1:
            position = "only run of its architecture"
        if has_threshold and gain > settings.threshold:
            choices.append(Choice(True, f"above threshold {settings.threshold:g}"))
        elif rank <= settings.best_per_architecture:
            choices.append(Choice(True, position))
        else:
            choices.append(
                Choice(False, f"not above {settings.threshold:g}; {position}" if has_threshold else position)
            )
    return choices


def check_members(choices: Sequence[Choice], settings: Ensemble) -> None:
    """Raise ConfigError if no run is a member."""
    if not any(choice.member for choice in choices):
        raise ConfigError(
            "No run is a member of the ensemble.",
            expected="a [ensemble] threshold that some run reaches, or best_per_architecture = 1",
            found=f"threshold = {settings.threshold:g}, best_per_architecture = {settings.best_per_architecture}",
            fix="edit [ensemble] in competition.toml",
        )
