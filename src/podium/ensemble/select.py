"""Which runs are members: all above a threshold, and the best of each architecture."""

from collections.abc import Sequence
from typing import NamedTuple

from podium.config.keys import Ensemble
from podium.errors import ConfigError


class Choice(NamedTuple):
    """Whether a run is a member of the ensemble, and the reason."""

    member: bool
    reason: str


def select(
    runs: Sequence[str], architectures: Sequence[str], accuracies: Sequence[float], settings: Ensemble
) -> list[Choice]:
    """Choose members by validation accuracy (0 to 1), in the order of `runs`.

    A run is a member if its accuracy is above the threshold, or if it is among the best of its architecture; of runs
    with equal accuracy, the first by name ranks higher. Raises ConfigError if no run is a member.
    """
    if settings.select == "all":
        return [Choice(True, "all runs are members")] * len(runs)
    choices = []
    ranking = sorted(zip([-accuracy for accuracy in accuracies], runs, architectures, strict=True))
    for run, architecture, accuracy in zip(runs, architectures, accuracies, strict=True):
        rivals = [other for _, other, other_architecture in ranking if other_architecture == architecture]
        rank = rivals.index(run) + 1
        position = f"rank {rank} of {len(rivals)} in its architecture"
        if len(rivals) == 1:
            position = "only run of its architecture"
        if accuracy > settings.threshold:
            choices.append(Choice(True, f"above threshold {settings.threshold:g}"))
        elif rank <= settings.best_per_architecture:
            choices.append(Choice(True, position))
        else:
            choices.append(Choice(False, f"not above {settings.threshold:g}; {position}"))
    if not any(choice.member for choice in choices):
        raise ConfigError(
            "No run is a member of the ensemble.",
            expected=f"[ensemble] threshold below {max(accuracies):.4f}, or best_per_architecture = 1",
            found=f"threshold = {settings.threshold:g}, best_per_architecture = {settings.best_per_architecture}",
            fix="edit [ensemble] in competition.toml",
        )
    return choices
