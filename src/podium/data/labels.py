"""Labels in the cells of a table: a class name, a number, names with a separator, or columns of 0 and 1."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.config.competition import separator_of
from podium.config.keys import Competition, Data
from podium.data.listing import natural_order, numbers_in
from podium.data.tables import image_rows, read_table
from podium.errors import DataError, examples
from podium.lock import Lock
from podium.targets.target import BETWEEN_NAMES, LARGEST_NUMBER

# More labels than these are not classes if all of them are numbers and not all of them integers.
MOST_NUMBERS = 10
MOST_EXAMPLES = 4
# Cells that stand for a missing number.
MISSING = ("", "na", "n/a", "nan", "null")


class KnownLabels(NamedTuple):
    """Rows of the lock's test images, (p,), and their labels as the target has them, (p, ...)."""

    rows: np.ndarray
    labels: np.ndarray


def without_missing(texts: Iterable[str]) -> set[str]:
    """The texts; if all others are numbers, without those that stand for a missing number."""
    texts = set(texts)
    known = {text for text in texts if text.lower() not in MISSING}
    return known if numbers_in(known) else texts


def label_columns(data: Data, header: Sequence[str]) -> list[str]:
    """The columns of a table with this header that hold the labels."""
    if data.target == "multi-label" and not (data.label_columns or data.label_separator):
        return [column for column in header if column not in (data.id_column, data.group_column)]
    return list(data.label_columns) or [data.label_column]


def read_labels(
    data: Data, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, table: str, faults: list[str]
) -> tuple[list[str | None], tuple[str, ...]]:
    """The label of each row, as a listing has it, None if it is missing; and the names of columns if there are several.

    `rows` are ids and the cells of `columns`; `table` is the place of the table, for `faults` and errors. Raises
    DataError where classes look like numbers.
    """
    if data.label_separator:
        separator = data.label_separator.strip() or None  # None: any number of spaces
        names = [sorted({name.strip() for name in cell.split(separator)} - {""}) for _, (cell,) in rows]
        return [BETWEEN_NAMES.join(row) for row in names], tuple(natural_order({name for row in names for name in row}))
    if data.target == "multi-label" or len(columns) > 1:
        return _names_of_columns(data, columns, rows, table=table, faults=faults), tuple(columns)
    labels = [cell for _, (cell,) in rows]
    is_label, expected = _is_number, f"a finite number, {LARGEST_NUMBER:g} at most"
    if data.target == "ordinal":
        is_label, expected = re.compile("-?[0-9]+").fullmatch, "an integer"
    elif data.target == "class":
        known = without_missing(labels)
        _refuse_numbers(data, natural_order(known - {""}), table=table)
        is_label, expected = known.__contains__, "a label; all others are numbers"
    if wrong := [f"{id_!r} has {cell!r}" for id_, (cell,) in rows if not is_label(cell)]:
        faults.append(_wrong_cells(table, wrong, expected))
    elif data.target == "ordinal":
        grades, found = sorted(set(numbers_in(labels))), examples(natural_order(set(labels)), most=9)
        if len(set(labels)) > len(grades):
            faults.append(f"{table}: an integer is written in several ways, such as 1 and 01: {found}")
        elif len({high - low for low, high in pairwise(grades)}) > 1:
            faults.append(f"{table}: ordinal labels need equal steps, as 0 to 4 have; found {found}")
    texts = [label if is_label(label) else None for label in labels]
    return texts, (data.label_column,) if data.target == "number" else ()


def _names_of_columns(
    data: Data, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, table: str, faults: list[str]
) -> list[str]:
    """The names of the columns with 1; with one class per row, there must be one."""
    wrong, labels = [], []
    for id_, cells in rows:
        values = [float(cell) if numbers_in([cell]) else -1 for cell in cells]
        wrong += [
            f"{id_!r} has {cells[k]!r} in {columns[k]!r}" for k, value in enumerate(values) if value not in (0, 1)
        ]
        if data.target == "class" and sum(values) != 1 and set(values) <= {0, 1}:
            wrong.append(f'{id_!r} has {sum(values):.0f} of its columns with 1; several: target = "multi-label"')
        labels.append(BETWEEN_NAMES.join(name for name, value in zip(columns, values, strict=True) if value == 1))
    if wrong:
        expected = "one column of label_columns with 1" if data.target == "class" else "0 or 1 in each label column"
        faults.append(_wrong_cells(table, wrong, expected))
    return labels


