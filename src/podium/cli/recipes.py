"""Commands about one recipe, before its runs are trained: look at its images, find its rate, tune its keys."""

import time
from datetime import date
from typing import Annotated

import typer

from podium.cli.live import close_table
from podium.cli.options import DEFAULT, OneRecipe, OneRun, Opened, finite, open_named
from podium.cli.printing import RunPrinter, print_line, print_result
from podium.plan.runs import find_run
from podium.text import record_lines

commands = typer.Typer()
DEFAULT_TRIALS = 20


@commands.command()
def show(run: OneRun, workspace: Opened = DEFAULT) -> None:
    """Draw labelled images as the run's training loader augments them. It shows wrong labels and wrong settings."""
    planned = find_run(workspace.trainable_runs, run, option="RUN")
    from podium.training.drawing import save_png
    from podium.training.sheet import draw_sheet, make_sheet

    sheet = make_sheet(workspace, planned)
    file = workspace.paths.reports / "show" / f"{planned.run}.png"
    save_png(file, draw_sheet(sheet))
    lines = [
        f"{planned.run}: {sheet.description}",
        f"wrote {file}: {len(sheet.ids)} labelled images, each as stored and in {len(sheet.draws)} draws",
        "check: Does each label fit its image? Are colours and orientation right? Is each draw still recognisable?",
    ]
    print_result({"file": file, "ids": sheet.ids}, lines)


@commands.command()
def variant(
    run: OneRun,
    assignments: Annotated[list[str], typer.Argument(help="Other values, as in epochs=5 augment.shift_pixels=4.")],
    workspace: Opened = DEFAULT,
) -> None:
    """Write a recipe with other values of some keys, for one experiment, and print the names of its runs."""
    from podium.scaffold.variant import write_variant

    runs = write_variant(workspace, run, " ".join(assignments))
    print_result({"runs": runs}, text=f"{' '.join(runs)}\n")


@commands.command()
def embed(recipe: OneRecipe, workspace: Opened = DEFAULT) -> None:
    """Compute the features of all images by a recipe's pretrained network, once; they are kept in the cache."""
    started = time.perf_counter()
    run = find_run(workspace.trainable_runs, recipe, option="RECIPE")
    from podium.training.inference import embed as embed_images

    for part, (images, channels) in embed_images(workspace, run):
        print_line(f"{recipe}: {channels:,} features of each of {images:,} {part} images")
    print_line(f"{recipe}: in the cache after {time.perf_counter() - started:.1f} s")


@commands.command("lr-find")
def lr_find(
    recipe: OneRecipe,
    workspace: Opened = DEFAULT,
    write: Annotated[bool, typer.Option("--write", help="Write the suggestion into the recipe.")] = False,
) -> None:
    """Run fastai's lr_find for a recipe: a hundred steps at rising learning rates. Writes a curve, changes no run."""
    from podium.config.editing import check_writable, write_learning_rate

    settings = find_run(workspace.trainable_runs, recipe, option="RECIPE")
    file = workspace.paths.recipe_file(recipe)
    if write:
        check_writable(file)
    print_line(f"{recipe}: lr_find, up to 100 steps of {settings.recipe.batch_size:,} images")
    if settings.recipe.optimiser == "muon":
        print_line(f"{recipe}: the filters keep still, because their rate is muon_rate and not learning_rate")
    from podium.training.drawing import USED, write_lr_curve
    from podium.training.lr_find import find_learning_rate_of_run

    result = find_learning_rate_of_run(workspace, settings, listener=RunPrinter(recipe))
    close_table()
    png_file = write_lr_curve(workspace.paths.lr_find_folder, recipe, result)
    rates = {**result.suggestions, "the recipe": settings.recipe.learning_rate}
    formats = {"suggestion": "", "learning_rate": ".2g", "used": ""}
    cells = [(name, rate, "used" * (name == USED)) for name, rate in rates.items()]
    records = [dict(zip(formats, row, strict=True)) for row in cells]
    lines = record_lines(records, formats)
    lines.append(f"wrote {png_file}, and .csv and .json beside it")
    lines += [] if write else [f"WRITE=1 writes {result.rate:.2g} into {file}"]
    print_result({"suggestions": records, "file": png_file}, lines)
    if not write:
        return
    reason = f"lr_find's {USED}, {date.today()}, batch {settings.recipe.images_per_step:,}"
    write_learning_rate(file, result.rate, reason)
    stale = ", ".join(run.run for run in open_named(workspace.name).stale_runs if run.recipe_name == recipe)
    effect = f"stale now: {stale}; make {recipe} trains them" if stale else "its runs are still up to date"
    print_line(f"wrote learning_rate = {result.rate:.2g} into {file}; {effect}")


@commands.command()
def tune(
    recipe: OneRecipe = "",
    workspace: Opened = DEFAULT,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, including earlier ones of the same search; default: 20.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, callback=finite, help="Minutes after which no more trials start; default: no limit."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Name of the recipe to write; default: <recipe>-tuned.")] = None,
) -> None:
    """Search better values for a recipe's keys on rows that are not validation rows; writes a new recipe."""
    from podium.tune.run import tune as run_search

    if minutes is None:
        trials = trials or DEFAULT_TRIALS
    run_search(workspace, recipe, trials=trials, minutes=minutes, out=out, log=print_line)
