"""Commands that train elsewhere: on Kaggle's GPUs, or as it would be there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName, DataPlace, tell_line
from podium.plan.paths import Project

if TYPE_CHECKING:
    from podium.config.keys import Recipe
    from podium.kaggle.notebooks.import_output import TakenIn

commands = typer.Typer()

Names = Annotated[list[str] | None, typer.Argument(help="Runs or recipes; none: all stale runs.")]
Wheels = Annotated[str, typer.Option(help="A folder with wheels to bring, or none; else they are downloaded.")]


@commands.command()
def kernel(
    runs: Names = None,
    competition: CompetitionName = DEFAULT,
    wheels: Wheels = "",
    force: Annotated[
        bool, typer.Option("--force", help="Send and push anew; forget a kernel that is still running.")
    ] = False,
) -> None:
    """Train stale runs on Kaggle's GPUs: pack, push, follow, and bring the predictions back into oof/."""
    from podium.config.keys import read_competition
    from podium.kaggle.client import Kaggle
    from podium.kaggle.notebooks.follow import Bench, train_in_kernel
    from podium.kaggle.notebooks.kernels import Kernels
    from podium.plan.runs import list_runs, wanted_runs

    project = Project.at(".")
    stale = [one for one in wanted_runs(list_runs(project, competition), runs or []) if one.stale]
    slug = read_competition(project.competition_folder(competition)).kaggle.competition
    bench = Bench(project, competition, Kernels(Kaggle(slug)), tell_line, _publish, wheels)
    _print_taken(train_in_kernel(bench, stale, force=force), competition, fix="make ensemble")


@commands.command("rehearse-kernel")
def rehearse_kernel(
    runs: Names = None, competition: CompetitionName = DEFAULT, wheels: Wheels = "none", data: DataPlace = None
) -> None:
    """Push to a Kaggle on this machine, which runs it offline in a scratch folder; one run where none is named."""
    from podium.kaggle.rehearse_kernel import rehearse

    taken = rehearse(
        Project.at("."), competition, runs or [], wheels=wheels, data=data, publish=_publish, tell=tell_line
    )
    _print_taken(taken, competition, fix="make kernel")
    print("rehearsed, into .rehearsal/; nothing left this machine")


def _print_taken(taken: "TakenIn | None", competition: str, *, fix: str) -> None:
    if taken is None:
        print(f"{competition}: the runs are up to date.")
        return
    print(f"taken in: {', '.join(taken.taken) or 'none'}; next: {fix} COMPETITION={competition}")
    if taken.left:
        print(f"the session was too short for {', '.join(taken.left)}: make kernel COMPETITION={competition} again")


def _publish(recipe: "Recipe", file: Path) -> None:
    """Write the published weights that a recipe starts from: a kernel has no network to download them."""
    if file.is_file():
        return
    from safetensors.torch import save

    from podium.files import atomic_write
    from podium.training.networks.architectures import published_state

    tell_line(f"fetching the published weights of {recipe.architecture}")
    with atomic_write(file) as stream:
        stream.write(save({name: value.contiguous() for name, value in published_state(recipe).items()}))
