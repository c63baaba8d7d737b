"""Commands that train in a notebook on Kaggle's GPUs, or rehearse that here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName, DataPlace, RunNames, open_workspace
from podium.cli.printing import print_log
from podium.plan.runs import PlannedRun, select_runs

if TYPE_CHECKING:
    from podium.kaggle.notebooks.import_output import ImportedOutput

commands = typer.Typer()


@commands.command()
def kernel(
    runs: RunNames = None,
    competition: CompetitionName = DEFAULT,
    force: Annotated[
        bool, typer.Option("--force", help="Upload and push again; forget a notebook that is still running.")
    ] = False,
) -> None:
    """Train stale runs on Kaggle's GPUs: pack, push, follow, and import the predictions into oof/."""
    from podium.kaggle.client import Kaggle
    from podium.kaggle.notebooks.account import Account
    from podium.kaggle.notebooks.follow import NotebookSession, train_in_notebook

    workspace = open_workspace(competition)
    stale = [run for run in select_runs(workspace.trainable_runs, runs or []) if run.stale]
    _download_weights(stale)
    account = Account(Kaggle(workspace.competition.kaggle.competition))
    session = NotebookSession(workspace, account, print_log)
    _print_result(train_in_notebook(session, stale, force=force), competition, following="make ensemble")


@commands.command("rehearse-kernel")
def rehearse_kernel(runs: RunNames = None, competition: CompetitionName = DEFAULT, data: DataPlace = None) -> None:
    """Run here, offline, what `kernel` would push; everything is written below .rehearsal/. Without RUNS one run."""
    from podium.data.locate import download_source, find_source, quiet
    from podium.kaggle.notebooks.rehearse import rehearse_notebook

    workspace = open_workspace(competition)
    wanted = select_runs(workspace.trainable_runs, runs or [])
    wanted = wanted if runs else wanted[:1]
    images, settings = None, workspace.competition
    if settings.data.source != "digits":
        source = find_source(settings, workspace.paths, data=data)
        images = (source or download_source(settings, workspace.paths, progress=quiet)).path
    _download_weights(wanted)
    result = rehearse_notebook(workspace, wanted, images=images)
    _print_result(result, competition, following="make kernel")


def _print_result(result: "ImportedOutput | None", competition: str, *, following: str) -> None:
    if result is None:
        print(f"{competition}: the runs are up to date.")
        return
    print(f"imported: {', '.join(result.imported) or 'none'}; next: {following} COMPETITION={competition}")
    if result.left:
        print(f"the session was too short for {', '.join(result.left)}: make kernel COMPETITION={competition} again")


def _download_weights(runs: Sequence[PlannedRun]) -> None:
    """Download the published weights that runs start from, where they are not here yet: a notebook is offline."""
    from podium.kaggle.notebooks.package import published_weights_file

    for recipe in {run.recipe_name: run.recipe for run in runs}.values():
        file = published_weights_file(Path("."), recipe)
        if recipe.pretrained is not True or file.is_file():
            continue
        from safetensors.torch import save

        from podium.files import atomic_write
        from podium.training.networks.architectures import published_state

        print_log(f"downloading the published weights of {recipe.architecture}")
        with atomic_write(file) as stream:
            stream.write(save({name: value.contiguous() for name, value in published_state(recipe).items()}))
