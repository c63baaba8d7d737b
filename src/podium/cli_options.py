"""Options that many commands share."""

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
