"""Commands about predictions and submissions. Only `verify` imports torch, where it trains."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.live import close_table
from podium.cli.options import DEFAULT, Opened
from podium.cli.printing import RunPrinter, first_score, print_line
from podium.errors import SubmissionError, TrainingError
from podium.plan.runs import select_runs

if TYPE_CHECKING:
    import numpy as np

commands = typer.Typer()

CsvFile = Annotated[Path, typer.Argument(help="The CSV.")]


@commands.command()
def ensemble(
    workspace: Opened = DEFAULT,
    out: Annotated[str, typer.Option(help="Name of the files in submissions/<competition>/.")] = "ensemble",
    strategy: Annotated[
        str | None,
        typer.Option(help="auto, best, uniform, accuracy, log-loss, greedy or stack; overrides competition.toml."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="A run with a better score is a member; overrides competition.toml.")
    ] = None,
) -> None:
    """Select, weight and blend the runs in oof/<competition>/, print the scores, and write a submission."""
    from podium.ensemble.text import cost_lines, ensemble_lines
    from podium.ensemble.write import write_ensemble
    from podium.predictions.align import pool_size

    for line in cost_lines(pool_size(workspace)):
        print_line(line)
    stale = {run.run for run in workspace.stale_runs}
    written = write_ensemble(workspace, out=out, strategy=strategy, threshold=threshold)
    for line in ensemble_lines(written, stale=stale):
        print_line(line)


@commands.command()
def pseudo(
    workspace: Opened = DEFAULT,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least confidence in a label, 1 at most.")] = 0.99,
) -> None:
    """Write the test images that the blend predicts with confidence, and their labels, for the key pseudo_labels."""
    from podium.predictions.pseudo import write_pseudo_labels

    file, (rows, labels), errors = write_pseudo_labels(workspace, threshold)
    lock, target = workspace.lock, workspace.lock.target
    print(f"wrote {file}: {len(rows):,} of {len(lock.test_ids):,} test images; {errors}")
    if target.has_classes:
        counts = zip(lock.classes, target.shares(labels) * len(rows), strict=True)
        print(", ".join(f"{name} {count:,.0f}" for name, count in counts))
    print_line(f'next: pseudo_labels = "{file}" in a recipe, or SET= with make train')


@commands.command()
def suggest(workspace: Opened = DEFAULT) -> None:
    """Print which recipe deserves one more run: the rows that only its runs have right, per hour of training."""
    from podium.ensemble.text import suggestion_lines
    from podium.ensemble.write import suggest_run

    seeds = {name: recipe.seeds for name, recipe in workspace.recipes.items()}
    for line in suggestion_lines(suggest_run(workspace), seeds):
        print_line(line)


@commands.command()
def compact(workspace: Opened = DEFAULT) -> None:
    """Store the logits in oof/<competition>/ as float16, half the size, if the submission stays the same."""
    from podium.ensemble.compact import compact_predictions

    before, after = compact_predictions(workspace)
    print(f"{workspace.name}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now; the submission is the same")


@commands.command("import")
def import_run(
    name: Annotated[str, typer.Argument(help="Name for the run, such as vit.s1, whose architecture is then vit.")],
    oof: Annotated[
        Path, typer.Option(help="Validation rows: .csv, .parquet or .npz with an id column and a column per class.")
    ],
    test: Annotated[Path | None, typer.Option(help="Test rows, in the same form; not without test images.")] = None,
    workspace: Opened = DEFAULT,
) -> None:
    """Import predictions that were made elsewhere, probabilities or logits, into oof/<competition>/."""
    from podium.predictions.importing import import_predictions

    imported = import_predictions(workspace, name, oof=oof, test=test)
    print(
        f"{name}: {len(imported.oof_ids):,} validation rows, {len(imported.test_ids):,} test rows, "
        f"{imported.about['came_as']}; validation {first_score(imported.about)}"
    )


@commands.command()
def check(file: CsvFile, workspace: Opened = DEFAULT) -> None:
    """Check that a CSV is a valid submission of this competition; print everything that is wrong."""
    from podium.submission import check_submission

    faults = check_submission(file, lock=workspace.lock, settings=workspace.competition.submission)
    if faults:
        fix = f"correct the file, or make ensemble COMPETITION={workspace.name}"
        raise SubmissionError(f"Not a submission of {workspace.name}.", file=file, faults=faults, fix=fix)
    print(f"{file}: a valid submission of {workspace.name}, {len(workspace.lock.test_ids):,} rows")


@commands.command()
def why(file: CsvFile, workspace: Opened = DEFAULT) -> None:
    """Print what a submission was made from, as a tree, and whether each part of it is still the same."""
    from podium.ensemble.chain import read_chain
    from podium.kaggle.ledger import LEDGER, read_ledger

    chain = read_chain(workspace, file)
    print("state     sha256        made from, further right", *(line for _, line in chain.lines()), sep="\n")
    for entry in read_ledger(workspace.paths.submissions / LEDGER):
        if entry.sha256 == chain.sha256:
            print(f"submitted {entry.time}: {entry.state}, public score {entry.public or 'unknown'}")


@commands.command()
def verify(
    again: Annotated[
        list[str] | None,
        typer.Argument(help="Train again: runs, recipes, `all`, or `rehearse` (each recipe twice, on few images)."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="The CSV; default: submissions/<competition>/ensemble.csv.")] = None,
    workspace: Opened = DEFAULT,
) -> None:
    """Check that a submission comes from this code and data: compare all hashes, and make the ensemble again.

    Exit code 0: it does; 1: it does not; 2: this cannot be checked. What is trained again is written to .rehearsal/.
    """
    from podium.ensemble.chain import ABSENT, CHANGED, OK, read_chain, remake_differences

    file = file or workspace.paths.submissions / "ensemble.csv"
    links = list(read_chain(workspace, file, reads_images=True).lines())
    for line in (line for link, line in links if link.state != OK):
        print(line)
    print_line(f"hashes and versions: {sum(link.state == OK for link, _ in links)} of {len(links)} are the same")
    held = all(link.state != CHANGED for link, _ in links)
    if held:
        differences = remake_differences(workspace, file)
        held = not differences
        print_line(f"the ensemble made again: {', '.join(differences) or 'the same CSV, weights and scores'}")
    if held and again:
        held = _train_again(workspace, again)
        close_table()
    absent = "; what is not here was not compared" * (held and any(link.state == ABSENT for link, _ in links))
    print(f"{file} {'comes' if held else 'does NOT come'} from this code and data{absent}.")
    raise typer.Exit(not held)


def _train_again(workspace: Opened, names: list[str]) -> bool:
    """Train runs again and print which level held; returns whether one held for each run."""
    from podium.rehearsal import LEVELS, repeat_run

    rehearsed, levels = names == ["rehearse"], []
    runs = select_runs(workspace.trainable_runs, [] if names in (["all"], ["rehearse"]) else names)
    for run in runs:
        if not rehearsed or run.seed == run.recipe.seeds[0]:
            level, detail = repeat_run(workspace, run, listener=RunPrinter(run.run), rehearsed=rehearsed)
            print_line(f"{run.run:<20} trained {'twice' if rehearsed else 'again'}: {level} ({detail})")
            levels.append(level)
    return LEVELS[-1] not in levels


@commands.command()
def score(file: CsvFile, workspace: Opened = DEFAULT) -> None:
    """Score a CSV on the test images, where their labels are known (digits)."""
    from podium.data.digits import digits_answers
    from podium.metrics import wilson_interval
    from podium.submission import score_submission

    settings = workspace.competition
    if settings.data.source != "digits":
        raise SubmissionError("Only the test labels of digits come with Podium.", fix="submit the file")
    answers = digits_answers()
    correct, rows = score_submission(file, answers, lock=workspace.lock, settings=settings.submission), len(answers)
    low, high = wilson_interval(correct, rows)
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    print(f"{file}: accuracy {correct / rows:.4f} on {rows} withheld test images ({interval})")


@commands.command()
def runs(workspace: Opened = DEFAULT) -> None:
    """List the runs: up to date or stale, validation scores, training time."""
    from podium.plan.stamp import read_about

    stale = {run.run: run.stale for run in workspace.runs}
    files = {file.stem: file for file in workspace.paths.predictions_files()}
    abouts = {run.run: run.about or {} for run in workspace.runs}
    abouts |= {name: read_about(files[name]) or {} for name in sorted(files.keys() - stale.keys())}
    scores_of = {name: about["scores"] for name, about in abouts.items() if isinstance(about.get("scores"), dict)}
    first, second = next((list(scores) for scores in scores_of.values() if len(scores) == 2), ("accuracy", "log_loss"))
    width = max(22, *map(len, abouts))  # names of variants are long
    print(f"{'run':<{width}} {'state':<14} {first:>8} {second.replace('_', ' '):>9} {'seconds':>8}  device")
    for name, about in abouts.items():
        without_recipe = "imported" if about.get("imported") else "no recipe"
        stale_state = "stale" if name in files else "not trained"
        state = {None: without_recipe, True: stale_state, False: "up to date"}[stale.get(name)]
        scores = scores_of.get(name, {})
        values = zip((scores.get(first), scores.get(second), about.get("seconds")), (4, 4, 0), strict=True)
        cells = [f"{value:.{digits}f}" if isinstance(value, int | float) else "-" for value, digits in values]
        print(f"{name:<{width}} {state:<14} {cells[0]:>8} {cells[1]:>9} {cells[2]:>8}  {about.get('device', '')}")


@commands.command()
def report(workspace: Opened = DEFAULT) -> None:
    """Write reports/<competition>/index.html: scores, runs, ensemble, mistakes and submission on one page."""
    start = time.perf_counter()
    from podium.report.page import write_report

    def draw(run: str, rows: "np.ndarray", outputs: "np.ndarray") -> "tuple[str, np.ndarray] | None":
        from podium.training.heat_maps import heat_maps  # nothing else here needs torch

        try:
            return heat_maps(workspace, run, rows, outputs)
        except TrainingError as error:
            print_line(f"no heat maps: {error.what}")
            return None

    file = write_report(workspace, draw)
    seconds = time.perf_counter() - start
    print(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB, {seconds:.1f} s). Open it in a browser.")
