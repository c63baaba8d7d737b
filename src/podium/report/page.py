"""One self-contained page: sections rendered by Jinja2, style, script, figures, images and data inside it."""

import base64
import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from podium import __version__
from podium.files import atomic_write
from podium.plan.paths import Project
from podium.report import sections
from podium.report.gallery import Images
from podium.report.gather import gather


def write_report(project: Project, competition_name: str) -> Path:
    """Write `reports/<competition>/index.html` and return where it is; raises what `gather` raises."""
    found = gather(project, competition_name)
    images = Images(found.images)
    page = _environment().get_template("page.html")
    text = page.render(
        found=found,
        has_images=found.images is not None,
        where=sections.where(found),
        runs=sections.runs(found),
        ensemble=sections.ensemble(found),
        wrong=sections.wrong(found, images),
        submission=sections.submission(found, images),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    file = project.report_file(competition_name)
    with atomic_write(file) as stream:
        stream.write(text.encode(errors="backslashreplace"))
    return file


def _environment() -> Environment:
    """Everything is escaped but what is marked here: our own style, script and figures."""
    environment = Environment(
        loader=PackageLoader("podium.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("podium.report")
    environment.globals.update(
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        csv_address=csv_address,
        named_rows=named_rows,
        off_diagonal=off_diagonal,
    )
    environment.filters.update(drawing=Markup, number=number, percent=percent, signed=signed, duration=duration)
    return environment


def csv_address(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A data address of a CSV: what a figure shows, one click away."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.getvalue().encode(errors='replace')).decode()}"


def named_rows(names: Sequence[str], matrix: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Rows of a matrix, each led by its name."""
    return [[name, *row] for name, row in zip(names, matrix, strict=True)]


def off_diagonal(matrix: Sequence[Sequence[float]]) -> list[float]:
    """What a square matrix holds beside its diagonal; a lone 0 where that is nothing."""
    return [value for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j] or [0]


def number(value: float | None, digits: int = 4) -> str:
    """Four decimals; a dash for what is not known."""
    return "\N{EN DASH}" if value is None or value != value else f"{value:.{digits}f}"


def signed(gain: float | None, metric: str) -> str:
    """A gain or a loss with its sign: of accuracy in points."""
    if gain is None or gain != gain:
        return "\N{EN DASH}"
    return f"{100 * gain:+.2f} points" if metric == "accuracy" else f"{gain:+.4f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash for what is not known."""
    return "\N{EN DASH}" if value is None or value != value else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None or seconds != seconds:
        return "\N{EN DASH}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
