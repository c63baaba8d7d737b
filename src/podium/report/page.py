"""Renders the report: one HTML file that contains its style, script, figures, images and data."""

import base64
import csv
import io
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from podium import __version__
from podium.files import write_file
from podium.report import sections
from podium.report.load import load_report_data
from podium.workspace import Workspace

UNKNOWN = "\N{EN DASH}"


def write_report(workspace: Workspace) -> Path:
    """Write `reports/<competition>/index.html` and return its path; raises what `load_report_data` raises."""
    data = load_report_data(workspace)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            data=data,
            score=sections.score_section(data),
            runs=sections.runs_section(data),
            ensemble=sections.ensemble_section(data),
            mistakes=sections.mistakes_section(data),
            submission=sections.submission_section(data),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
        )
    )
    file = workspace.paths.reports / "index.html"
    write_file(file, text.encode(errors="backslashreplace"))
    return file


def _environment() -> Environment:
    """The template engine. It escapes everything except style, script and figures, which are Markup."""
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
        csv_url=csv_url,
    )
    environment.filters.update(markup=Markup, number=number, percent=percent, signed=signed, duration=duration)
    return environment


def csv_url(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A data URL of a CSV file with these columns and rows."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.getvalue().encode(errors='replace')).decode()}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed decimals; a dash where it is unknown."""
    return UNKNOWN if _is_unknown(value) else f"{value:.{digits}f}"


def signed(gain: float | None, metric: str) -> str:
    """A difference of scores with its sign; percentage points for accuracy."""
    if _is_unknown(gain):
        return UNKNOWN
    return f"{100 * gain:+.2f} points" if metric == "accuracy" else f"{gain:+.4f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where it is unknown."""
    return UNKNOWN if _is_unknown(value) else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Seconds as hours and minutes, minutes and seconds, or seconds."""
    if _is_unknown(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _is_unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
