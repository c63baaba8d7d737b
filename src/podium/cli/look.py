"""Commands to look with before hours of training; they read arguments and print, like those in cli.py."""

import sys
import time
from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName
from podium.plan.paths import Project

if TYPE_CHECKING:
    from podium.config.keys import Recipe
    from podium.training.lr_find import Finding

commands = typer.Typer()


@commands.command()
def show(
    run: Annotated[str, typer.Argument(help="A run (resnet34.s1), or a recipe (resnet34): its first run.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Draw labelled images as a run's network would see them, augmented: the cheapest way to find a mistake."""
    from podium.plan.runs import list_runs, named_run

    project = Project.at(".")
    wanted = named_run(list_runs(project, competition), run, option="RUN")
    from podium.training.canvas import save_png
    from podium.training.sheet import make_sheet
    from podium.training.sheet_picture import draw_sheet

    sheet = make_sheet(project, competition, wanted)
    file = project.sheet_file(competition, wanted.run)
    save_png(file, draw_sheet(sheet))
    print(f"{wanted.run}: {sheet.words}")
    print(f"wrote {file}: {len(sheet.ids)} labelled images, each as stored and in {len(sheet.draws)} draws")
    print("look: does each label fit its image? are colours and way up right? could you still tell what it is?")


@commands.command("lr-find")
def lr_find(
    recipe: Annotated[str, typer.Argument(help="A recipe, such as resnet34.")],
    competition: CompetitionName = DEFAULT,
    write: Annotated[bool, typer.Option("--write", help="Write what is suggested into the recipe.")] = False,
) -> None:
    """Ask fastai's lr_find for a recipe's learning rate: a hundred steps with a network that is thrown away."""
    from podium.config.editing import check_writable
    from podium.plan.runs import list_runs, named_run

    project = Project.at(".")
    wanted = named_run(list_runs(project, competition), recipe, option="RECIPE")
    file = project.competition_folder(competition) / f"{recipe}.toml"
    if write:
        check_writable(file)
    print("\n".join(_plan_lines(recipe, wanted.recipe)), flush=True)
    from podium.training.lr_curve import find_for_run, write_finding

    finding = find_for_run(project, competition, wanted, listener=_listener(recipe))
    picture = write_finding(project.finder_folder(competition), recipe, finding)
    print("\n".join(_finding_lines(finding, wanted.recipe)))
    print(f"wrote {picture}, and .csv and .json beside it")
    if write:
        _write(project, competition, recipe, finding)
    else:
        print(f"WRITE=1 writes {finding.rate:.2g} into {file}")


def _write(project: Project, competition: str, recipe: str, finding: "Finding") -> None:
    from podium.config.editing import write_learning_rate
    from podium.plan.runs import list_runs
    from podium.training.lr_find import USED

    file = project.competition_folder(competition) / f"{recipe}.toml"
    reason = f"lr_find's {USED}, {date.today()}, batch {finding.batch_size:,}, {finding.rows:,} rows"
    write_learning_rate(file, finding.rate, reason)
    stale = [one.run for one in list_runs(project, competition) if one.recipe_name == recipe and one.stale]
    now = f"stale now: {', '.join(stale)}; make {recipe} trains" if stale else "its runs are up to date all the same"
    print(f"wrote learning_rate = {finding.rate:.2g} into {file}; {now}")


def _plan_lines(name: str, recipe: "Recipe") -> list[str]:
    lines = [f"{name}: lr_find, up to 100 steps of {recipe.batch_size:,} images with a network that is thrown away"]
    if recipe.optimiser == "muon":
        told = "learning_rate is of all but the filters; these are muon_rate's, and stand still here"
        lines.append(f"{name}: {told}")
    return lines


def _finding_lines(finding: "Finding", recipe: "Recipe") -> list[str]:
    from podium.training.lr_find import USED

    lines = [f"  {'suggestion':<12} learning rate"]
    for name, rate in finding.suggestions.items():
        used = 'what learning_rate = "find" takes' if name == USED else ""
        lines.append(f"  {name:<12} {rate:<8.2g}  {used}".rstrip())
    said = recipe.learning_rate if isinstance(recipe.learning_rate, str) else f"{recipe.learning_rate:g}"
    return [*lines, f"  {'the recipe':<12} {said}"]


def _listener(name: str) -> object:
    from podium.training.progress import Listener

    class Printer(Listener):
        shown = time.monotonic()

        def step(self, share_done: float, images_per_second: float) -> None:
            if sys.stdout.isatty() and time.monotonic() > self.shown + 0.5:
                self.shown = time.monotonic()
                print(f"\r{f'{name}: {share_done:4.0%}  {images_per_second:,.0f} images/s':<79}", end="\r", flush=True)

    return Printer()
