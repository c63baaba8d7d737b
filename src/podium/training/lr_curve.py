"""The result of lr_find: its files, and the drawing that the PNG and the report share. Does not import torch."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from podium.files import atomic_write
from podium.training.canvas import GREY, PLAIN_STYLE, new_figure, save_png

# The suggestion that `learning_rate = "find"` and WRITE=1 use.
USED = "valley"
CURVE_COLOUR = "#30588c"
SUGGESTION_COLOURS = ("#b3261e", "#7a4fb5", "#1f7a4d", "#b06a00")


@dataclass(frozen=True)
class LrFindResult:
    """The smoothed loss at each learning rate, and the learning rates that fastai suggests."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, float]  # fastai's name of the rule -> learning rate
    seconds: float
    batch_size: int
    rows: int  # training rows

    @property
    def rate(self) -> float:
        """The suggestion that is used."""
        return self.suggestions[USED]


def plot_lr_curve(
    axes: Axes,
    rates: Sequence[float],
    losses: Sequence[float],
    suggestions: dict[str, float],
    *,
    curve_colour: str = CURVE_COLOUR,
    colours: Sequence[str] = SUGGESTION_COLOURS,
) -> None:
    """Plot the loss over the learning rate, and a marker for each suggestion."""
    axes.plot(rates, losses, color=curve_colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")  # the default labels are formulas
    for number, (name, rate) in enumerate(suggestions.items()):
        loss = float(np.interp(np.log(rate), np.log(rates), losses))
        label = f"{name} {rate:.2g}" + (", used" if name == USED else "")
        axes.plot(rate, loss, "os^D"[number % 4], color=colours[number % len(colours)], label=label, markersize=7)
    low, high = min(losses), max(losses[: max(len(losses) // 2, 1)])  # the loss diverges in the second half
    margin = (high - low) or 1.0
    axes.set_ylim(low - 0.08 * margin, high + 0.3 * margin)
    axes.set(xlabel="learning rate", ylabel="training loss, smoothed")
    if suggestions:
        axes.legend()


def write_lr_curve(folder: Path, recipe_name: str, result: LrFindResult) -> Path:
    """Write `<recipe>.csv`, `.json` and `.png` into `folder`; returns the PNG."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["learning_rate", "loss"])
    writer.writerows((f"{rate:.6g}", f"{loss:.6g}") for rate, loss in zip(result.rates, result.losses, strict=True))
    description = {
        "recipe": recipe_name,
        "suggestions": result.suggestions,
        "used": USED,
        "seconds": round(result.seconds, 1),
        "batch_size": result.batch_size,
    }
    for suffix, text in ((".csv", table.getvalue()), (".json", json.dumps(description, indent=2) + "\n")):
        with atomic_write(folder / f"{recipe_name}{suffix}") as stream:
            stream.write(text.encode())
    png_file = folder / f"{recipe_name}.png"
    save_png(png_file, _draw(recipe_name, result))
    return png_file


@PLAIN_STYLE
def _draw(recipe_name: str, result: LrFindResult) -> Figure:
    figure = new_figure(9, 5.4)
    axes = figure.add_axes((0.105, 0.12, 0.865, 0.75))
    plot_lr_curve(axes, result.rates, result.losses, result.suggestions)
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    steps = f"{len(result.rates)} steps of {min(result.batch_size, result.rows):,} images"
    figure.text(0.105, 0.945, f"{recipe_name}: lr_find", size=15, weight="bold", parse_math=False)
    figure.text(0.105, 0.895, f"{steps} in {result.seconds:.0f} s", size=11, color=GREY, parse_math=False)
    return figure
