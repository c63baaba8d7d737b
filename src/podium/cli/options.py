"""Options that many commands share, and their way to tell what is going on."""

import sys
from typing import Annotated

import typer

CompetitionName = Annotated[
    str, typer.Option("--competition", "-c", help="A folder in competitions/.", envvar="COMPETITION")
]
DataPlace = Annotated[
    str | None,
    typer.Option(help="Archive or folder of the images; else $PODIUM_DATA, data/, ../shared/data/."),
]
DEFAULT = "cifar10"
# Lines that say these only wait: on a terminal the next line takes their place.
WAITING = ("not scored yet", "not done yet")


def tell_line(line: str) -> None:
    """Print a line of progress."""
    live = sys.stdout.isatty()
    waits = live and any(words in line for words in WAITING)
    print(f"{line:<79}" if live else line, end="\r" if waits else "\n", flush=True)
