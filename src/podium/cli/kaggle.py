"""Commands that talk to Kaggle; they read arguments and print, like those in cli.py."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podium.cli.options import DEFAULT, CompetitionName, tell_line
from podium.plan.paths import Project

if TYPE_CHECKING:
    from podium.kaggle.ledger import Entry
    from podium.kaggle.standings import Standing

commands = typer.Typer()

File = Annotated[Path | None, typer.Argument(help="The CSV; none: submissions/<competition>/ensemble.csv.")]
Message = Annotated[str, typer.Option("--message", "-m", help="What Kaggle's list of submissions says of it.")]
Force = Annotated[bool, typer.Option("--force", help="Submit strange class shares, or the same bytes again.")]


@commands.command()
def submit(
    message: Message = "", file: File = None, competition: CompetitionName = DEFAULT, force: Force = False
) -> None:
    """Check a CSV, upload it to Kaggle once, wait for its score, and write it all into the ledger."""
    from podium.kaggle.session import open_desk
    from podium.kaggle.submit import submit as submit_file

    desk = open_desk(Project.at("."), competition, tell=tell_line)
    entry = submit_file(desk, file or _ensemble(competition), message, force=force)
    _print_score(entry, desk.ledger)


@commands.command()
def submissions(competition: CompetitionName = DEFAULT) -> None:
    """Ask Kaggle for scores, show validation against leaderboard, and say which two to select as final."""
    from podium.kaggle.session import alone, open_desk, settle
    from podium.kaggle.standings import FEWEST_FOR_CORRELATION, rank_correlation, select_final

    desk = open_desk(Project.at("."), competition, tell=tell_line)
    with alone(desk):
        entries, _ = settle(desk)
    if not entries:
        print(f"{competition}: nothing was submitted yet; make submit MESSAGE=...")
        return
    print(f"{'ref':>10} {'time':<20} {'state':<9} {'cross-fitted':>12} {'public':>9} {'private':>9}  message")
    for one in entries:
        scores = f"{one.cross_fitted or '-':>12} {one.public or '-':>9} {one.private or '-':>9}"
        reason = f" ({one.reason})" if one.reason else ""
        print(f"{one.ref or '-':>10} {one.time:<20} {one.state:<9} {scores}  {one.message}{reason}")
    correlation = rank_correlation(entries)
    if correlation is not None:
        print(f"rank correlation of cross-fitted and public scores: {correlation:+.2f}")
    else:
        print(f"rank correlation: from {FEWEST_FOR_CORRELATION} scored submissions of ensembles that differ")
    for one, reason in select_final(entries, desk.settings.metric):
        print(f"select {one.ref} ({one.file}, {one.message}): {reason}")


@commands.command()
def download(competition: CompetitionName = DEFAULT) -> None:
    """Fetch the competition's files from Kaggle into data/, whole or not at all."""
    from podium.kaggle.download import download as fetch
    from podium.kaggle.session import open_desk

    project = Project.at(".")
    desk = open_desk(project, competition, tell=tell_line)
    file = fetch(desk.kaggle, project.root / "data", tell=tell_line)
    print(f"{file}: {file.stat().st_size:,} bytes")
    if desk.settings.data.archive not in ("", file.name):
        print(f'competition.toml names another archive: set [data] archive = "{file.name}"')


@commands.command()
def leaderboard(
    competition: CompetitionName = DEFAULT,
    score: Annotated[float | None, typer.Option(help="A score; none: the best public score in the ledger.")] = None,
) -> None:
    """Say rank and medal zone of a score, and how far the next zone is in standard errors of validation."""
    from podium.errors import KaggleError
    from podium.kaggle.ledger import read_ledger
    from podium.kaggle.session import open_desk
    from podium.kaggle.standings import best_public, read_leaderboard, stand

    desk = open_desk(Project.at("."), competition, tell=tell_line)
    metric = desk.settings.metric
    best = best_public(read_ledger(desk.ledger), metric)
    if score is None and best is None:
        raise KaggleError("No submission is scored yet.", file=desk.ledger, fix="make submit MESSAGE=..., or SCORE=0.9")
    mine = score if score is not None else float(best.public)
    with tempfile.TemporaryDirectory() as folder:
        standing = stand(mine, read_leaderboard(desk.kaggle.leaderboard(Path(folder))), metric)
    zone = "no medal zone" if standing.zone == "none" else f"the {standing.zone} zone"
    print(f"{metric} {mine:.5g}: {_ranked(standing)}, {zone}")
    if standing.next_zone is not None:
        gap = abs(standing.next_score - mine)
        print(
            f"{standing.next_zone} ends at rank {standing.next_rank:,} with {standing.next_score:.5g}: {gap:.5g} away"
        )
        # Another score than the ledger's is of a validation that is not known.
        if score is None and best.standard_error and float(best.standard_error):
            errors = gap / float(best.standard_error)
            print(f"that is {errors:.1f} standard errors of the validation score of submission {best.ref}")


def _ranked(standing: "Standing") -> str:
    if not standing.teams:
        return "no team is on the leaderboard yet"
    if standing.rank > standing.teams:
        return f"below all {standing.teams:,} teams"
    return f"rank {standing.rank:,} of {standing.teams:,} teams"


def _ensemble(competition: str) -> Path:
    return Project.at(".").submissions_folder(competition) / "ensemble.csv"


def _print_score(entry: "Entry", ledger: Path) -> None:
    scores = f"public score {entry.public or 'not told'}"
    if entry.private:
        scores += f", private {entry.private}"
    if entry.cross_fitted:
        error = f" (standard error {entry.standard_error})" if entry.standard_error else ""
        scores += f"; cross-fitted {entry.cross_fitted}{error}"
    tell_line(f"{entry.file}: submission {entry.ref}, {scores}")
    print(f"written into {ledger}")
