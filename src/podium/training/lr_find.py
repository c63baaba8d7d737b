"""What lr_find says of a recipe: a curve, suggestions, and the files that keep both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from fastai.callback.schedule import minimum, slide, steep, valley

from podium.errors import TrainingError

SUGGESTIONS = {"valley": valley, "slide": slide, "steep": steep, "minimum": minimum}
# What `learning_rate = "find"` and WRITE=1 take.
USED = "valley"
# fastai leaves out the first steps, whose mean loss is of few images, and the last, which diverge.
FIRST_STEPS, LAST_STEPS = 10, 5
# What its slide rule needs.
FEWEST_STEPS = 16


@dataclass(frozen=True)
class Finding:
    """A finished lr_find: the smoothed loss at each learning rate, and what fastai reads from it."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, float]
    seconds: float
    batch_size: int
    rows: int  # that it learned from

    @property
    def rate(self) -> float:
        """The suggestion that is used."""
        return self.suggestions[USED]


def finding_of(
    rates: Sequence[float], losses: Sequence[float], *, seconds: float, batch_size: int, rows: int
) -> Finding:
    """A curve with fastai's suggestions, up to the first loss that is no number.

    Raises TrainingError for a curve that nothing can be read from.
    """
    count = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    middle = slice(FIRST_STEPS, count - LAST_STEPS)
    some_rates, some_losses = (torch.tensor(list(one)[middle], dtype=torch.float64) for one in (rates, losses))
    if len(some_rates) < FEWEST_STEPS:
        found = f"{count} steps until the loss diverged" + (" or was no number" if count < len(losses) else "")
        raise TrainingError(
            "lr_find found no learning rate.",
            expected=f"a loss that is a number for {FIRST_STEPS + FEWEST_STEPS + LAST_STEPS} steps of rising rate",
            found=found,
            fix="`learning_rate` as a number, `gradient_clip = 1.0` or a smaller `muon_rate`, in the recipe",
        )
    suggestions = {name: float(read(some_rates, some_losses, count)[0]) for name, read in SUGGESTIONS.items()}
    return Finding(tuple(rates[:count]), tuple(losses[:count]), suggestions, seconds, batch_size, rows)
