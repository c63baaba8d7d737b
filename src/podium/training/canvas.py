"""Matplotlib figures without pyplot: no window, no global state, and not the user's own style."""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from podium.files import atomic_write

PLAIN_STYLE = matplotlib.rc_context(matplotlib.rcParamsDefault)
GREY = "#6b6b6b"
DOTS_PER_INCH = 150


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty white figure."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


@PLAIN_STYLE
def save_png(file: Path, figure: Figure) -> None:
    """Write a figure; a killed process leaves the old file or the new one."""
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png")
