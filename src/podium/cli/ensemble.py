"""Commands about predictions and submissions. Only `verify` imports torch, where it trains."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.live import close_table
from podium.cli.options import DEFAULT, Opened, finite
from podium.cli.printing import RunPrinter, first_score, print_line, print_result
from podium.errors import PodiumError, SubmissionError
from podium.files import read_json
from podium.plan.runs import select_runs
from podium.text import record_lines

if TYPE_CHECKING:
    import numpy as np

commands = typer.Typer()

Medal = Annotated[float | None, typer.Option(callback=finite, help="The worst score that gets this medal.")]
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
    record = {"csv": written.csv_file, "json": written.json_file, "stale": sorted(stale)}
    print_result(record | read_json(written.json_file), ensemble_lines(written, stale=stale))


@commands.command()
def pseudo(
    workspace: Opened = DEFAULT,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least confidence in a label, 1 at most.")] = 0.99,
) -> None:
    """Write the test images that the blend predicts with confidence, and their labels, for the key pseudo_labels."""
    from podium.predictions.pseudo import write_pseudo_labels

    file, (rows, labels), wrong = write_pseudo_labels(workspace, threshold)
    lock = workspace.lock
    shares = lock.target.shares(labels) * len(rows)
    counts = {name: round(count) for name, count in zip(lock.classes, shares, strict=True)}
    lines = [
        f"wrote {file}: {len(rows):,} of {len(lock.test_ids):,} test images; "
        f"{wrong:.0f} of their {labels.size:,} labels are probably wrong",
        ", ".join(f"{name} {count:,}" for name, count in counts.items()),
        f'next: pseudo_labels = "{file}" in a recipe, or SET= with make train',
    ]
    print_result({"file": file, "rows": len(rows), "classes": counts}, lines)


@commands.command()
def suggest(workspace: Opened = DEFAULT) -> None:
    """Print which recipe deserves one more run: the rows that only its runs have right, per hour of training."""
    from podium.ensemble.text import suggestion_lines
    from podium.ensemble.write import suggest_run

    seeds = {name: recipe.seeds for name, recipe in workspace.recipes.items()}
    suggestions = suggest_run(workspace)
    print_result({"recipes": suggestions}, suggestion_lines(suggestions, seeds))


@commands.command()
def compact(workspace: Opened = DEFAULT) -> None:
    """Store the logits in oof/<competition>/ as float16, half the size, if the submission stays the same."""
    from podium.ensemble.compact import compact_predictions

    before, after = compact_predictions(workspace)
    line = f"{workspace.name}: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now; the submission is the same"
    print_result({"bytes_before": before, "bytes": after}, [line])


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
    counts, about = {"validation": len(imported.oof_ids), "test": len(imported.test_ids)}, imported.about
    rows = f"{counts['validation']:,} validation rows, {counts['test']:,} test rows"
    line = f"{name}: {rows}, {about['came_as']}; validation {first_score(about)}"
    print_result({"run": name, **counts, "came_as": about["came_as"], "scores": about["scores"]}, [line])


@commands.command()
def check(file: CsvFile, workspace: Opened = DEFAULT) -> None:
    """Check that a CSV is a valid submission of this competition; print everything that is wrong."""
    from podium.submission import check_submission

    faults = check_submission(file, lock=workspace.lock, settings=workspace.competition.submission)
    if faults:
        fix = f"correct the file, or make ensemble COMPETITION={workspace.name}"
        raise SubmissionError(f"Not a submission of {workspace.name}.", file=file, faults=faults, fix=fix)
    rows = len(workspace.lock.test_ids)
    print_result({"file": file, "rows": rows}, [f"{file}: a valid submission of {workspace.name}, {rows:,} rows"])


@commands.command()
def why(file: CsvFile, workspace: Opened = DEFAULT) -> None:
    """Print what a submission was made from, as a tree, and whether each part of it is still the same."""
    from podium.ensemble.chain import read_chain
    from podium.kaggle.ledger import LEDGER, read_ledger, score_text

    chain = read_chain(workspace, file)
    entries = [e for e in read_ledger(workspace.paths.submissions / LEDGER) if e.sha256 == chain.sha256]
    lines = ["state     sha256        made from, further right", *(line for _, line in chain.lines())]
    lines += [f"submitted {e.time}: {e.state}, public score {score_text(e.public)}" for e in entries]
    print_result({"chain": chain, "submissions": entries}, lines)


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
    chain = read_chain(workspace, file, reads_images=True)
    links = list(chain.lines())
    for line in (line for link, line in links if link.state != OK):
        print_line(line)
    print_line(f"hashes and versions: {sum(link.state == OK for link, _ in links)} of {len(links)} are the same")
    differences, trained = [], []
    held = all(link.state != CHANGED for link, _ in links)
    if held:
        differences = remake_differences(workspace, file)
        print_line(f"the ensemble made again: {', '.join(differences) or 'the same CSV, weights and scores'}")
    if held and not differences and again:
        trained = _train_again(workspace, again)
    held = held and not differences and all(run["held"] for run in trained)
    absent = "; what is not here was not compared" * (held and any(link.state == ABSENT for link, _ in links))
    line = f"{file} {'comes' if held else 'does NOT come'} from this code and data{absent}."
    record = {"file": file, "held": held, "chain": chain, "ensemble_differences": differences, "trained": trained}
    print_result(record, [line])
    raise typer.Exit(not held)


def _train_again(workspace: Opened, names: list[str]) -> list[dict[str, Any]]:
    """Train runs again and print the level at which each is the same; returns a record of each run."""
    from podium.rehearsal import LEVELS, repeat_run

    rehearsed, records = names == ["rehearse"], []
    runs = select_runs(workspace.trainable_runs, [] if names in (["all"], ["rehearse"]) else names)
    for run in runs:
        if not rehearsed or run.seed == run.recipe.seeds[0]:
            level, detail = repeat_run(workspace, run, listener=RunPrinter(run.run), rehearsed=rehearsed)
            print_line(f"{run.run:<20} trained {'twice' if rehearsed else 'again'}: {level} ({detail})")
            records.append({"run": run.run, "held": level != LEVELS[-1], "level": level, "detail": detail})
    close_table()
    return records


@commands.command("grade")
@commands.command()
def score(
    file: CsvFile,
    workspace: Opened = DEFAULT,
    answers: Annotated[
        Path | None,
        typer.Option(help="A CSV of test ids and labels, or a column of 0 and 1 per class; not for digits."),
    ] = None,
    gold: Medal = None,
    silver: Medal = None,
    bronze: Medal = None,
) -> None:
    """Score a CSV by the labels of the test images, with the competition's metric; name the medal."""
    from podium.grade import grade

    given = {"gold": gold, "silver": silver, "bronze": bronze}
    thresholds = {medal: threshold for medal, threshold in given.items() if threshold is not None}
    result = grade(workspace, file, answers=answers, thresholds=thresholds)
    count = len(workspace.lock.test_ids)
    of_all = "" if result.rows == count else f" of {count:,}"
    line = f"{file}: {result.metric} {result.score:.4f} on {result.rows:,}{of_all} withheld test images"
    line += " (95 % interval {:.4f} to {:.4f})".format(*result.interval) if result.interval else ""
    print_result(asdict(result), [line, *([f"medal: {result.medal or 'none'}"] if thresholds else [])])


