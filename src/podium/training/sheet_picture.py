"""Pictures to look at before training: a sheet of training images, and the curve of lr_find.

Drawn without pyplot: no window, no state, and nobody's own style (the Agg backend on a light background).
"""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from podium.training.canvas import DOTS_PER_INCH, GREY, PLAIN_STYLE, _figure
from podium.training.sheet import Sheet

# Inches of a sheet: one image with its gap, the gap, the names at the left, the titles above.
CELL, GAP, NAMES, TITLES, MARGIN = 1.15, 0.07, 2.2, 1.35, 0.2
# A label above an image that is mixed of two.
MIXED = 0.32
NAME_CHARACTERS, TITLE_CHARACTERS = 18, 150


class _Page:
    """A figure that is written and drawn on in inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = _figure(width, height)

    def write(self, x: float, y: float, text: str, *, room: float, **style: object) -> None:
        """Text as it is, no markup, no wider than `room`."""
        _shorten(self.figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style), room)

    def draw(self, x: float, y: float, image: np.ndarray) -> None:
        """An image in its cell; each pixel stays a square as long as there is room."""
        side = CELL - GAP
        box = (x / self.width, 1 - (y + side) / self.height, side / self.width, side / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest" if len(image) <= side * DOTS_PER_INCH else "hanning")


@PLAIN_STYLE
def draw_sheet(sheet: Sheet) -> Figure:
    """One row an image: its class and id, the stored pixels, and each draw that training would see."""
    row = CELL + (MIXED if sheet.mixed else 0)
    columns = [sheet.stored, *sheet.draws]
    page = _Page(NAMES + len(columns) * CELL + MARGIN, TITLES + len(sheet.ids) * row + MARGIN)
    room = page.width - 2 * MARGIN
    title = f"{sheet.competition}: what the network of {sheet.run} sees"
    page.write(MARGIN, 0.2, title, room=room, size=15, weight="bold", va="top")
    words = _in_two_lines(sheet.words, TITLE_CHARACTERS)
    page.write(MARGIN, 0.52, words, room=room, size=10.5, color=GREY, va="top")
    for place, images in enumerate(columns):
        name = "stored" if place == 0 else f"draw {place}"
        x = NAMES + place * CELL + (CELL - GAP) / 2
        page.write(x, TITLES - 0.06, f"{name}\n{images.shape[1]} px", room=CELL, size=10, ha="center", va="bottom")
    for line in range(len(sheet.ids)):
        _draw_row(page, sheet, line, top=TITLES + (line + 1) * row - CELL)
    return page.figure


def _draw_row(page: _Page, sheet: Sheet, line: int, *, top: float) -> None:
    x, y = NAMES - 0.15, top + (CELL - GAP) / 2
    name, style = _in_two_lines(sheet.labels[line], NAME_CHARACTERS), {"room": x - MARGIN, "ha": "right"}
    page.write(x, y, name, size=11.5, weight="bold", va="bottom", **style)
    page.write(x, y + 0.06, sheet.ids[line], size=8, color=GREY, va="top", **style)
    page.draw(NAMES, top, sheet.stored[line])
    for place, images in enumerate(sheet.draws, 1):
        left = NAMES + place * CELL
        page.draw(left, top, images[line])
        if sheet.mixed:
            mixed = "\n".join(f"{share:.2f} {name}" for name, share in sheet.mixtures[place - 1][line])
            page.write(left, top - 0.04, mixed, room=CELL - GAP, size=8, va="bottom", linespacing=1.0)


def _in_two_lines(text: str, characters: int) -> str:
    first = textwrap.wrap(text, characters)[0]
    return "\n".join(line for line in (first, text.removeprefix(first).strip()) if line)


def _shorten(written: Text, most_inches: float) -> None:
    """Take letters out of the middle of a text's longest line until it is no wider."""
    while written.get_window_extent().width > most_inches * DOTS_PER_INCH:
        lines = written.get_text().split("\n")
        longest = max(lines, key=len)
        tail = (len(longest) - 2) // 3
        head = len(longest) - 2 - tail
        lines[lines.index(longest)] = f"{longest[:head]}…{longest[len(longest) - tail :]}"
        written.set_text("\n".join(lines))
