"""PNG files, and the result of lr_find, whose drawing the PNG and the report share. Does not import torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from podium.files import atomic_write, write_file

# Whatever the user's own style; text is drawn literally, `$` does not start a formula.
PNG_STYLE = matplotlib.rc_context(
    matplotlib.rcParamsDefault | {"text.parse_math": False, "figure.dpi": 150, "figure.facecolor": "white"}
)
# The suggestion that `learning_rate = "find"` and WRITE=1 use.
USED = "valley"
# Okabe and Ito's, which colour-blind readers can tell apart: the curve, then the suggestions.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


@PNG_STYLE
def save_png(file: Path, figure: Figure) -> None:
    """Write a figure; a killed process leaves the old file or the new one."""
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png")


@dataclass(frozen=True)
class LrFindResult:
    """The smoothed loss at each learning rate, and the learning rates that fastai suggests."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, float]  # fastai's name of the rule -> learning rate

    @property
    def rate(self) -> float:
        """The suggestion that is used."""
        return self.suggestions[USED]


def plot_lr_curve(axes: Axes, rates: Sequence[float], losses: Sequence[float], suggestions: dict[str, float]) -> None:
    """Plot the loss over the learning rate, and a marker for each suggestion."""
    axes.plot(rates, losses, color=COLOURS[0])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))  # more labels would overlap on a phone
    axes.xaxis.set_major_formatter("{x:g}")  # the default labels are formulas
    axes.xaxis.set_minor_formatter(NullFormatter())
    for (name, rate), colour, marker in zip(suggestions.items(), COLOURS[1:], "os^D", strict=False):
        loss = float(np.interp(np.log(rate), np.log(rates), losses))
        # Suggestions can be equal: the one that is used is filled, small and in front, the others are rings around it.
        is_used = name == USED
        style = {"markersize": 6, "zorder": 3} if is_used else {"markersize": 11, "fillstyle": "none"}
        axes.plot(rate, loss, marker, color=colour, label=f"{name} {rate:.2g}" + ", used" * is_used, **style)
    low, high = min(losses), max(losses[: max(len(losses) // 2, 1)])  # the loss diverges in the second half
    margin = (high - low) or 1.0
    axes.set_ylim(low - 0.08 * margin, high + 0.3 * margin)
    axes.set(xlabel="learning rate", ylabel="training loss, smoothed")
    if suggestions:
        axes.legend()


@PNG_STYLE
def write_lr_curve(folder: Path, name: str, result: LrFindResult) -> Path:
    """Write `<name>.csv`, `.json` and `.png` into `folder`, for a recipe or a run; returns the PNG."""
    rows = [f"{rate:.6g},{loss:.6g}\n" for rate, loss in zip(result.rates, result.losses, strict=True)]
    description = {"name": name, "suggestions": result.suggestions, "used": USED}
    write_file(folder / f"{name}.csv", "".join(["learning_rate,loss\n", *rows]).encode())
    write_file(folder / f"{name}.json", (json.dumps(description, indent=2) + "\n").encode())
    figure, png_file = Figure(figsize=(9, 5.4), layout="constrained"), folder / f"{name}.png"
    axes = figure.subplots()
    plot_lr_curve(axes, result.rates, result.losses, result.suggestions)
    axes.grid(color="#e4e4e4")
    axes.set_title(f"lr_find of {name}: {len(result.rates)} steps", loc="left")
    save_png(png_file, figure)
    return png_file
