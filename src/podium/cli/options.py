"""Options that several commands share. `--competition` opens the workspace of the competition that it names."""

import math
import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from podium.workspace import Workspace

DEFAULT = "cifar10"


def open_named(name: str) -> "Workspace":
    """The workspace of a competition below the present folder; NumPy, which is imported here, gets one thread.

    Cross-fitting runs one thread per core itself; more threads inside each product would slow it down.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from podium.workspace import open_workspace

    return open_workspace(name)


def finite(number: float | None) -> float | None:
    """The number of an option; NaN, which no comparison refuses, and infinity are wrong."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number.")
    return number


if TYPE_CHECKING:
    Opened = Workspace
else:  # the callback replaces the name by the workspace; Typer cannot read the annotations of `open_named`
    Opened = Annotated[
        str,
        typer.Option(
            "--competition",
            "-c",
            help="A folder in competitions/.",
            envvar="COMPETITION",
            callback=lambda name: open_named(name),
        ),
    ]
DataPlace = Annotated[
    str | None, typer.Option(help="Archive or folder of the images; default: $PODIUM_DATA, data/, ../shared/data/.")
]
RunNames = Annotated[
    list[str] | None, typer.Argument(help="Runs (resnet34.s1) or recipes (resnet34). Default: all stale runs.")
]
OneRun = Annotated[str, typer.Argument(help="A run (resnet34.s1), or a recipe (resnet34): its first run.")]
OneRecipe = Annotated[str, typer.Argument(help="A recipe, such as lite0.")]
