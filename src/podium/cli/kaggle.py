"""Commands that talk to Kaggle, and train in a notebook there."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podium.cli.options import DEFAULT, DataPlace, Opened, RunNames, finite
from podium.cli.printing import print_line, print_result
from podium.plan.runs import PlannedRun, longest_first, select_runs
from podium.text import record_lines

if TYPE_CHECKING:
    from podium.kaggle.ledger import Entry
    from podium.kaggle.notebooks.train import ImportedOutput
    from podium.kaggle.session import Session

commands = typer.Typer()

File = Annotated[Path | None, typer.Argument(help="The CSV; default: submissions/<competition>/ensemble.csv.")]
Message = Annotated[str, typer.Option("--message", "-m", help="Description in Kaggle's list of submissions.")]
Force = Annotated[bool, typer.Option("--force", help="Submit unusual class shares, or the same file again.")]
ForceNotebook = Annotated[
    bool, typer.Option("--force", help="Upload and push again; forget a notebook that is still running.")
]
Score = Annotated[
    float | None, typer.Option(callback=finite, help="A score; default: the best public score in the ledger.")
]


@commands.command()
def submit(message: Message = "", file: File = None, workspace: Opened = DEFAULT, force: Force = False) -> None:
    """Check a CSV, upload it to Kaggle once, wait for its score, and record it in the ledger.

    Where the competition takes notebooks only, and no CSV is named, it is `podium notebook`.
    """
    from podium.kaggle.submit import submit as submit_file
    from podium.submission import require_test

    require_test(workspace.lock)
    session = _open_session(workspace)
    ensemble = workspace.paths.submissions / "ensemble.csv"
    if message.strip() and file in (None, ensemble) and session.kaggle.about()["isKernelsSubmissionsOnly"]:
        print_line("this competition takes notebooks only")
        notebook(message, workspace, force)
        return
    _print_entry(submit_file(session, file or ensemble, message, force=force), session)


def _print_entry(entry: "Entry", session: "Session") -> None:
    from podium.kaggle.ledger import score_text

    scores = map(score_text, (entry.public, entry.private, entry.cross_fitted, entry.standard_error))
    text = "public score {}, private {}; cross-fitted {} (standard error {})".format(*scores)
    lines = [f"{entry.file}: submission {entry.ref}, {text}", f"recorded in {session.ledger}"]
    print_result(asdict(entry) | {"ledger": session.ledger}, lines)


@commands.command()
def submissions(workspace: Opened = DEFAULT) -> None:
    """Ask Kaggle for scores, compare validation with leaderboard, and name two submissions to select as final."""
    from podium.kaggle.session import settle
    from podium.kaggle.standings import MIN_FOR_CORRELATION, rank_correlation, select_final

    session = _open_session(workspace)
    with session.ledger_lock():
        entries, _ = settle(session)
    if not entries:
        line = f"{workspace.name}: nothing was submitted yet; make submit MESSAGE=..."
        print_result({"submissions": [], "rank_correlation": None, "select": []}, [line])
        return
    correlation, selected = rank_correlation(entries), select_final(entries, workspace.competition.metric)
    line = f"rank correlation: needs {MIN_FOR_CORRELATION} scored submissions of different ensembles"
    if correlation is not None:
        line = f"rank correlation of cross-fitted and public scores: {correlation:+.2f}"
    records = [asdict(entry) for entry in entries]
    scores = dict.fromkeys(("cross_fitted", "public", "private"), "8.6g")
    lines = record_lines(records, {"ref": "", "time": "", "state": "", **scores, "message": "", "reason": ""})
    lines += [line, *(f"select {entry.ref} ({entry.file}, {entry.message}): {reason}" for entry, reason in selected)]
    select = [{"ref": entry.ref, "file": entry.file, "reason": reason} for entry, reason in selected]
    print_result({"submissions": records, "rank_correlation": correlation, "select": select}, lines)


@commands.command()
def download(workspace: Opened = DEFAULT) -> None:
    """Download the competition's files, or those of [kaggle] files, into data/, whole or not at all."""
    from podium.kaggle.download import check_recorded
    from podium.kaggle.download import download as download_files

    session, folder = _open_session(workspace), workspace.paths.root / "data"
    place = download_files(session.kaggle, folder, workspace.competition.kaggle.files, log=print_line)
    if same := check_recorded(workspace, folder):
        print_line(f"{same} file(s) are those that data.lock was made from")
    if workspace.competition.data.archive not in ("", place.name, f"{place.name}.zip"):
        print_line(f'competition.toml names another archive: set [data] archive = "{place.name}"')


@commands.command()
def leaderboard(workspace: Opened = DEFAULT, score: Score = None) -> None:
    """Print rank and medal zone of a score, and how far each zone is in standard errors of the validation score."""
    from podium.errors import KaggleError
    from podium.kaggle.ledger import read_ledger
    from podium.kaggle.standings import best_public, medal_zones, rank_of, read_leaderboard
    from podium.metrics import METRICS

    session = _open_session(workspace)
    metric = workspace.competition.metric
    best = best_public(read_ledger(session.ledger), metric)
    if score is None and best is None:
        fix = "make submit MESSAGE=..., or SCORE=0.9"
        raise KaggleError("No submission has a score yet.", file=session.ledger, fix=fix)
    value = score if score is not None else best.public
    with tempfile.TemporaryDirectory() as folder:
        scores = read_leaderboard(session.kaggle.leaderboard(Path(folder)))
    rank, zones = rank_of(value, scores, metric), medal_zones(scores, metric)
    medal = next((name for name, last_rank, _ in zones if rank <= last_rank), None)
    lines = [f"{metric} {value:.5g}: rank {rank:,}, {medal or 'no'} medal; the leaderboard has {len(scores):,} teams"]
    medals = [dict(zip(("medal", "last_rank", "last_score"), zone, strict=True)) for zone in zones]
    gain, error = METRICS[metric].gain, best and best.standard_error
    for zone in medals:
        zone["standard_errors"] = (gain(zone["last_score"]) - gain(value)) / error if error else None
    lines += record_lines(medals, {"medal": "", "last_rank": ",", "last_score": ".5g", "standard_errors": "+.1f"})
    about = {"metric": metric, "score": value, "rank": rank, "teams": len(scores), "medal": medal, "medals": medals}
    print_result(about, lines)


def competition_text(about: dict[str, Any]) -> str:
    """What Kaggle says about a competition, by the API's names, in a line."""
    accepted = "accepted" if about["userHasEntered"] else "not accepted yet: accept them on its page"
    kind = "notebooks only (make notebook)" if about["isKernelsSubmissionsOnly"] else "CSV files (make submit)"
    parts = {
        "metric": about["evaluationMetric"],
        "submissions a day": about["maxDailySubmissions"],
        "deadline": (about["deadline"] or "")[:10],
        "teams of at most": about["maxTeamSize"],
    }
    known = "".join(f"; {name}: {value}" for name, value in parts.items() if value)
    return f"at Kaggle it takes {kind}{known}; its rules: {accepted}"


def _open_session(workspace: Opened, goal: str = "submit", *, names_competition: bool = True) -> "Session":
    from podium.kaggle.session import open_session

    return open_session(workspace, log=print_line, goal=goal, names_competition=names_competition)


@commands.command()
def kernel(runs: RunNames = None, workspace: Opened = DEFAULT, force: ForceNotebook = False) -> None:
    """Train stale runs on Kaggle's GPUs: pack, push, follow, and import the predictions into oof/."""
    from podium.kaggle.notebooks.train import train_in_notebook

    stale = [run for run in longest_first(select_runs(workspace.trainable_runs, runs or [])) if run.stale]
    download_weights(stale)

    def hours() -> float:
        from podium.training.estimate import estimate_seconds, total_seconds

        print_line("timing some steps of each recipe, as make estimate does")
        seconds, devices = total_seconds(workspace.competition, stale, estimate_seconds(workspace, stale))
        print_line(f"the runs would take {seconds / 3600:.1f} hours on {devices} here")
        return seconds / 3600

    session = _open_session(workspace, "kernel", names_competition=False)
    result = train_in_notebook(session, stale, hours, force=force)
    _print_imported(result, workspace.name, following="make ensemble")


@commands.command()
def notebook(message: Message = "", workspace: Opened = DEFAULT, force: ForceNotebook = False) -> None:
    """Push a notebook that predicts the test images by the ensemble; with a message, submit it (code competitions)."""
    from podium.kaggle.notebooks.blend import run_blend_notebook
    from podium.kaggle.submit import submit as submit_file

    session = _open_session(workspace, "notebook", names_competition=bool(message.strip()))
    push, file = run_blend_notebook(session, force=force)
    print_line(f"version {push.version} has run: https://www.kaggle.com/code/{push.notebook}")
    if not message.strip():
        print_line(f"next: make notebook COMPETITION={workspace.name} MESSAGE='what is new in it' submits this version")
        return
    options = {"notebook": push.notebook, "version": push.version, "force": force}
    _print_entry(submit_file(session, file, message, **options), session)


@commands.command("rehearse-kernel")
def rehearse_kernel(runs: RunNames = None, workspace: Opened = DEFAULT, data: DataPlace = None) -> None:
    """Run here, offline, what `kernel` would push; everything is written below .rehearsal/. Without RUNS one run."""
    from podium.kaggle.notebooks.rehearse import rehearse_training

    wanted = select_runs(workspace.trainable_runs, runs or [])[: None if runs else 1]
    images = _find_images(workspace, data)
    download_weights(wanted)
    result = rehearse_training(workspace, wanted, images=images)
    _print_imported(result, workspace.name, following="make kernel")


@commands.command("rehearse-notebook")
def rehearse_notebook(workspace: Opened = DEFAULT, data: DataPlace = None) -> None:
    """Run here, offline, what `notebook` would push, on the visible test images; compare its CSV with ensemble.csv."""
    from podium.kaggle.notebooks.rehearse import rehearse_blend

    result = rehearse_blend(workspace, images=_find_images(workspace, data))
    print_line(f"the rehearsed CSV: {result}; next: make notebook COMPETITION={workspace.name}")


def _find_images(workspace: Opened, data: str | None) -> Path | None:
    """The archive or folder of the competition's images; None for digits, which scikit-learn has."""
    from podium.data.locate import download_source, find_source, quiet

    settings = workspace.competition
    if settings.data.source == "digits":
        return None
    source = find_source(settings, workspace.paths, data=data)
    return (source or download_source(settings, workspace.paths, progress=quiet)).path


def _print_imported(result: "ImportedOutput | None", competition: str, *, following: str) -> None:
    if result is None:
        print_line(f"{competition}: the runs are up to date.")
        return
    print_line(f"imported: {', '.join(result.imported) or 'none'}; next: {following} COMPETITION={competition}")
    if result.left:
        print_line(
            f"the session was too short for {', '.join(result.left)}: make kernel COMPETITION={competition} again"
        )


def download_weights(runs: Sequence[PlannedRun]) -> None:
    """Download the published weights that runs start from, where they are not here yet: a notebook is offline."""
    from podium.kaggle.notebooks.package import published_weights_file

    for recipe in {run.recipe_name: run.recipe for run in runs}.values():
        file = published_weights_file(Path("."), recipe)
        if recipe.pretrained is not True or file.is_file():
            continue
        from safetensors.torch import save

        from podium.files import write_file
        from podium.training.networks.published import published_state

        print_line(f"downloading the published weights of {recipe.architecture}")
        write_file(file, save({name: value.contiguous() for name, value in published_state(recipe).items()}))
