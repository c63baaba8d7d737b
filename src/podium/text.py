"""Tables as lines of text, and as CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as a CSV with Unix line ends."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def csv_rows(content: bytes, encoding: str = "utf-8") -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV, blank ones too, and the line on which each ends; raises ValueError if it is none."""
    try:
        reader = csv.reader(io.StringIO(content.decode(encoding), newline=""), strict=True)
        yield from ((reader.line_num, row) for row in reader)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"not UTF-8 text: byte {byte:#04x} at offset {error.start}") from None
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: not CSV from here on ({error})") from None


def _cell(value: Any, form: str) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return format(value, form) if isinstance(value, int | float) else str(value)