def _wrong_cells(table: str, wrong: Sequence[str], expected: str) -> str:
    return f"{table}: {len(wrong)} wrong cell(s); expected {expected}: {'; '.join(wrong[:MOST_EXAMPLES])}"


def _is_number(cell: str) -> bool:
    return any(abs(number) <= LARGEST_NUMBER for number in numbers_in([cell]))


def _refuse_numbers(data: Data, labels: Sequence[str], *, table: str) -> None:
    if len(labels) > MOST_NUMBERS and not all(number.is_integer() for number in numbers_in(labels)):
        raise DataError(
            'The labels look like a number, and [data] target = "class".',
            file=table,
            expected="[data] label_column with class names",
            found=f"{len(labels)} distinct numbers in {data.label_column!r}, such as {examples(labels)}",
            fix='target = "number"; or name a column of classes',
        )


def read_test_labels(file: Path, competition: Competition, lock: Lock, faults: list[str]) -> KnownLabels:
    """The labels of test images in a table, in its order; none, and what is wrong in `faults`, where it has a fault.

    The table has the ids and a column of labels, by the names of the competition or `id` and `label`, or a column of 0
    and 1 for each class.
    """
    data, submission, target = competition.data, competition.submission, lock.target
    table = read_table(file, faults)
    id_column = _first_of((submission.id_column, data.id_column, "id"), table.header)
    if target.has_probabilities and {*lock.classes} <= {*table.header}:
        columns, changes = list(lock.classes), {"label_columns": lock.classes, "label_separator": ""}
    else:
        columns = [_first_of((data.label_column, submission.label_column, "label"), table.header)]
        separator = data.label_separator or separator_of(submission, target.name)
        changes = {"label_column": columns[0], "label_columns": (), "label_separator": separator}
    # Grades are read as classes, because the table need not have every grade.
    data = replace(data, **changes, target="class" if target.name == "ordinal" else target.name)
    places = {id_: row for row, id_ in enumerate(lock.test_ids.tolist())}
    options = {"unknown": "is no test image", "may_be_empty": columns if data.label_separator else []}
    rows = image_rows(table, [id_column, *columns], {id_: id_ for id_ in places}, faults, **options)
    cells = [(id_, labels) for id_, (_, *labels) in rows]
    texts, _ = read_labels(data, columns, cells, table=str(file), faults=faults)
    faults += [] if texts or faults else [f"{file}: no row of a test image"]
    if target.has_classes and not faults:
        unknown = {name for text in texts for name in text.split(BETWEEN_NAMES)} - {"", *lock.classes}
        faults += [f"{examples(sorted(unknown))}: no class of the labelled images"] if unknown else []
    if faults:
        return KnownLabels(np.zeros(0, np.int64), lock.train_labels[:0])
    return KnownLabels(np.array([places[id_] for id_, _ in rows]), target.read_names(texts, lock.classes))


def read_pseudo_labels(root: Path, name: str, competition: Competition, lock: Lock) -> KnownLabels:
    """The pseudo-labels in the table `name` below `root`; none where the name is empty. Raises DataError."""
    if not name:
        return KnownLabels(np.zeros(0, np.int64), lock.train_labels[:0])
    faults: list[str] = []
    pseudo = read_test_labels(root / name, competition, lock, faults)
    if faults:
        what, fix = "These pseudo-labels cannot be used.", "make pseudo, or correct `pseudo_labels` in the recipe"
        raise DataError(what, file=root / name, faults=faults, fix=fix)
    return pseudo


def _first_of(columns: Sequence[str], header: Sequence[str]) -> str:
    """The first of the columns that a table has; the first of all where it has none, which is then a fault."""
    return next((column for column in columns if column in header), columns[0])
