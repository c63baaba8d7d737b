"""Commands about predictions and submissions, which need no torch; they read arguments and print, like cli.py's."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName
from podium.plan.paths import Project

commands = typer.Typer()


@commands.command()
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
    from podium.ensemble.text import ensemble_lines
    from podium.ensemble.write import write_ensemble
    from podium.plan.runs import list_runs

    project = Project.at(".")
    stale = {run.run for run in list_runs(project, competition) if run.stale}
    written = write_ensemble(project, competition, out=out, strategy=strategy, threshold=threshold)
    print("\n".join(ensemble_lines(written, stale=stale)))


@commands.command()
def suggest(competition: CompetitionName = DEFAULT) -> None:
    """Say which recipe deserves one more run: what its runs have right where the others are wrong, per hour."""
    _one_thread_a_product()
    from podium.ensemble.text import suggestion_lines
    from podium.ensemble.write import suggest_run
    from podium.plan.runs import list_runs

    project = Project.at(".")
    recipes = {run.recipe_name: run.recipe.seeds for run in list_runs(project, competition)}
    print("\n".join(suggestion_lines(suggest_run(project, competition, list(recipes)), recipes)))


@commands.command()
def compact(competition: CompetitionName = DEFAULT) -> None:
    """Halve the files in oof/<competition>/, to be committed: float16 logits, where the submission stays the same."""
    _one_thread_a_product()
    from podium.ensemble.compact import compact_predictions

    before, after = compact_predictions(Project.at("."), competition)
    print(f"{competition}: {before / 1e6:.1f} MB are now {after / 1e6:.1f} MB; the same labels")


@commands.command("import")
def import_run(
    name: Annotated[str, typer.Argument(help="What to call the run, such as colleague.s1.")],
    oof: Annotated[Path, typer.Option(help="Validation rows: .csv, .parquet or .npz with ids and a column a class.")],
    test: Annotated[Path, typer.Option(help="Test rows, likewise.")],
    competition: CompetitionName = DEFAULT,
    architecture: Annotated[str | None, typer.Option(help="What it is a run of; else the name's head.")] = None,
) -> None:
    """Take predictions made elsewhere, probabilities or logits, into oof/<competition>/; joined by id."""
    from podium.predictions.importing import import_predictions

    imported = import_predictions(Project.at("."), competition, name, oof=oof, test=test, architecture=architecture)
    about = imported.about
    print(
        f"{name}: {len(imported.oof_ids):,} validation rows, {len(imported.test_ids):,} test rows, "
        f"{about['came_as']}; validation accuracy {about['scores']['accuracy']:.4f}"
    )


@commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="The CSV to check.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Say everything that is wrong with a CSV as a submission of this competition."""
    from podium.config.keys import read_competition
    from podium.lock import read_lock
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


@commands.command()
def score(
    file: Annotated[Path, typer.Argument(help="The CSV to score.")],
    competition: CompetitionName = DEFAULT,
) -> None:
    """Score a CSV against the test images' answers, where they are known (digits)."""
    from podium.config.keys import read_competition
    from podium.errors import SubmissionError
    from podium.lock import read_lock
    from podium.submission import score_submission

    project = Project.at(".")
    settings = read_competition(project.competition_folder(competition))
    if settings.data.source != "digits":
        raise SubmissionError(
            f"The answers of {competition} are not known here.",
            expected="a competition whose test labels are bundled: digits",
            fix="submit the file",
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


@commands.command()
def runs(competition: CompetitionName = DEFAULT) -> None:
    """List the runs: up to date or stale, validation accuracy, training time."""
    from podium.plan.runs import list_runs
    from podium.plan.stamp import read_about

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


def _one_thread_a_product() -> None:
    """Before NumPy is imported: parts are fitted side by side, and threads inside each would fight for the cores."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


@commands.command()
def report(competition: CompetitionName = DEFAULT) -> None:
    """Write reports/<competition>/index.html: scores, runs, ensemble, mistakes and submission on one page."""
    from podium.report.page import write_report

    began = time.perf_counter()
    file = write_report(Project.at("."), competition)
    size = file.stat().st_size / 1e6
    print(f"wrote {file} ({size:.1f} MB, {time.perf_counter() - began:.1f} s): open it in a browser")
