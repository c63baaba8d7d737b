"""Tables as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any


def table_lines(rows: Sequence[Sequence[str]], alignments: str) -> list[str]:
    """Lines of cells, one column below the other, each aligned as one of `alignments` says: < left, > right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip(alignments, widths, strict=True))
    return [" ".join(f"{cell:{a}{w}}" for cell, (a, w) in zip(row, columns, strict=True)).rstrip() for row in rows]


def record_lines(records: Sequence[Mapping[str, Any]], formats: Mapping[str, str]) -> list[str]:
    """A heading and a line for each record, if there are any. `formats` are those of the columns' numbers; "" of texts.

    What is unknown (not there, None, NaN) is "-".
    """
    if not records:
        return []
    values = [[record.get(name) for name in formats] for record in records]
    forms = list(formats.values())
    rows = [[_cell(value, form) for value, form in zip(row, forms, strict=True)] for row in values]
    heading = [name.replace("_", " ") for name in formats]
    return table_lines([heading, *rows], "".join(">" if form else "<" for form in forms))


def _cell(value: Any, form: str) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return format(value, form) if isinstance(value, int | float) else str(value)
