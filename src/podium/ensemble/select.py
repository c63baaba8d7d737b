"""Which runs are members: everyone above the threshold, and the best of each architecture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from podium.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """Whether a run is a member, and why, in words."""

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

    A run is a member if its accuracy is above the threshold or it is among the best of its architecture; of
    equal runs the one whose name sorts first is the better. With `everyone` all are members. Raises ConfigError
    where nobody is a member.
    """
    if everyone:
        return tuple(Choice(run, True, "every run is a member") for run in runs)
    places = _places(runs, architectures, accuracies)
    choices, sizes = [], Counter(architectures)
    for run, architecture, accuracy in zip(runs, architectures, accuracies, strict=True):
        place, of_kind = places[run], sizes[architecture]
        rank = "the only" if of_kind == 1 else f"number {place} of {of_kind} by accuracy of"
        if accuracy > threshold:
            choices.append(Choice(run, True, f"{accuracy:.4f} is above the threshold {threshold:g}"))
        elif place <= best_per_architecture:
            choices.append(Choice(run, True, f"{rank} {architecture}; {accuracy:.4f}, threshold {threshold:g}"))
        else:
            choices.append(Choice(run, False, f"{accuracy:.4f} is not above {threshold:g}; {rank} {architecture}"))
    if not any(choice.member for choice in choices):
        raise ConfigError(
            "No run is a member of the ensemble.",
            expected=f"[ensemble] threshold below {max(accuracies):.4f}, or best_per_architecture = 1",
            found=f"threshold = {threshold:g}, best_per_architecture = {best_per_architecture}",
            fix="edit [ensemble] in competition.toml",
        )
    return tuple(choices)


def _places(runs: Sequence[str], architectures: Sequence[str], accuracies: Sequence[float]) -> dict[str, int]:
    """Run -> its place within its architecture, from 1."""
    places: dict[str, int] = {}
    seen: dict[str, int] = {}
    for _, run, architecture in sorted(zip([-a for a in accuracies], runs, architectures, strict=True)):
        places[run] = seen[architecture] = seen.get(architecture, 0) + 1
    return places
