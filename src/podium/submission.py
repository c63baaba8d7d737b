"""The CSV for the leaderboard: written, checked against the competition, scored where answers are known.

`check_submission` tells every fault of a file at once, with line numbers and a few examples each.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from podium.config.keys import Submission
from podium.errors import SubmissionError
from podium.files import atomic_write
from podium.metrics import METRICS, wilson_interval

if TYPE_CHECKING:
    from podium.lock import Lock

OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# Rows of probabilities may miss 1 by what rounding costs; Kaggle rescales them anyway.
SUM_TOLERANCE = 1e-3
MOST_EXAMPLES = 4

Cells = list[tuple[int, str]]  # (line number, cell) of one column


@dataclass
class Table:
    """A CSV as found: its header, its rows with their line numbers, and what was wrong on the way."""

    header: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SubmissionScores:
    """Scores on the rows whose answers are known; accuracy with its 95 % interval (Wilson)."""

    scores: dict[str, float]
    accuracy_interval: tuple[float, float]
    rows: int


def expected_columns(settings: Submission, classes: Sequence[str]) -> list[str]:
    """The header of a submission."""
    return [settings.id_column, *([settings.label_column] if settings.kind == "labels" else classes)]


def write_submission(
    file: Path, ids: Sequence[str], *, probabilities: np.ndarray, classes: Sequence[str], settings: Submission
) -> None:
    """Write probabilities `(m, classes)` as a submission, rows in the order of `ids`, atomically.

    A label is the most probable class (the first of equal ones); probabilities have nine significant digits.
    """
    assert probabilities.shape == (len(ids), len(classes)), (probabilities.shape, len(ids), len(classes))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(expected_columns(settings, classes))
    if settings.kind == "labels":
        labels = probabilities.argmax(axis=1).tolist()
        writer.writerows((one, classes[label]) for one, label in zip(ids, labels, strict=True))
    else:
        rows = probabilities.tolist()
        writer.writerows([one, *(f"{value:.9g}" for value in row)] for one, row in zip(ids, rows, strict=True))
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())


def check_submission(file: Path, *, lock: "Lock", settings: Submission) -> list[str]:
    """Everything that is wrong with a CSV for this competition, in words; nothing if it may be submitted."""
    return _check(file, lock, settings)[1]


def score_submission(
    file: Path, answers: Mapping[str, str], *, lock: "Lock", settings: Submission, metric: str = "accuracy"
) -> SubmissionScores:
    """Score a CSV by known answers, id -> class name, for all test rows or some of them.

    Gives the metric, accuracy, macro F1 and log loss; those that need probabilities are left out for labels.
    Raises SubmissionError for a CSV with faults, or answers to something else.
    """
    table, faults = _check(file, lock, settings)
    if faults:
        raise SubmissionError("This CSV cannot be scored.", file=file, faults=faults)
    strange = sorted(answers.keys() - set(lock.test_ids.tolist()))
    strange += sorted(set(answers.values()) - set(lock.classes))
    if strange or not answers:
        found = ", ".join(strange[:MOST_EXAMPLES]) or "none"
        raise SubmissionError("These are not answers to this test.", expected="known ids and classes", found=found)
    place = {name: index for index, name in enumerate(lock.classes)}
    rows = [row for _, row in table.rows if row[0] in answers]
    labels = np.array([place[answers[row[0]]] for row in rows])
    if settings.kind == "labels":
        probabilities = np.eye(len(place))[[place[row[1]] for row in rows]]
    else:
        probabilities = np.array([row[1:] for row in rows], dtype=np.float64)
    return _scores(probabilities, labels, metric=metric, are_labels=settings.kind == "labels")


def _scores(probabilities: np.ndarray, labels: np.ndarray, *, metric: str, are_labels: bool) -> SubmissionScores:
    names = dict.fromkeys((metric, "accuracy", "macro_f1", "log_loss"))
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    return SubmissionScores(
        scores={
            name: METRICS[name](probabilities, labels)
            for name in names
            if not (are_labels and METRICS[name].needs_probabilities)
        },
        accuracy_interval=wilson_interval(correct, len(labels)),
        rows=len(labels),
    )


def _check(file: Path, lock: "Lock", settings: Submission) -> tuple[Table, list[str]]:
    columns, test_ids = expected_columns(settings, lock.classes), lock.test_ids.tolist()
    table = _read_table(file)
    if not table.header:
        return table, table.faults or ["the file is empty"]
    if table.header[0] in set(test_ids):
        table.faults.append(f"line 1: no header, expected {_short(','.join(columns))}")
        table.rows.insert(0, (1, table.header))
        table.header = columns
    width = len(table.header)
    odd = [(line, f"{len(row)} cells") for line, row in table.rows if len(row) != width]
    faults = table.faults + _header_faults(table.header, columns)
    faults += _told(f"rows have other than {width} cells", odd)
    cells: dict[str, Cells] = {}
    for name, place in _places(table.header, columns).items():
        cells[name] = [(line, row[place]) for line, row in table.rows if len(row) == width]
    empty = [(line, name) for name, column in cells.items() for line, cell in column if not cell.strip()]
    faults += _told("cells are empty", sorted(empty))
    if settings.id_column in cells:
        faults += _id_faults(cells.pop(settings.id_column), test_ids)
    if settings.kind == "labels":
        faults += _label_faults(cells.get(settings.label_column, []), lock.classes)
    else:
        faults += _probability_faults(cells, complete=len(cells) == len(lock.classes))
    return table, faults


def _read_table(file: Path) -> Table:
    """Read as much of the CSV as can be read."""
    table = Table()
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        table.faults.append(f"cannot be read: {error.strerror}")
        return table
    except UnicodeDecodeError as error:
        table.faults.append(f"not UTF-8 text: byte {error.object[error.start]:#04x} at offset {error.start}")
        return table
    if text.startswith("\ufeff"):
        table.faults.append("line 1: begins with a byte order mark; save as UTF-8 without BOM")
        text = text[1:]
    first = text.split("\n", 1)[0]
    delimiter = "," if "," in first else next((one for one in OTHER_DELIMITERS if one in first), ",")
    if delimiter != ",":
        table.faults.append(f"line 1: columns are separated by {OTHER_DELIMITERS[delimiter]}, expected commas")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        table.header = next(reader, [])
        table.rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        table.faults.append(f"line {reader.line_num}: not CSV from here on ({error})")
    return table


def _header_faults(header: Sequence[str], columns: Sequence[str]) -> list[str]:
    missing = [name for name in columns if name not in header]
    extra = [name for name in header if name not in columns]
    twice = [name for name, count in Counter(header).items() if count > 1]
    forms = {name.lower().strip(): name for name in extra}
    told = []
    for name in missing[:MOST_EXAMPLES]:
        nearest = get_close_matches(name.lower(), forms, n=1)
        told.append(f"'{_short(name)}'" + (f" (is it '{_short(forms[nearest[0]])}'?)" if nearest else ""))
    faults = _told("columns are missing", told, count=len(missing))
    faults += _told("columns do not belong here", [f"'{_short(name)}'" for name in extra])
    faults += _told("columns are there more than once", [f"'{_short(name)}'" for name in twice])
    if not faults and list(header) != list(columns):
        found, expected = _short(",".join(header)), _short(",".join(columns))
        faults.append(f"line 1: columns in another order: {found}, expected {expected}")
    return faults


def _places(header: Sequence[str], columns: Sequence[str]) -> dict[str, int]:
    """Expected column -> where it is; in a header of the right length misnamed ones are taken by position."""
    places = {name: header.index(name) for name in columns if name in header}
    if len(header) == len(columns):
        unnamed = [place for place, name in enumerate(header) if name not in columns]
        places |= dict(zip([name for name in columns if name not in header], unnamed, strict=False))
    return places


def _id_faults(cells: Cells, test_ids: Sequence[str]) -> list[str]:
    known = set(test_ids)
    lines: dict[str, int] = {}
    unknown, twice = [], []
    for line, one in cells:
        if one not in known:
            meant = next((form for form in _other_forms(one) if form in known), "")
            unknown.append((line, f"'{_short(one)}'" + (f", did you mean '{meant}'?" if meant else "")))
        elif one in lines:
            twice.append((line, f"'{one}' as in line {lines[one]}"))
        else:
            lines[one] = line
    missing = [f"'{one}'" for one in test_ids if one not in lines]
    faults = _told("ids are missing", missing) + _told("ids are unknown", unknown) + _told("ids are repeated", twice)
    expected = [one for one in test_ids if one in lines]
    for (one, line), other in zip(lines.items(), expected, strict=True):
        if one != other:
            return [
                *faults,
                f"line {line}: rows in another order than the sample: id '{one}', expected '{other}'",
            ]
    return faults


def _other_forms(one: str) -> Iterable[str]:
    """What an id may have been before a spreadsheet or a listing of files changed it."""
    bare = one.strip()
    return bare, Path(bare).stem, Path(bare).name, bare.removesuffix(".0"), bare.lstrip("0")


def _label_faults(cells: Cells, classes: Sequence[str]) -> list[str]:
    known = set(classes)
    lines: dict[str, list[int]] = {}
    for line, name in cells:
        if name not in known and name.strip():
            lines.setdefault(name, []).append(line)
    spellings = {one.lower(): one for one in classes}
    told = []
    for name, where in list(lines.items())[: MOST_EXAMPLES + 1]:
        nearest = get_close_matches(name.lower().strip(), spellings, n=1)
        meant = f", did you mean '{spellings[nearest[0]]}'?" if nearest else ""
        told.append((where[0], f"'{_short(name)}' ({len(where)} rows{meant})"))
    words = "class names are unknown" if len(lines) != 1 else "class name is unknown"
    return _told(words, told, count=len(lines))


def _probability_faults(columns: Mapping[str, Cells], *, complete: bool) -> list[str]:
    strange, outside = [], []
    totals: dict[int, float] = {}
    for name, cells in columns.items():
        for line, cell in cells:
            value = _number(cell)
            if math.isnan(value) and cell.strip():
                strange.append((line, f"'{_short(cell)}' for {_short(name)}"))
            elif not 0 <= value <= 1 and cell.strip():
                outside.append((line, f"{cell} for {_short(name)}"))
            totals[line] = totals.get(line, 0.0) + value
    sums = [(line, f"{total:.6g}") for line, total in totals.items() if abs(total - 1) > SUM_TOLERANCE]
    faults = _told("cells are not finite numbers", sorted(strange))
    faults += _told("probabilities are not between 0 and 1", sorted(outside))
    return faults + (_told("rows do not sum to 1", sums) if complete else [])


def _number(cell: str) -> float:
    """The cell's value, or NaN where it is no finite number as other programs write them."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and cell.isascii() and "_" not in cell else math.nan


def _told(words: str, found: Sequence[str | tuple[int, str]], *, count: int | None = None) -> list[str]:
    """One fault for all findings of a kind: how many, and the first few, with their lines."""
    if not found:
        return []
    shown = [one if isinstance(one, str) else f"line {one[0]}: {one[1]}" for one in found[:MOST_EXAMPLES]]
    count = len(found) if count is None else count
    return [f"{count} {words}: " + "; ".join(shown) + ("; ..." if count > len(shown) else "")]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
