"""The tables of a competition: CSV files in UTF-8 whose first row names the columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from podium.data.listing import base_name, names_by_id, repeated_ids, stem
from podium.errors import DataError
from podium.files import os_error_as
from podium.text import csv_rows


@dataclass(frozen=True)
class Table:
    """The cells of a CSV, without blanks around them."""

    file: Path | None = None
    header: Sequence[str] = ()
    lines: Sequence[int] = ()  # the line on which each row ends
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)  # title -> cells, "" where a row is short


@os_error_as(DataError, "A table cannot be read.")
def read_table(file: Path, faults: list[str]) -> Table:
    """The table; without rows, and with a fault in `faults`, if it is missing, has none or cannot be read."""
    if not file.is_file():
        faults.append(f"{file}: missing")
        return Table(file)
    try:
        rows = [(line, [cell.strip() for cell in row]) for line, row in csv_rows(file.read_bytes(), "utf-8-sig") if row]
    except ValueError as error:
        faults.append(f"{file}: not a CSV table in UTF-8 ({error}); save it as UTF-8")
        return Table(file)
    (_, header), *rows = rows or [(0, [])]
    faults += [] if rows else [f"{file}: no rows"]
    columns = [*zip_longest(header, *(row for _, row in rows), fillvalue="")][: len(header)]
    return Table(file, header, [line for line, _ in rows], {name: cells for name, *cells in columns})


def image_rows(
    table: Table,
    columns: Sequence[str],
    names: Mapping[str, str],
    faults: list[str],
    *,
    unknown: str,
    may_be_empty: Sequence[str] = (),
) -> list[tuple[str, list[str]]]:
    """The image's file name and the cells of `columns` for each row of a table that names an image.

    The first column is the id, and `names` maps ids to file names; an id that it lacks gets the fault `unknown`.
    """
    if not table.lines:
        return []
    if missing := [column for column in columns if column not in table.header]:
        found = ", ".join(map(repr, table.header))
        faults.append(f"{table.file}: no column {', '.join(map(repr, missing))}; it has {found}")
        return []
    if repeated := [column for column in dict.fromkeys(columns) if table.header.count(column) > 1]:
        faults.append(f"{table.file}: several columns are called {', '.join(map(repr, repeated))}")
    rows, places = [], []
    for line, *cells in zip(table.lines, *(table.columns[column] for column in columns), strict=True):
        where, name = f"{table.file} line {line}", names.get(cells[0])
        empty = [column for column, cell in zip(columns, cells, strict=True) if not cell and column not in may_be_empty]
        faults += [f"{where}: {column} is empty" for column in empty]
        if name is not None:
            rows.append((name, cells))
        elif cells[0]:
            faults.append(f"{where}: {cells[0]!r} {unknown}")
        places.append((name or cells[0], where))
    faults += repeated_ids(places)
    return rows


def image_cells(
    table: Table, columns: Sequence[str], ids: Sequence[str], faults: list[str], *, may_be_empty: Sequence[str] = ()
) -> list[list[str]]:
    """The cells of `columns`, but for the first, which names an image, of each image in `ids`.

    A table may name an image by its id or file name, and have rows of other images. No row is a fault.
    """
    by_id, names = names_by_id(ids), {}
    for cell in table.columns.get(columns[0], ()):
        ways = cell, stem(cell), stem(base_name(cell))
        names[cell] = next((by_id[way] for way in ways if way in by_id), cell)
    rows = image_rows(table, columns, names, faults, unknown="", may_be_empty=may_be_empty)
    cells = {name: others for name, (_, *others) in rows}
    faults += [f"{table.file}: no row for the image {id_!r}" for id_ in ids if rows and id_ not in cells]
    return [cells.get(id_, [""] * (len(columns) - 1)) for id_ in ids]
