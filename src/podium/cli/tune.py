"""`podium tune`: search better values for a recipe's keys."""

from typing import Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName, open_workspace
from podium.cli.printing import print_line

commands = typer.Typer()
DEFAULT_TRIALS = 20


@commands.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="The recipe, such as resnet34.")] = "",
    competition: CompetitionName = DEFAULT,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials in all, including earlier ones of the same search; default: 20."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which no more trials start; default: no limit.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Name of the recipe to write; default: <recipe>-tuned.")] = None,
) -> None:
    """Search better values for a recipe's keys on rows that are not validation rows; writes a new recipe."""
    workspace = open_workspace(competition)
    from podium.tune.run import tune as run_search

    if minutes is None:
        trials = trials or DEFAULT_TRIALS
    run_search(workspace, recipe, trials=trials, minutes=minutes, out=out, log=print_line)
