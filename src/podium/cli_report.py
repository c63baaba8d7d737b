"""The command that writes the page which people look at."""

import time

import typer

from podium.cli_options import DEFAULT, CompetitionName
from podium.project import Project

commands = typer.Typer()


@commands.command()
def report(competition: CompetitionName = DEFAULT) -> None:
    """Write reports/<competition>/index.html: scores, runs, ensemble, mistakes and submission on one page."""
    from podium.report.page import write_report

    began = time.perf_counter()
    file = write_report(Project.at("."), competition)
    size = file.stat().st_size / 1e6
    print(f"wrote {file} ({size:.1f} MB, {time.perf_counter() - began:.1f} s): open it in a browser")
