"""Figures as SVG text, with colours from the page's style sheet: one drawing fits light, dark and print.

Matplotlib draws with placeholder colours, which are then replaced. Text stays text, and class names are drawn
literally: `$` does not start a formula.
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from podium.training.drawing import plot_lr_curve

# Placeholder colours, of which figures.mplstyle has INK and FAINT too, and the page's variables that replace them.
# The series are Okabe and Ito's, which colour-blind readers can tell apart.
INK, FAINT = "#010203", "#040506"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b")
VARIABLES = {INK: "--ink", FAINT: "--faint"} | {colour: f"--series-{k}" for k, colour in enumerate(SERIES, start=1)}
# The width of a phone: no text becomes too small to read there.
WIDTH_INCHES = 4.2
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MARKERS = "os^DvPX"
# The legend names runs; with more curves than this recipes; with more recipes than this nothing.
MOST_LEGEND_ENTRIES = 12
MOST_POINTS = 1000
MOST_NAME_CHARACTERS, ELLIPSIS = 24, "\N{HORIZONTAL ELLIPSIS}"
STYLE = Path(__file__).with_name("figures.mplstyle")
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g} %")


def interval_chart(strategies: pd.DataFrame, *, highlighted: str, metric: str) -> str:
    """Cross-fitted scores of strategies with their 95 % intervals, where these are known (low, high)."""
    rows = strategies.dropna(subset="low")[::-1]
    with _figure("intervals", height=0.9 + 0.3 * len(rows)) as (figure, axes):
        columns = (rows[name] for name in ("strategy", "cross-fitted", "low", "high"))
        for y, (name, score, low, high) in enumerate(zip(*columns, strict=True)):
            colour, width = (SERIES[0], 3) if name == highlighted else (INK, 1.5)
            axes.plot([low, high], [y, y], color=colour, linewidth=width, alpha=0.7)
            axes.plot(score, y, "o", color=colour, markersize=6)
        _name_rows(axes, rows["strategy"])
        axes.set(xlabel=f"cross-fitted {metric}, 95 % interval")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def learning_curves(epochs: pd.DataFrame, column: str) -> str:
    """A curve of `column` over the epoch for each run; columns `run` and `epoch`, an epoch per row."""
    curves = dict(list(epochs.dropna(subset=column).groupby("run", sort=False)))
    recipes = list(dict.fromkeys(map(_recipe_of, curves)))
    seeds: Counter[str] = Counter()  # of each recipe so far
    with _figure(f"curves-{column}", height=3.2) as (figure, axes):
        for run, curve in curves.items():
            recipe = _recipe_of(run)
            number, seed = recipes.index(recipe), seeds[recipe]
            axes.plot(
                curve["epoch"],
                curve[column],
                color=SERIES[number % len(SERIES)],
                linestyle=DASHES[(seed + number // len(SERIES)) % len(DASHES)],
                marker=MARKERS[number % len(MARKERS)],
                markevery=[-1],
                markersize=4,
                label=run if len(curves) <= MOST_LEGEND_ENTRIES else None if seed else recipe,
            )
            seeds[recipe] += 1
        axes.set(title=column, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if column == "validation accuracy":
            axes.yaxis.set_major_formatter(PERCENT)
        if len(recipes) <= MOST_LEGEND_ENTRIES:
            figure.legend(loc="outside lower center", ncols=2, handlelength=3.5)
        return _svg(figure)


def lr_curve(recipe: str, curve: pd.DataFrame, suggestions: dict[str, float]) -> str:
    """The loss over the learning rate as lr_find measured it, with its suggestions."""
    with _figure(f"lr-find-{recipe}", height=2.8) as (figure, axes):
        plot_lr_curve(axes, curve["learning rate"].to_numpy(), curve["loss"].to_numpy(), suggestions)
        axes.set_title(recipe)
        return _svg(figure)


def reliability_diagram(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """Accuracy over confidence, before and after the temperature; bins of confidence, accuracy, rows."""
    with _figure("reliability", height=3.3) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=FAINT, linestyle=DASHES[1], label="perfect calibration")
        for bins, colour, state, marker in ((before, SERIES[1], "before", "s"), (after, SERIES[0], "after", "o")):
            style = {"s": 20 + 180 * bins["rows"] / max(bins["rows"].max(), 1), "marker": marker, "alpha": 0.8}
            axes.plot(bins["confidence"], bins["accuracy"], color=colour, linewidth=1.2)
            axes.scatter(bins["confidence"], bins["accuracy"], color=colour, label=f"{state} temperature", **style)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.03), ylim=(0, 1.05))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PERCENT)
        legend = figure.legend(loc="outside lower center", ncols=2)
        for handle in legend.legend_handles[1:]:
            handle.set_sizes([40])
        return _svg(figure)


def class_shares(shares: pd.DataFrame) -> str:
    """Each class's share of the training labels beside its share of the test predictions."""
    with _figure("class-shares", height=0.9 + 0.34 * len(shares)) as (figure, axes):
        shares, y = shares[::-1], np.arange(len(shares))
        axes.barh(y + 0.19, shares["training"], 0.36, color=FAINT, label="training labels")
        axes.barh(y - 0.19, shares["predicted"], 0.36, color=SERIES[0], label="test predictions")
        is_long = shares["class"].str.len() > MOST_NAME_CHARACTERS
        _name_rows(axes, shares["class"].mask(is_long, shares["class"].str[: MOST_NAME_CHARACTERS - 1] + ELLIPSIS))
        axes.xaxis.set_major_formatter(PERCENT)
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure)


