"""Commands that touch images and networks; they read arguments and print, like those in cli.py."""

import csv
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from podium.cli.ensemble import check
from podium.cli.options import DEFAULT, CompetitionName, DataPlace
from podium.plan.paths import Project
from podium.workspace import open_workspace

commands = typer.Typer()


@commands.command()
def prepare(
    competition: CompetitionName = DEFAULT,
    data: DataPlace = None,
    accept_data: Annotated[
        bool,
        typer.Option("--accept-data", help="Take other images than data.lock speaks of; every run is then stale."),
    ] = False,
) -> None:
    """Find, check and decode the images, and split them; writes data.lock, which is to be committed."""
    from podium.data.prepare import prepare as prepare_data

    began = time.perf_counter()

    def note(text: str) -> None:
        print(f"{competition}: {text}")

    lock = prepare_data(open_workspace(competition), data=data, accept=accept_data, progress=_progress(), note=note)
    judged = int((lock.folds >= 0).sum())
    print(
        f"{competition}: {len(lock.train_ids):,} labelled images ({judged:,} judge a model that never saw them), "
        f"{len(lock.test_ids):,} test images, {len(lock.classes)} classes; "
        f"ready in {time.perf_counter() - began:.1f} s"
    )


@commands.command()
def estimate(competition: CompetitionName = DEFAULT) -> None:
    """Say how long the stale runs will take on this machine, from a few timed steps of each recipe."""
    from podium.lock import read_lock
    from podium.plan.runs import list_runs
    from podium.training.estimate import estimate_seconds

    project = Project.at(".")
    stale = [run for run in list_runs(project, competition) if run.stale]
    if not stale:
        print(f"{competition}: every run is up to date.")
        return
    lock, folder = read_lock(project.lock_file(competition)), project.competition_folder(competition)
    seconds = estimate_seconds(stale, lock, root=project.root, folder=folder)
    cores = len(os.sched_getaffinity(0))
    total = sum(seconds[run.recipe_name] * min(run.recipe.threads, cores) for run in stale) / cores
    for name, one in seconds.items():
        count = sum(run.recipe_name == name for run in stale)
        print(f"  {name:<20} {count} x {_duration(one)}")
    print(f"{competition}: {len(stale)} runs to train, about {_duration(total)} ({total / 3600:.2f} hours) here")


@commands.command()
def train(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs (resnet34.s1) or recipes (resnet34); none: all stale runs."),
    ] = None,
    competition: CompetitionName = DEFAULT,
    again: Annotated[bool, typer.Option("--again", help="Train named runs also if they are up to date.")] = False,
) -> None:
    """Train runs whose recipe, seed or data changed, one after the other; writes oof/<competition>/<run>.npz."""
    from podium.plan.runs import list_runs, wanted_runs

    project = Project.at(".")
    wanted = wanted_runs(list_runs(project, competition), runs or [])
    stale = [run for run in wanted if run.stale or (again and runs)]
    for run in wanted:
        if run not in stale:
            print(f"{run.run}: up to date")
    if not stale:
        return
    from podium.training.run import train_run

    project.check_outputs(competition)
    for run in stale:
        about = train_run(project, competition, run, listener=_listener()(run.run)).about
        print(
            f"{run.run:<20} validation accuracy {about['scores']['accuracy']:.4f} ({about['scored']}), "
            f"{about['images_per_second']:,.0f} images/s, {about['precision']}, {_duration(about['seconds'])}",
            flush=True,
        )


@commands.command()
def rehearse(competition: CompetitionName = DEFAULT, data: DataPlace = None) -> None:
    """Go the whole way on few images and one epoch a recipe, in .rehearsal/: run it before spending hours."""
    began = time.perf_counter()
    prepare(competition, data)
    from podium.ensemble.text import ensemble_lines
    from podium.rehearsal import rehearse as rehearse_all

    rehearsal = rehearse_all(Project.at("."), competition, listener_of=_listener())
    print("\n".join(ensemble_lines(rehearsal.written, stale=set())))
    check(rehearsal.written.csv_file, competition)
    print(f"rehearsed in {_duration(time.perf_counter() - began)}; the scores say nothing, the way is free")


@commands.command()
def predict(
    run: Annotated[str, typer.Argument(help="A run trained here, such as resnet34.s1.")],
    folder: Annotated[Path, typer.Argument(help="A folder of images.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Print id, class and probability for each image of a folder, by a run's trained parameters, as CSV."""
    from podium.training.predict import predict_folder

    rows = predict_folder(Project.at("."), competition, run, folder)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["id", "label", "probability"])
    table.writerows([one, name, f"{probability:.6f}"] for one, name, probability in rows)


def _progress() -> Callable[[str, int, int], None]:
    """Tells how far a long piece of work is: a live line on a terminal, a line every ten seconds elsewhere."""
    live, shown = sys.stdout.isatty(), time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal shown
        if time.monotonic() < shown + (0.2 if live else 10):
            return
        shown = time.monotonic()
        share = f" of {total:,}" if total else ""
        print(f"{what}: {done:,}{share}", end="   \r" if live else "\n", flush=True)

    return tell


def _listener() -> type:
    """A listener class that prints: one line an epoch, and on a terminal of its own a live line between them."""
    from podium.training.progress import EpochReport, Listener

    live = sys.stdout.isatty() and "-j" not in os.environ.get("MAKEFLAGS", "")

    class Printer(Listener):
        def __init__(self, run: str):
            self.run, self.shown = run, 0.0

        def note(self, text: str) -> None:
            print(f"{self.run:<20} {text}", flush=True)

        def step(self, share_done: float, images_per_second: float) -> None:
            if live and time.monotonic() > self.shown + 0.5:
                self.shown = time.monotonic()
                line = f"{self.run:<20} {share_done:4.0%}  {images_per_second:,.0f} images/s"
                print(f"\r{line:<79}", end="\r", flush=True)

        def epoch(self, report: EpochReport) -> None:
            judged = report.validation_accuracy
            accuracy = f"{judged:.4f}" if judged == judged else "   -  "
            print(
                f"{self.run:<20} {report.stage.strip()} {report.epoch:>3}/{report.epochs}  "
                f"loss {report.training_loss:.4f}  validation accuracy {accuracy}  "
                f"{report.images_per_second:,.0f} images/s  {_duration(report.seconds_left)} left",
                flush=True,
            )

    return Printer


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
