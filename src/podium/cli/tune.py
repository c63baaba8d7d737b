"""`podium tune`: search better values for a recipe's keys."""

from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName, open_workspace
from podium.cli.printing import print_line

if TYPE_CHECKING:
    from podium.tune.run import Budget

commands = typer.Typer()
DEFAULT_TRIALS = 20


@commands.command()
def tune(
    recipe: Annotated[str, typer.Argument(help="The recipe, such as resnet34.")] = "",
    competition: CompetitionName = DEFAULT,
    trials: Annotated[str, typer.Option(help="Trials in all, including earlier ones of the same search.")] = "",
    minutes: Annotated[str, typer.Option(help="Minutes after which no more trials start.")] = "",
    out: Annotated[str, typer.Option(help="Name of the recipe to write; default: <recipe>-tuned.")] = "",
) -> None:
    """Search better values for a recipe's keys on rows that are not validation rows; writes a new recipe."""
    budget = _budget(trials, minutes)
    workspace = open_workspace(competition)
    from podium.tune.run import tune as run_search

    run_search(workspace, recipe, budget=budget, out=out or None, log=print_line)


def _budget(trials: str, minutes: str) -> "Budget":
    from podium.errors import ConfigError

    faults = []
    if trials and minutes:
        faults.append("both TRIALS= and MINUTES=: expected one of them")
    if trials and not (trials.isascii() and trials.isdigit() and int(trials)):
        faults.append(f"TRIALS={trials}: expected a whole number, at least 1")
    if minutes and not _is_positive(minutes):
        faults.append(f"MINUTES={minutes}: expected a number above 0")
    if faults:
        raise ConfigError("The search has no valid limit.", faults=faults, fix="TRIALS=20, or MINUTES=30")
    from podium.tune.run import Budget

    return Budget(minutes=float(minutes)) if minutes else Budget(trials=int(trials or DEFAULT_TRIALS))


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