def predicted_over_true(values: np.ndarray, labels: np.ndarray) -> str:
    """Predicted numbers (n,) over true ones, a point per row, of at most MOST_POINTS rows."""
    with _figure("predicted-true", height=3.3) as (figure, axes):
        axes.axline((labels.mean(), labels.mean()), slope=1, color=FAINT, linestyle=DASHES[1], label="equal")
        step = -(-len(labels) // MOST_POINTS)
        axes.plot(labels[::step], values[::step], "o", color=SERIES[0], markersize=3, alpha=0.5, markeredgewidth=0)
        axes.set(xlabel="true", ylabel="predicted")
        axes.legend()
        return _svg(figure)


def residual_histogram(residuals: np.ndarray) -> str:
    """How many rows have which residual, predicted - true, (n,)."""
    with _figure("residuals", height=3.3) as (figure, axes):
        axes.hist(residuals, bins=min(40, max(5, len(residuals) // 10)), color=SERIES[0], alpha=0.8)
        axes.axvline(0, color=FAINT, linestyle=DASHES[1])
        axes.set(xlabel="predicted - true", ylabel="rows")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure)


def leaderboard_chart(scores: pd.DataFrame) -> str:
    """Public over cross-fitted score, a point per submission; columns cross-fitted, public, standard error or NaN."""
    with _figure("leaderboard", height=3.2) as (figure, axes):
        lowest = float(scores[["cross-fitted", "public"]].min(axis=None))
        axes.axline((lowest, lowest), slope=1, color=FAINT, linestyle=DASHES[1], label="equal scores")
        style = {"xerr": 1.96 * scores["standard error"].fillna(0), "fmt": "o", "color": SERIES[0]}
        axes.errorbar(scores["cross-fitted"], scores["public"], label="submission", **style)
        axes.set(xlabel="cross-fitted score, 95 % interval", ylabel="public score")
        axes.legend()
        return _svg(figure)


def _recipe_of(run: str) -> str:
    return run.rpartition(".")[0] or run


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a chart from bottom to top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)


@contextmanager
def _figure(name: str, *, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `height` inches. Ids in the SVG depend on `name`: repeatable, and unique on the page."""
    with matplotlib.rc_context({"svg.hashsalt": name}, STYLE), warnings.catch_warnings():
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

    def themed(tag: re.Match) -> str:
        """A tag with the page's variables as colours and without an unused id; text between tags is not changed."""
        text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used_ids else "", tag[0])
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var({variable})")
        return text

    return re.sub(r"<[^>]*>", themed, svg).strip()
