"""The kinds of target by their names in competition.toml."""

from collections.abc import Sequence

from podium.targets.base import Target
from podium.targets.multi_label import MultiLabel
from podium.targets.number import Number, Ordinal

TARGETS = {kind.name: kind for kind in (Target, MultiLabel, Ordinal, Number)}


def target_of(name: str, classes: Sequence[str]) -> Target:
    """The target `name` of [data] with these classes."""
    return TARGETS[name](len(classes))
