"""The tables of a competition: CSV files in UTF-8 whose first row names the columns."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from podium.data.archives import Files


@dataclass(frozen=True)
class Table:
    """The cells of a CSV, without blanks around them."""

    header: Sequence[str] = ()
    rows: Mapping[int, Sequence[str]] = field(default_factory=dict)  # by the line on which each ends; none is short

    def column(self, title: str) -> list[str]:
        """The cells of a column."""
        place = self.header.index(title)
        return [row[place] for row in self.rows.values()]


def read_table(files: Files, name: str, faults: list[str]) -> Table:
    """The table; without rows, and with a fault in `faults`, if it is missing, has none or cannot be read."""
    where, rows = files.where(name), {}
    if not files.has_file(name):
        faults.append(f"{where}: missing")
        return Table()
    try:
        reader = csv.reader(io.StringIO(files.read(name).decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(filter(None, reader), [])]
        for row in filter(None, reader):
            rows[reader.line_num] = [cell.strip() for cell in row] + [""] * (len(header) - len(row))
    except (UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{where}: not a CSV table in UTF-8 ({error}); save it as UTF-8")
        return Table()
    faults += [] if rows else [f"{where}: no rows"]
    return Table(header, rows)
