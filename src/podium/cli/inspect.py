"""Commands that check a recipe before hours of training: `show` and `lr-find`."""

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName
from podium.cli.train import printer_class
from podium.workspace import open_workspace

if TYPE_CHECKING:
    from podium.config.keys import Recipe
    from podium.training.lr_curve import LrFindResult

commands = typer.Typer()


@commands.command()
def show(
    run: Annotated[str, typer.Argument(help="A run (resnet34.s1), or a recipe (resnet34): its first run.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Draw labelled images as the run's training loader augments them. It shows wrong labels and wrong settings."""
    from podium.plan.runs import named_run

    workspace = open_workspace(competition)
    planned = named_run(workspace.runs, run, option="RUN")
    from podium.training.canvas import save_png
    from podium.training.sheet import make_sheet
    from podium.training.sheet_picture import draw_sheet

    sheet = make_sheet(workspace, planned)
    file = workspace.paths.sheet_file(planned.run)
    save_png(file, draw_sheet(sheet))
    print(f"{planned.run}: {sheet.description}")
    print(f"wrote {file}: {len(sheet.ids)} labelled images, each as stored and in {len(sheet.draws)} draws")
    print("check: Does each label fit its image? Are colours and orientation right? Is each draw still recognisable?")


@commands.command("lr-find")
def lr_find(
    recipe: Annotated[str, typer.Argument(help="A recipe, such as resnet34.")],
    competition: CompetitionName = DEFAULT,
    write: Annotated[bool, typer.Option("--write", help="Write the suggestion into the recipe.")] = False,
) -> None:
    """Run fastai's lr_find for a recipe: a hundred steps at rising learning rates. Writes a curve, changes no run."""
    from podium.config.editing import check_writable
    from podium.plan.runs import named_run

    workspace = open_workspace(competition)
    run = named_run(workspace.runs, recipe, option="RECIPE")
    file = workspace.paths.recipe_file(recipe)
    if write:
        check_writable(file)
    print(f"{recipe}: lr_find, up to 100 steps of {run.recipe.batch_size:,} images", flush=True)
    if run.recipe.optimiser == "muon":
        print(f"{recipe}: the filters keep still, because their rate is muon_rate and not learning_rate", flush=True)
    from podium.training.lr_curve import write_lr_curve
    from podium.training.lr_find import find_learning_rate_of_run

    result = find_learning_rate_of_run(workspace, run, listener=printer_class()(recipe))
    png_file = write_lr_curve(workspace.paths.lr_find_folder, recipe, result)
    print("\n".join(_result_lines(result, run.recipe)))
    print(f"wrote {png_file}, and .csv and .json beside it")
    if write:
        _write_rate(competition, recipe, result)
    else:
        print(f"WRITE=1 writes {result.rate:.2g} into {file}")


def _write_rate(competition: str, recipe: str, result: "LrFindResult") -> None:
    from podium.config.editing import write_learning_rate
    from podium.training.lr_curve import USED

    workspace = open_workspace(competition)
    file = workspace.paths.recipe_file(recipe)
    reason = f"lr_find's {USED}, {date.today()}, batch {result.batch_size:,}, {result.rows:,} rows"
    write_learning_rate(file, result.rate, reason)
    stale = [run.run for run in workspace.stale_runs if run.recipe_name == recipe]  # read after the recipe was written
    effect = f"stale now: {', '.join(stale)}; make {recipe} trains them" if stale else "its runs are still up to date"
    print(f"wrote learning_rate = {result.rate:.2g} into {file}; {effect}")


def _result_lines(result: "LrFindResult", recipe: "Recipe") -> list[str]:
    from podium.training.lr_curve import USED

    lines = [f"  {'suggestion':<12} learning rate"]
    for name, rate in result.suggestions.items():
        used = 'used by learning_rate = "find"' if name == USED else ""
        lines.append(f"  {name:<12} {rate:<8.2g}  {used}".rstrip())
    rate = recipe.learning_rate if isinstance(recipe.learning_rate, str) else f"{recipe.learning_rate:g}"
    return [*lines, f"  {'the recipe':<12} {rate}"]
