"""Commands that create a competition, prepare its images, train, and predict."""

import csv
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.ensemble import check
from podium.cli.options import DEFAULT, CompetitionName, DataPlace, RunNames, open_workspace
from podium.cli.printing import RunPrinter, TaskPrinter, duration, first_score, print_line, print_log
from podium.plan.runs import longest_first, select_runs

if TYPE_CHECKING:
    from podium.scaffold.guess import CompetitionGuess

commands = typer.Typer()
MOST_FAULTS = 10


@commands.command()
def new(
    competition: Annotated[str, typer.Option("--competition", "-c", help="Name of the new competition.")],
    data: Annotated[str | None, typer.Option(help="Folder or archive of the images.")] = None,
    kaggle: Annotated[str, typer.Option(help="Slug of a competition on Kaggle, which is then downloaded.")] = "",
) -> None:
    """Guess the settings of a new competition from its files; write competition.toml and recipes."""
    from podium.data.locate import named_place
    from podium.errors import ConfigError
    from podium.kaggle.client import Kaggle
    from podium.kaggle.download import download
    from podium.plan.paths import Paths
    from podium.scaffold.guess import guess_competition
    from podium.scaffold.write import check_new_name, write_competition

    paths = Paths(competition, Path("."), Path("."))
    check_new_name(paths)
    if bool(kaggle) == bool(data):
        fix = f"make new COMPETITION={competition} KAGGLE=<slug>, or DATA=<folder or archive>"
        raise ConfigError("A new competition needs either KAGGLE= or DATA=.", fix=fix)
    data_folder = paths.root / "data"
    source = named_place("DATA", data) if data else download(Kaggle(kaggle), data_folder, log=print_log)
    guess = guess_competition(source, paths.cache, title=kaggle or competition)
    files = write_competition(paths, guess, slug=kaggle)
    print("\n".join(_guess_lines(guess)))
    print(f"wrote {', '.join(map(str, files))}")
    data_option = "" if source.parent.resolve() == data_folder.resolve() else f" DATA={source}"
    print(f"next: check these files, then type make rehearse COMPETITION={competition}{data_option}")


@commands.command()
def prepare(
    competition: CompetitionName = DEFAULT,
    data: DataPlace = None,
    accept_data: Annotated[
        bool,
        typer.Option("--accept-data", help="Accept other images than those of data.lock. All runs become stale."),
    ] = False,
) -> None:
    """Find, check and decode the images, and split them. Writes data.lock, a file to commit."""
    from podium.data.prepare import prepare as prepare_data

    started = time.perf_counter()
    lock = prepare_data(
        open_workspace(competition),
        data=data,
        accept=accept_data,
        progress=TaskPrinter(),
        note=lambda text: print_line(f"{competition}: {text}"),
    )
    validation_rows = int((lock.folds >= 0).sum())
    labels = f"{len(lock.classes)} classes" if lock.target.has_classes else "numbers"
    print_line(
        f"{competition}: {len(lock.train_ids):,} labelled images ({validation_rows:,} of them validation rows), "
        f"{len(lock.test_ids):,} test images, {labels}. "
        f"Prepared in {time.perf_counter() - started:.1f} s."
    )


@commands.command()
def estimate(competition: CompetitionName = DEFAULT) -> None:
    """Print how long the stale runs will take on this machine, from a few timed steps of each recipe."""
    workspace = open_workspace(competition)
    stale = [run for run in longest_first(workspace.paths, workspace.trainable_runs) if run.stale]
    if not stale:
        print_line(f"{competition}: every run is up to date.")
        return
    from podium.training.estimate import estimate_seconds, total_seconds

    seconds_of_recipe = estimate_seconds(workspace, stale)
    for name, seconds in seconds_of_recipe.items():
        count = sum(run.recipe_name == name for run in stale)
        print_line(f"  {name:<20} {count} x {duration(seconds)}")
    total, devices = total_seconds(stale, seconds_of_recipe)
    time_of_all = f"about {duration(total)} ({total / 3600:.2f} hours) on {devices}"
    print_line(f"{competition}: {len(stale)} runs to train, {time_of_all}")


@commands.command()
def train(
    runs: RunNames = None,
    competition: CompetitionName = DEFAULT,
    again: Annotated[bool, typer.Option("--again", help="Train the named runs even if they are up to date.")] = False,
) -> None:
    """Train the runs whose recipe, seed or data changed, one after the other. Writes oof/<competition>/<run>.npz."""
    workspace = open_workspace(competition)
    selected = select_runs(workspace.trainable_runs, runs or [])
    to_train = [run for run in selected if run.stale or (again and runs)]
    for run in selected:
        if run not in to_train:
            print_line(f"{run.run}: up to date")
    if not to_train:
        return
    from podium.training.run import train_if_stale, train_run

    workspace.paths.check_writable()
    for run in to_train:
        train_one = train_if_stale if run.stale else train_run
        about = train_one(workspace, run, listener=RunPrinter(run.run)).about
        print_line(
            f"{run.run:<20} validation {first_score(about)} ({about['scored']}), "
            f"{about['images_per_second']:,.0f} images/s, {about['precision']}, {duration(about['seconds'])}"
        )


@commands.command()
def rehearse(competition: CompetitionName = DEFAULT, data: DataPlace = None) -> None:
    """Run every step on few images, one epoch per recipe, in .rehearsal/. Do it before hours of training."""
    started = time.perf_counter()
    prepare(competition, data)
    from podium.ensemble.text import ensemble_lines
    from podium.rehearsal import rehearse as rehearse_workspace

    written = rehearse_workspace(open_workspace(competition), listener_of=RunPrinter)
    print("\n".join(ensemble_lines(written, stale=set())))
    if written.csv_file:
        check(written.csv_file, competition)
    print(f"Rehearsal passed in {duration(time.perf_counter() - started)}. Its scores are meaningless.")


@commands.command()
def predict(
    run: Annotated[str, typer.Argument(help="A run that was trained here, such as resnet34.s1.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Print the prediction for each image of a folder as CSV, by a run's trained parameters."""
    from podium.training.predict import predict_folder

    predictions = predict_folder(open_workspace(competition), run, folder)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["id", *predictions[0][1]])
    for name, row in predictions:
        writer.writerow([name, *(f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row.values())])


def _guess_lines(guess: "CompetitionGuess") -> list[str]:
    listing, data, submission = guess.listing, guess.competition.data, guess.competition.submission
    labels = {"folders": "one folder per class", "names": f"classes in their names: {data.label_pattern}"}
    labels = labels.get(data.source, f"labels in {data.labels}")
    return [
        f"{len(listing.rows):,} labelled images ({labels}), {len(listing.test_images):,} test images",
        f"target: {data.target}; {guess.labels_text}",
        f"sides of {guess.sampled} images: {guess.sides[0]} to {guess.sides[1]} pixels; median of the shorter sides: "
        f"{guess.median_side}",
        f"submission format: {submission.kind} ({guess.format_reason})",
        *(f"please check {item}" for item in guess.to_check),
        *(f"fix before make prepare: {fault}" for fault in listing.faults[:MOST_FAULTS]),
    ]
