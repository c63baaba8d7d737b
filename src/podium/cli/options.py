"""Options that several commands share. `--competition` opens the workspace of the competition that it names."""

import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.errors import PodiumError
from podium.plan.memory import pick_competition, remember
from podium.plan.paths import competition_names
from podium.plan.runs import RUN_SUFFIX, read_plan, run_name

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
    if context.resilient_parsing:  # a shell asks for completions
        return name
    workspace = open_named(name or pick_competition(Path(), note=partial(print, file=sys.stderr)))
    source = context.get_parameter_source(parameter.name)
    if source and source.name == "COMMANDLINE" and "MAKELEVEL" not in os.environ:
        remember(workspace.paths.root, name)
    return workspace


def _competitions(incomplete: str) -> list[str]:
    """Completions of a competition's name."""
    return [name for name in competition_names(Path()) if name.startswith(incomplete)]


def complete_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Completions of the name of a run or a recipe. They are read by the standard library alone, to be quick."""
    try:
        recipes = read_plan(context.params.get("workspace") or pick_competition(Path())).recipes
    except (PodiumError, OSError):
        return []
    runs = [run_name(name, seed) for name, recipe in recipes.items() for seed in recipe.seeds]
    return [name for name in [*recipes, *runs] if name.startswith(incomplete)]


def _recipes(context: typer.Context, incomplete: str) -> list[str]:
    """Completions of the name of a recipe."""
    return [name for name in complete_runs(context, incomplete) if not RUN_SUFFIX.fullmatch(name)]


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
            autocompletion=_competitions,
        ),
    ]
DataPlace = Annotated[
    str | None, typer.Option(help="Archive or folder of the images; default: $PODIUM_DATA, data/, ../shared/data/.")
]
RunNames = Annotated[
    list[str] | None,
    typer.Argument(
        help="Runs (resnet34.s1) or recipes (resnet34). Default: all stale runs.", autocompletion=complete_runs
    ),
]
OneRun = Annotated[
    str,
    typer.Argument(help="A run (resnet34.s1), or a recipe (resnet34): its first run.", autocompletion=complete_runs),
]
OneRecipe = Annotated[str, typer.Argument(help="A recipe, such as lite0.", autocompletion=_recipes)]
