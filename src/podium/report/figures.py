"""Figures as SVG text, with colours from the page's style sheet: one drawing fits light, dark and print.

Matplotlib draws with placeholder colours, which are then replaced. Text stays text, and class names are drawn
literally: `$` does not start a formula.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from podium.training.drawing import plot_lr_curve

# Placeholder colour -> variable of the page. The series are Okabe and Ito's, which colour-blind readers can tell apart.
INK, FAINT = "#010203", "#040506"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b")
VARIABLES = {INK: "--ink", FAINT: "--faint"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)
}
# The width of a phone: no text becomes too small to read there.
WIDTH_INCHES = 4.2
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "os^DvPX"
# The legend names runs; with more curves than this recipes; with more recipes than this nothing.
MOST_LEGEND_ENTRIES = 12
MOST_NAME_CHARACTERS = 24
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
    "legend.fontsize": 9,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g} %")


def interval_chart(rows: Sequence[tuple[str, float, float, float]], *, highlighted: str, label: str) -> str:
    """Scores with their 95 % intervals, one row (name, score, low, high) per line."""
    with _figure("intervals", height=0.9 + 0.3 * len(rows)) as (figure, axes):
        for y, (name, score, low, high) in enumerate(reversed(rows)):
            colour, width = (SERIES[0], 3) if name == highlighted else (INK, 1.5)
            axes.plot([low, high], [y, y], color=colour, linewidth=width, alpha=0.7)
            axes.plot(score, y, "o", color=colour, markersize=6)
        _name_rows(axes, [name for name, *_ in rows])
        axes.set(xlabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def learning_curves(curves: dict[str, list[tuple[int, float]]], *, title: str, percent: bool) -> str:
    """The points (epoch, value) of each run as a curve; with `percent` the values are shares."""
    seeds: dict[str, list[str]] = {}  # recipe -> its runs
    for run in curves:
        seeds.setdefault(run.rpartition(".")[0] or run, []).append(run)
    with _figure(f"curves-{title}", height=3.2) as (figure, axes):
        for number, (recipe, runs) in enumerate(seeds.items()):
            for seed, run in enumerate(runs):
                recipe_label = recipe if seed == 0 else None
                axes.plot(
                    *zip(*curves[run], strict=True),
                    color=SERIES[number % len(SERIES)],
                    linestyle=DASHES[(seed + number // len(SERIES)) % len(DASHES)],
                    marker=MARKERS[number % len(MARKERS)],
                    markevery=[-1],
                    markersize=4,
                    label=run if len(curves) <= MOST_LEGEND_ENTRIES else recipe_label,
                )
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            axes.yaxis.set_major_formatter(PERCENT)
        if len(seeds) <= MOST_LEGEND_ENTRIES:
            figure.legend(loc="outside lower center", ncols=2, handlelength=3.5)
        return _svg(figure)


def lr_curve(recipe: str, points: Sequence[tuple[float, float]], suggestions: dict[str, float]) -> str:
    """The loss over the learning rate as lr_find measured it (rate, loss), with its suggestions."""
    rates, losses = zip(*points, strict=True)
    with _figure(f"lr-find-{recipe}", height=2.8) as (figure, axes):
        plot_lr_curve(axes, rates, losses, suggestions)
        axes.set_title(recipe)
        return _svg(figure)


def reliability_diagram(before: np.ndarray, after: np.ndarray) -> str:
    """Accuracy over confidence, before and after the temperature; bins (n, 3) of confidence, accuracy, rows."""
    with _figure("reliability", height=3.3) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=DASHES[1], label="perfect calibration")
        for bins, colour, label, marker in (
            (before, SERIES[1], "before temperature", "s"),
            (after, SERIES[0], "after temperature", "o"),
        ):
            sizes = 20 + 180 * bins[:, 2] / max(bins[:, 2].max(), 1)
            axes.plot(bins[:, 0], bins[:, 1], color=colour, linewidth=1.2)
            axes.scatter(bins[:, 0], bins[:, 1], s=sizes, color=colour, label=label, alpha=0.8, marker=marker)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PERCENT)
        legend = figure.legend(loc="outside lower center", ncols=2)
        for handle in legend.legend_handles[1:]:
            handle.set_sizes([40])
        return _svg(figure)


def class_shares(classes: Sequence[str], training: Sequence[float], predicted: Sequence[float]) -> str:
    """Each class's share of the training labels beside its share of the test predictions."""
    with _figure("class-shares", height=0.9 + 0.34 * len(classes)) as (figure, axes):
        y = np.arange(len(classes))[::-1]
        axes.barh(y + 0.19, training, 0.36, color=FAINT, label="training labels")
        axes.barh(y - 0.19, predicted, 0.36, color=SERIES[0], label="test predictions")
        _name_rows(axes, [_shortened(name) for name in classes])
        axes.xaxis.set_major_formatter(PERCENT)
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure)


def leaderboard_chart(points: Sequence[tuple[float, float, float]]) -> str:
    """Public over cross-fitted score, one point (cross-fitted, public, standard error or NaN) per submission."""
    cross_fitted, public, errors = np.array(points).T
    with _figure("leaderboard", height=3.2) as (figure, axes):
        lowest = float(min(cross_fitted.min(), public.min()))
        axes.axline((lowest, lowest), slope=1, color=FAINT, linestyle=DASHES[1], label="equal scores")
        half_widths = 1.96 * np.nan_to_num(errors)
        axes.errorbar(cross_fitted, public, xerr=half_widths, fmt="o", color=SERIES[0], label="submission")
        axes.set(xlabel="cross-fitted score, 95 % interval", ylabel="public score")
        axes.legend()
        return _svg(figure)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart from top to bottom."""
    axes.set_yticks(range(len(names))[::-1], names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)


def _shortened(name: str) -> str:
    return name if len(name) <= MOST_NAME_CHARACTERS else f"{name[: MOST_NAME_CHARACTERS - 1]}\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def _figure(name: str, *, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `height` inches. Ids in the SVG depend on `name`: repeatable, and unique on the page."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has letters that Matplotlib's font lacks
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    used_ids = set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg))
    return re.sub(r"<[^>]*>", lambda tag: _themed(tag[0], used_ids), svg).strip()


def _themed(tag: str, used_ids: set[str]) -> str:
    """A tag with the page's variables as colours and without an unused id; text between tags is not changed."""
    tag = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used_ids else "", tag)
    for colour, variable in VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag
