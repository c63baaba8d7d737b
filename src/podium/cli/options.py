"""Options that several commands share, and the workspace that `--competition` names."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from podium.workspace import Workspace

CompetitionName = Annotated[
    str, typer.Option("--competition", "-c", help="A folder in competitions/.", envvar="COMPETITION")
]
DataPlace = Annotated[
    str | None,
    typer.Option(help="Archive or folder of the images; default: $PODIUM_DATA, data/, ../shared/data/."),
]
RunNames = Annotated[
    list[str] | None, typer.Argument(help="Runs (resnet34.s1) or recipes (resnet34). Default: all stale runs.")
]
DEFAULT = "cifar10"


def open_workspace(competition: str) -> "Workspace":
    """The workspace of a competition below the present folder; the import of NumPy waits until it is needed."""
    from podium.workspace import open_workspace as open_named

    return open_named(competition)
