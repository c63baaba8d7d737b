"""Options that several commands share. `--competition` opens the workspace of the competition that it names."""

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.plan.memory import pick_competition, remember, remembered_text

if TYPE_CHECKING:
    from podium.workspace import Workspace

DEFAULT = ""  # the competition of an earlier command, else the only one


def open_named(name: str) -> "Workspace":
    """The workspace of a competition below the present folder; NumPy, which is imported here, gets one thread.

    Cross-fitting runs one thread per core itself; more threads inside each product would slow it down.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from podium.workspace import open_workspace

    return open_workspace(name)


def _open_option(context: typer.Context, parameter: typer.CallbackParam, name: str) -> object:
    """The workspace of the competition that a command names, or else of the one that an earlier command named.

    A typed name is remembered. Where make has started the command, make has already done both.
    """
    if not name:
        name, is_remembered = pick_competition(Path())
        if is_remembered:
            print(remembered_text(name), file=sys.stderr)
    workspace = open_named(name)
    source = context.get_parameter_source(parameter.name)
    if source and source.name == "COMMANDLINE" and "MAKELEVEL" not in os.environ:
        remember(workspace.paths.root, name)
    return workspace


def finite(number: float | None) -> float | None:
    """The number of an option; NaN, which no comparison refuses, and infinity are wrong."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} is not a finite number.")
    return number


if TYPE_CHECKING:
    Opened = Workspace
else:  # the callback replaces the name by the workspace
    Opened = Annotated[
        str,
        typer.Option(
            "--competition",
            "-c",
            help="A folder in competitions/; default: that of an earlier command, or the only one.",
            envvar="COMPETITION",
            callback=_open_option,
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