@commands.command()
def runs(workspace: Opened = DEFAULT) -> None:
    """List the runs: up to date or stale, validation scores, training time."""
    from podium.plan.stamp import read_about

    stale = {run.run: run.stale for run in workspace.runs}
    files = {file.stem: file for file in workspace.paths.predictions_files()}
    abouts = {run.run: run.about or {} for run in workspace.runs}
    abouts |= {name: read_about(files[name]) or {} for name in sorted(files.keys() - stale.keys())}
    scores_of = {name: about["scores"] for name, about in abouts.items() if isinstance(about.get("scores"), dict)}
    names = next((list(scores) for scores in scores_of.values() if len(scores) == 2), ["accuracy", "log_loss"])
    records = []
    for name, about in abouts.items():
        without_recipe = "imported" if about.get("imported") else "no recipe"
        stale_state = "stale" if name in files else "not trained"
        state = {None: without_recipe, True: stale_state, False: "up to date"}[stale.get(name)]
        scores = {score: scores_of.get(name, {}).get(score) for score in names}
        records.append({"run": name, "state": state, **scores} | {key: about.get(key) for key in ("seconds", "device")})
    formats = {"run": "", "state": "", **dict.fromkeys(names, "8.4f"), "seconds": "8.0f", "device": ""}
    print_result({"runs": records}, record_lines(records, formats))


@commands.command()
def report(workspace: Opened = DEFAULT) -> None:
    """Write reports/<competition>/index.html: scores, runs, ensemble, mistakes and submission on one page."""
    start = time.perf_counter()
    from podium.report.page import write_report

    def draw(run: str, rows: "np.ndarray", outputs: "np.ndarray") -> "np.ndarray | None":
        from podium.training.heat_maps import heat_maps  # nothing else here needs torch

        try:
            return heat_maps(workspace, run, rows, outputs)
        except PodiumError as error:  # the page is useful without them
            print_line(f"no heat maps: {error.what}")
            return None

    file = write_report(workspace, draw)
    size, seconds = file.stat().st_size, time.perf_counter() - start
    line = f"wrote {file} ({size / 1e6:.1f} MB, {seconds:.1f} s). Open it in a browser."
    print_result({"file": file, "bytes": size, "seconds": seconds}, [line])
