"""The command line: the only place that reads arguments and prints."""

import csv
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from podium.cli_kaggle import commands as kaggle_commands
from podium.cli_kernel import commands as kernel_commands
from podium.cli_look import commands as look_commands
from podium.cli_options import DEFAULT, CompetitionName, DataPlace
from podium.cli_report import commands as report_commands
from podium.cli_tune import commands as tune_commands
from podium.errors import PodiumError
from podium.project import Project

# Each command imports what it needs when it runs: `podium ensemble` starts without torch.
app = typer.Typer(
    help="From labelled images to a submission that can be trusted. Run it where competitions/ is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(kaggle_commands)
app.add_typer(report_commands)
app.add_typer(look_commands)
app.add_typer(tune_commands)
app.add_typer(kernel_commands)


@app.command()
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
    project, progress = Project.at("."), _progress()

    def note(text: str) -> None:
        print(f"{competition}: {text}")

    lock = prepare_data(project, competition, data=data, accept=accept_data, progress=progress, note=note)
    judged = int((lock.folds >= 0).sum())
    print(
        f"{competition}: {len(lock.train_ids):,} labelled images ({judged:,} judge a model that never saw them), "
        f"{len(lock.test_ids):,} test images, {len(lock.classes)} classes; "
        f"ready in {time.perf_counter() - began:.1f} s"
    )


@app.command()
def estimate(competition: CompetitionName = DEFAULT) -> None:
    """Say how long the stale runs will take on this machine, from a few timed steps of each recipe."""
    from podium.data.lock import read_lock
    from podium.plan import list_runs
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


@app.command()
def train(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs (resnet34.s1) or recipes (resnet34); none: all stale runs."),
    ] = None,
    competition: CompetitionName = DEFAULT,
    data: DataPlace = None,
    again: Annotated[bool, typer.Option("--again", help="Train named runs also if they are up to date.")] = False,
) -> None:
    """Train runs whose recipe, seed or data changed, one after the other; writes oof/<competition>/<run>.npz."""
    from podium.plan import list_runs, wanted_runs

    project = Project.at(".")
    wanted = wanted_runs(list_runs(project, competition), runs or [])
    stale = [run for run in wanted if run.stale or (again and runs)]
    for run in wanted:
        if run not in stale:
            print(f"{run.run}: up to date")
    if not stale:
        return
    from podium.training.fit import train_run

    project.check_outputs(competition)
    for run in stale:
        about = train_run(project, competition, run, data=data, listener=_listener()(run.run)).about
        print(
            f"{run.run:<20} validation accuracy {about['scores']['accuracy']:.4f} ({about['scored']}), "
            f"{about['images_per_second']:,.0f} images/s, {about['precision']}, {_duration(about['seconds'])}",
            flush=True,
        )


