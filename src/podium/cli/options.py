"""Options that several commands share, and how commands print their progress."""

import sys
from typing import Annotated

import typer

CompetitionName = Annotated[
    str, typer.Option("--competition", "-c", help="A folder in competitions/.", envvar="COMPETITION")
]
DataPlace = Annotated[
    str | None,
    typer.Option(help="Archive or folder of the images; default: $PODIUM_DATA, data/, ../shared/data/."),
]
DEFAULT = "cifar10"
# On a terminal the next line replaces a line with these words.
WAITING = ("not scored yet", "not done yet")


def print_progress(line: str) -> None:
    """Print a line of progress."""
    is_terminal = sys.stdout.isatty()
    is_replaced = is_terminal and any(words in line for words in WAITING)
    print(f"{line:<79}" if is_terminal else line, end="\r" if is_replaced else "\n", flush=True)
