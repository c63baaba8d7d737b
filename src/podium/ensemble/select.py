"""Which runs are members: all above a threshold, and the best of each architecture."""

from collections.abc import Sequence
from dataclasses import dataclass

from podium.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """Whether a run is a member of the ensemble, and the reason."""

    run: str
    member: bool
    reason: str


def select(
    runs: Sequence[str],
    architectures: Sequence[str],
    *,
    accuracies: Sequence[float],
    threshold: float,
    best_per_architecture: int,
    everyone: bool = False,
) -> tuple[Choice, ...]:
    """Choose members by validation accuracy (0 to 1), in the order of `runs`.

    A run is a member if its accuracy is above the threshold, or if it is among the best of its architecture; of runs
    with equal accuracy, the first by name ranks higher. With `everyone` all runs are members. Raises ConfigError if
    no run is a member.
    """
    if everyone:
        return tuple(Choice(run, True, "all runs are members") for run in runs)
    choices = []
    for run, architecture, accuracy in zip(runs, architectures, accuracies, strict=True):
        order = sorted(
            (-other_accuracy, other)
            for other, other_architecture, other_accuracy in zip(runs, architectures, accuracies, strict=True)
            if other_architecture == architecture
        )
        rank = order.index((-accuracy, run)) + 1
        position = (
            f"rank {rank} of {len(order)} in its architecture" if len(order) > 1 else "only run of its architecture"
        )
        if accuracy > threshold:
            choices.append(Choice(run, True, f"above threshold {threshold:g}"))
        elif rank <= best_per_architecture:
            choices.append(Choice(run, True, position))
        else:
            choices.append(Choice(run, False, f"not above {threshold:g}; {position}"))
    if not any(choice.member for choice in choices):
        raise ConfigError(
            "No run is a member of the ensemble.",
            expected=f"[ensemble] threshold below {max(accuracies):.4f}, or best_per_architecture = 1",
            found=f"threshold = {threshold:g}, best_per_architecture = {best_per_architecture}",
            fix="edit [ensemble] in competition.toml",
        )
    return tuple(choices)