@app.command()
def ensemble(
    competition: CompetitionName = DEFAULT,
    out: Annotated[str, typer.Option(help="Name of the files in submissions/<competition>/.")] = "ensemble",
    strategy: Annotated[
        str | None,
        typer.Option(help="auto, best, uniform, accuracy, log-loss, greedy or stack, instead of competition.toml's."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Accuracy above which every run is a member.")] = None,
) -> None:
    """Select, weigh and blend the runs in oof/<competition>/, say what to believe of it, and write a submission."""
    _one_thread_a_product()
    from podium.ensemble.tell import ensemble_lines
    from podium.ensemble.write import write_ensemble
    from podium.plan import list_runs

    project = Project.at(".")
    stale = {run.run for run in list_runs(project, competition) if run.stale}
    written = write_ensemble(project, competition, out=out, strategy=strategy, threshold=threshold)
    print("\n".join(ensemble_lines(written, stale=stale)))


@app.command()
def suggest(competition: CompetitionName = DEFAULT) -> None:
    """Say which recipe deserves one more run: what its runs have right where the others are wrong, per hour."""
    _one_thread_a_product()
    from podium.ensemble.tell import suggestion_lines
    from podium.ensemble.write import suggest_run
    from podium.plan import list_runs

    project = Project.at(".")
    recipes = {run.recipe_name: run.recipe.seeds for run in list_runs(project, competition)}
    print("\n".join(suggestion_lines(suggest_run(project, competition, list(recipes)), recipes)))


@app.command()
def compact(competition: CompetitionName = DEFAULT) -> None:
    """Halve the files in oof/<competition>/, to be committed: float16 logits, where the submission stays the same."""
    _one_thread_a_product()
    from podium.ensemble.compact import compact_predictions

    before, after = compact_predictions(Project.at("."), competition)
    print(f"{competition}: {before / 1e6:.1f} MB are now {after / 1e6:.1f} MB; the same labels")


@app.command("import")
def import_run(
    name: Annotated[str, typer.Argument(help="What to call the run, such as colleague.s1.")],
    oof: Annotated[Path, typer.Option(help="Validation rows: .csv, .parquet or .npz with ids and a column a class.")],
    test: Annotated[Path, typer.Option(help="Test rows, likewise.")],
    competition: CompetitionName = DEFAULT,
    architecture: Annotated[str | None, typer.Option(help="What it is a run of; else the name's head.")] = None,
) -> None:
    """Take predictions made elsewhere, probabilities or logits, into oof/<competition>/; joined by id."""
    from podium.importing import import_predictions

    imported = import_predictions(Project.at("."), competition, name, oof=oof, test=test, architecture=architecture)
    about = imported.about
    print(
        f"{name}: {len(imported.oof_ids):,} validation rows, {len(imported.test_ids):,} test rows, "
        f"{about['came_as']}; validation accuracy {about['scores']['accuracy']:.4f}"
    )


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The CSV to check.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Say everything that is wrong with a CSV as a submission of this competition."""
    from podium.config import read_competition
    from podium.data.lock import read_lock
    from podium.submission import check_submission

    project = Project.at(".")
    settings = read_competition(project.competition_folder(competition)).submission
    lock = read_lock(project.lock_file(competition))
    faults = check_submission(file, lock=lock, settings=settings)
    if faults:
        print(f"{file}: not a submission of {competition}", file=sys.stderr)
        for fault in faults:
            print(f"  - {fault}", file=sys.stderr)
        raise typer.Exit(2)
    print(f"{file}: a valid submission of {competition}, {len(lock.test_ids):,} rows")


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="The CSV to score.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Score a CSV against the test images' answers, where they are known (digits)."""
    from podium.config import read_competition
    from podium.data.lock import read_lock
    from podium.errors import SubmissionError
    from podium.submission import score_submission

    project = Project.at(".")
    settings = read_competition(project.competition_folder(competition))
    if settings.data.source != "digits":
        raise SubmissionError(
            f"The answers of {competition} are not known here.",
            expected="a competition whose test labels are bundled: digits",
            mend="submit the file",
        )
    from podium.data.digits import digits_answers

    result = score_submission(
        file, digits_answers(), lock=read_lock(project.lock_file(competition)), settings=settings.submission
    )
    low, high = result.accuracy_interval
    print(
        f"{file}: accuracy {result.scores['accuracy']:.4f} on {result.rows} withheld test images "
        f"(95 % interval {low:.4f} to {high:.4f})"
    )


@app.command()
def runs(competition: CompetitionName = DEFAULT) -> None:
    """List the runs: up to date or stale, validation accuracy, training time."""
    from podium.plan import list_runs
    from podium.stamp import read_about

    project = Project.at(".")
    planned = {run.run: run for run in list_runs(project, competition)}
    present = {file.stem for file in project.predictions_folder(competition).glob("*.npz")}
    print(f"{'run':<22} {'state':<14} {'accuracy':>8} {'log loss':>9} {'seconds':>8}  device")
    for name in [*planned, *sorted(present - planned.keys())]:
        about = read_about(project.predictions_file(competition, name)) or {}
        scores = about["scores"] if isinstance(about.get("scores"), dict) else {}
        state = "up to date" if name in planned else "imported" if about.get("imported") else "no recipe"
        if name in planned and planned[name].stale:
            state = "stale" if name in present else "not trained"
        print(
            f"{name:<22} {state:<14} {_number(scores.get('accuracy')):8.4f} {_number(scores.get('log_loss')):9.4f} "
            f"{_number(about.get('seconds')):8.0f}  {about.get('device', '')}"
        )


@app.command()
def rehearse(competition: CompetitionName = DEFAULT, data: DataPlace = None) -> None:
    """Go the whole way on few images and one epoch a recipe, in .rehearsal/: run it before spending hours."""
    began = time.perf_counter()
    prepare(competition, data)
    from podium.ensemble.tell import ensemble_lines
    from podium.rehearsal import rehearse as rehearse_all

    rehearsal = rehearse_all(Project.at("."), competition, data=data, listener_of=_listener())
    print("\n".join(ensemble_lines(rehearsal.written, stale=set())))
    check(rehearsal.written.csv_file, competition)
    print(f"rehearsed in {_duration(time.perf_counter() - began)}; the scores say nothing, the way is free")


@app.command()
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


def main() -> None:
    """Run the command line; what the user can mend is one screen and exit code 2, never a traceback."""
    if not sys.warnoptions:  # what libraries warn of is not for users; `python -W default -m podium` shows it
        warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except PodiumError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"\nThe system refused.\n  file:     {error.filename}\n  found:    {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except _Stopped:
        print("\nStopped. What was finished is kept.", file=sys.stderr)
        sys.exit(130)


class _Stopped(BaseException):
    """Ctrl-C, under a name that Typer does not take for its own."""


def _stop(*_: object) -> None:
    raise _Stopped


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
    from podium.training.callbacks import EpochReport, Listener

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


def _one_thread_a_product() -> None:
    """Before NumPy is imported: parts are fitted side by side, and threads inside each would fight for the cores."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
