"""PNG files of matplotlib figures, whatever the user's own style."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from podium.files import atomic_write

# Text is drawn literally: `$` does not start a formula.
PNG_STYLE = matplotlib.rc_context(
    matplotlib.rcParamsDefault | {"text.parse_math": False, "figure.dpi": 150, "figure.facecolor": "white"}
)


@PNG_STYLE
def save_png(file: Path, figure: Figure) -> None:
    """Write a figure; a killed process leaves the old file or the new one."""
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png")
