"""The picture of a sheet: one row per image, one column per draw."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from podium.training.canvas import DOTS_PER_INCH, GREY, PLAIN_STYLE, new_figure
from podium.training.sheet import Sheet

# Inches: an image with its gap, the gap, the column of names, the rows of titles, the margin.
CELL, GAP, NAMES, TITLES, MARGIN = 1.15, 0.07, 2.2, 1.35, 0.2
# Inches above a mixed image, for its label.
MIXED = 0.32
NAME_CHARACTERS, TITLE_CHARACTERS = 18, 150


class _Page:
    """A figure whose coordinates are inches from the upper left corner."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = new_figure(width, height)

    def write(self, x: float, y: float, text: str, *, room: float, **style: object) -> None:
        """Write text without markup, shortened to `room` inches."""
        _shorten(self.figure.text(x / self.width, 1 - y / self.height, text, parse_math=False, **style), room)

    def draw(self, x: float, y: float, image: np.ndarray) -> None:
        """Draw an image in its cell; small images keep sharp pixels."""
        side = CELL - GAP
        box = (x / self.width, 1 - (y + side) / self.height, side / self.width, side / self.height)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(image, interpolation="nearest" if len(image) <= side * DOTS_PER_INCH else "hanning")


@PLAIN_STYLE
def draw_sheet(sheet: Sheet) -> Figure:
    """One row per image: its class and id, the stored pixels, and each draw of the training loader."""
    row = CELL + (MIXED if sheet.mixed else 0)
    columns = [sheet.stored, *sheet.draws]
    page = _Page(NAMES + len(columns) * CELL + MARGIN, TITLES + len(sheet.ids) * row + MARGIN)
    room = page.width - 2 * MARGIN
    title = f"{sheet.competition}: training images of {sheet.run}"
    page.write(MARGIN, 0.2, title, room=room, size=15, weight="bold", va="top")
    description = _two_lines(sheet.description, TITLE_CHARACTERS)
    page.write(MARGIN, 0.52, description, room=room, size=10.5, color=GREY, va="top")
    for column, images in enumerate(columns):
        name = "stored" if column == 0 else f"draw {column}"
        x = NAMES + column * CELL + (CELL - GAP) / 2
        page.write(x, TITLES - 0.06, f"{name}\n{images.shape[1]} px", room=CELL, size=10, ha="center", va="bottom")
    for line in range(len(sheet.ids)):
        _draw_row(page, sheet, line, top=TITLES + (line + 1) * row - CELL)
    return page.figure


def _draw_row(page: _Page, sheet: Sheet, line: int, *, top: float) -> None:
    x, y = NAMES - 0.15, top + (CELL - GAP) / 2
    name, style = _two_lines(sheet.labels[line], NAME_CHARACTERS), {"room": x - MARGIN, "ha": "right"}
    page.write(x, y, name, size=11.5, weight="bold", va="bottom", **style)
    page.write(x, y + 0.06, sheet.ids[line], size=8, color=GREY, va="top", **style)
    page.draw(NAMES, top, sheet.stored[line])
    for column, images in enumerate(sheet.draws, 1):
        left = NAMES + column * CELL
        page.draw(left, top, images[line])
        if sheet.mixed:
            mixed = "\n".join(f"{share:.2f} {name}" for name, share in sheet.mixtures[column - 1][line])
            page.write(left, top - 0.04, mixed, room=CELL - GAP, size=8, va="bottom", linespacing=1.0)


def _two_lines(text: str, characters: int) -> str:
    first = textwrap.wrap(text, characters)[0]
    return "\n".join(line for line in (first, text.removeprefix(first).strip()) if line)


def _shorten(text: Text, most_inches: float) -> None:
    """Remove letters from the middle of the longest line until the text fits."""
    while text.get_window_extent().width > most_inches * DOTS_PER_INCH:
        lines = text.get_text().split("\n")
        longest = max(lines, key=len)
        tail = (len(longest) - 2) // 3
        head = len(longest) - 2 - tail
        lines[lines.index(longest)] = f"{longest[:head]}…{longest[len(longest) - tail :]}"
        text.set_text("\n".join(lines))
