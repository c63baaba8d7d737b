"""Figures as SVG that takes its colours from the page: light, dark and print are one drawing.

Matplotlib draws with stand-in colours; each becomes a variable of the page's style sheet. Text stays text. Names are
drawn as they are: a `$` in a class is no formula.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# What is drawn -> what the page makes of it. The series are those of Okabe and Ito: told apart by the colour-blind.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b")
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"} | {
    colour: f"--series-{place}" for place, colour in enumerate(SERIES, start=1)
}
# As wide as a phone, so that nothing on it becomes too small to read.
WIDTH_INCHES = 4.2
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "os^DvPX"
# More lines than this are named by their recipes, and more recipes than this by nothing but the CSV.
MOST_NAMES = 12
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Line:
    """One run's course: what it is called, whose colour it has (its recipe's), and its points."""

    name: str
    family: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A score with its interval, on a line of its own; `marked` ones stand out."""

    name: str
    value: float
    low: float
    high: float
    marked: bool = False


def intervals(rows: Sequence[Interval], *, label: str) -> str:
    """Scores one below the other, each with its 95 % interval."""
    with _drawing("intervals", height=0.9 + 0.3 * len(rows)) as (figure, axes):
        for place, row in enumerate(reversed(rows)):
            colour = SERIES[0] if row.marked else INK
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=3 if row.marked else 1.5, alpha=0.7)
            axes.plot(row.value, place, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axes.set(xlabel=label, ylim=(-0.6, len(rows) - 0.4))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
        return _svg(figure)


def courses(lines: Sequence[Line], *, title: str, shares: bool) -> str:
    """One learning curve a run; `shares` are written in percent."""
    with _drawing(f"courses-{title}", height=3.2) as (figure, axes):
        families = list(dict.fromkeys(line.family for line in lines))
        by_family = len(lines) > MOST_NAMES
        for line in lines:
            place, seed = families.index(line.family), [one for one in lines if one.family == line.family].index(line)
            name = line.name if not by_family else line.family if seed == 0 else None
            axes.plot(
                line.x,
                line.y,
                color=SERIES[place % len(SERIES)],
                linestyle=DASHES[(seed + place // len(SERIES)) % len(DASHES)],
                marker=MARKERS[place % len(MARKERS)],
                markevery=[-1],
                markersize=4,
                label=name,
            )
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if shares:
            axes.yaxis.set_major_formatter(_percent())
        if len(families) <= MOST_NAMES:
            figure.legend(loc="outside lower center", ncols=2, fontsize=9, handlelength=3.5)
        return _svg(figure)


def finder(name: str, rates: Sequence[float], losses: Sequence[float], suggestions: dict[str, float]) -> str:
    """The learning-rate finder's curve, its suggestions marked."""
    losses = np.asarray(losses, float)
    with _drawing(f"finder-{name}", height=2.8) as (figure, axes):
        axes.plot(rates, losses, color=SERIES[0])
        axes.set_xscale("log")
        for place, (word, rate) in enumerate(suggestions.items(), start=1):
            at = float(np.interp(rate, rates, losses))
            axes.plot(rate, at, "o", color=SERIES[place % len(SERIES)], label=f"{word} {rate:.2g}", markersize=7)
        axes.set(xlabel="learning rate", ylabel="loss", title=name)
        axes.set_ylim(top=float(np.nanmax(losses[: max(len(losses) // 2, 1)])) * 1.15, auto=None)
        if suggestions:
            axes.legend(fontsize=9)
        return _svg(figure)


def reliability(before: np.ndarray, after: np.ndarray) -> str:
    """Accuracy over confidence, bins (n, 3) of confidence, accuracy, rows: before and after the temperature."""
    with _drawing("reliability", height=3.3) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=DASHES[1], label="as sure as right")
        for bins, colour, words, marker in (
            (before, SERIES[1], "before the temperature", "s"),
            (after, SERIES[0], "after", "o"),
        ):
            size = 20 + 180 * bins[:, 2] / max(bins[:, 2].max(), 1)
            axes.plot(bins[:, 0], bins[:, 1], color=colour, linewidth=1.2)
            axes.scatter(bins[:, 0], bins[:, 1], s=size, color=colour, label=words, alpha=0.8, marker=marker)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_percent())
        legend = axes.legend(fontsize=9, loc="upper left")
        for handle in legend.legend_handles[1:]:
            handle.set_sizes([40])
        return _svg(figure)


def shares(classes: Sequence[str], training: Sequence[float], predicted: Sequence[float]) -> str:
    """Each class's share of the training labels beside its share of the test predictions."""
    with _drawing("shares", height=0.9 + 0.34 * len(classes)) as (figure, axes):
        place = np.arange(len(classes))[::-1]
        axes.barh(place + 0.19, training, 0.36, color=FAINT, label="training labels")
        axes.barh(place - 0.19, predicted, 0.36, color=SERIES[0], label="test predictions")
        axes.set_yticks(place, [_short(name) for name in classes])
        axes.xaxis.set_major_formatter(_percent())
        axes.grid(axis="y", visible=False)
        axes.set_ylim(-0.6, len(classes) - 0.4)
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)
        return _svg(figure)


def against_leaderboard(points: Sequence[tuple[float, float, float | None]]) -> str:
    """Cross-fitted score (with its standard error, where known) against the public one, a point a submission."""
    crossed, public, errors = (np.array(column, float) for column in zip(*points, strict=True))
    with _drawing("leaderboard", height=3.2) as (figure, axes):
        ends = [float(np.nanmin([crossed.min(), public.min()])), float(np.nanmax([crossed.max(), public.max()]))]
        axes.axline((ends[0], ends[0]), slope=1, color=FAINT, linestyle=DASHES[1], label="equal")
        axes.errorbar(crossed, public, xerr=1.96 * np.nan_to_num(errors), fmt="o", color=SERIES[0], label="submission")
        axes.set(xlabel="cross-fitted, 95 % interval", ylabel="public leaderboard")
        axes.legend(fontsize=9)
        return _svg(figure)


def _percent() -> FuncFormatter:
    return FuncFormatter(lambda share, _: f"{100 * share:.6g} %")


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def _drawing(name: str, *, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure so many inches high; the same input gives the same bytes, and two figures of a page share no ids."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # text stays text: the browser has the letters
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r' (width|height)="[\d.]+pt"', "", drawn, count=2)
    asked = set(re.findall(r'(?:url\(|href=")#([\w-]+)', drawn))
    return re.sub(r"<[^>]*>", lambda tag: _themed(tag[0], asked), drawn).strip()


def _themed(tag: str, asked: set[str]) -> str:
    """A tag with the page's variables for colours, and without an id that nothing asks for; text is left alone."""
    tag = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in asked else "", tag)
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag
