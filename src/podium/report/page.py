"""Renders the report: one HTML file that contains its style, script, figures, images and data."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from podium import __version__
from podium.files import write_file
from podium.report import sections
from podium.report.heat import Draw
from podium.report.load import load_report_data
from podium.workspace import Workspace

UNKNOWN = "\N{EN DASH}"


def write_report(workspace: Workspace, draw: Draw | None = None) -> Path:
    """Write `reports/<competition>/index.html` and return its path; raises what `load_report_data` raises.

    `draw` computes heat maps, without which only those are shown that an earlier report kept.
    """
    data = load_report_data(workspace)
    loader = PackageLoader("podium.report", ".")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters.update(csv_url=csv_url, number=number, percent=percent, signed=signed, duration=duration)
    text = page.get_template("page.html").render(
        data=data,
        score=sections.score_section(data),
        runs=sections.runs_section(data),
        ensemble=sections.ensemble_section(data),
        mistakes=sections.mistakes_section(data, draw),
        submission=sections.submission_section(data),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    file = workspace.paths.reports / "index.html"
    write_file(file, text.encode(errors="backslashreplace"))
    return file


def csv_url(table: pd.DataFrame) -> str:
    """A data URL of a table as a CSV file, with its index if that has a name."""
    text = table.to_csv(index=table.index.name is not None, float_format="%.6g", lineterminator="\n")
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def number(value: float | None, digits: int = 4) -> str:
    """A number with fixed decimals; a dash where it is unknown."""
    return UNKNOWN if pd.isna(value) else f"{value:.{digits}f}"


def signed(gain: float | None, metric: str, unit: str = " points") -> str:
    """A difference of scores with its sign; percentage points for accuracy, with their `unit`."""
    if pd.isna(gain):
        return UNKNOWN
    return f"{100 * gain:+z.2f}{unit}" if metric == "accuracy" else f"{gain:+z.4f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where it is unknown."""
    return UNKNOWN if pd.isna(value) else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Seconds as hours and minutes, minutes and seconds, or seconds."""
    if pd.isna(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
