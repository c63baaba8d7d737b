"""Podium: from a folder of labelled images to a submission that can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podium.report.frames import Frames

__version__ = "1.0.0"
# What a Makefile includes; to make, a blank without a backslash would be the end of the name.
RULES = str(Path(__file__).with_name("podium.mk")).replace(" ", r"\ ")


def load(competition: str, root: Path | str = ".") -> "Frames":
    """The runs of a competition and their blend as pandas frames; see `podium.report.frames.Frames`."""
    from podium.report.frames import Frames

    return Frames(competition, root)
