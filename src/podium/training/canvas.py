"""Figures without pyplot, written as PNG."""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from podium.files import atomic_write

PLAIN_STYLE = matplotlib.rc_context(matplotlib.rcParamsDefault)
GREY, LINE = "#6b6b6b", "#30588c"
DOTS_PER_INCH = 150


@PLAIN_STYLE
def save_png(file: Path, figure: Figure) -> None:
    """Write a figure, whole or not at all."""
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png")


def _figure(width_inches: float, height_inches: float) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure
