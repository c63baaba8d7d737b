"""The CSV for the leaderboard: written, checked against the competition, and read."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from podium.config.competition import expected_columns, positive_index, separator_of
from podium.config.keys import Submission
from podium.errors import SubmissionError, examples
from podium.lock import Lock
from podium.text import csv_rows, csv_text

# Kaggle rescales rows; this difference from 1 is rounding.
SUM_TOLERANCE = 1e-3
MOST_EXAMPLES = 4
KINDS_OF_NAMES = ("labels", "ranking")

Rows = list[tuple[int, list[str]]]  # line number, cells
Faults = Iterator[tuple[str, str]]  # kind of fault, example


def submission_text(probabilities: np.ndarray, *, lock: Lock, settings: Submission) -> str:
    """The content of a submission with these probabilities `(m, classes)` of the lock's test rows.

    A label is the most probable class (the first of equal ones), or of several labels all above 1/2; probabilities have
    nine significant digits. Raises ConfigError for classes that the kind of submission does not allow.
    """
    assert np.isfinite(probabilities).all(), "the logits were finite"
    if settings.kind in KINDS_OF_NAMES:
        separator = separator_of(settings, lock.target.name)
        named = _named_classes(probabilities, lock, settings)
        cells = [[separator.join(lock.classes[k] for k in row)] for row in named]
    else:
        columns = [positive_index(settings, lock.classes)] if settings.kind == "probability" else slice(None)
        cells = [[f"{value:.9g}" for value in row] for row in probabilities[:, columns].tolist()]
    rows = ([id_, *row] for id_, row in zip(lock.test_ids.tolist(), cells, strict=True))
    return csv_text([expected_columns(settings, lock.classes), *rows])


def _named_classes(probabilities: np.ndarray, lock: Lock, settings: Submission) -> Iterable[Sequence[int]]:
    """The indices of the classes that a submission names in each row, in this order."""
    if settings.kind == "ranking":
        return np.argsort(-probabilities, axis=1, kind="stable")[:, : settings.most].tolist()
    labels = lock.target.predicted_labels(probabilities)
    return map(np.flatnonzero, labels) if labels.ndim > 1 else labels[:, None].tolist()


def require_test(lock: Lock) -> None:
    """Raise SubmissionError where a competition has no test images."""
    if not len(lock.test_ids):
        raise SubmissionError(
            'There is nothing to submit: the competition has no test images, [data] test = "".',
            fix="podium predict RUN FOLDER predicts the images of a folder",
        )


def read_probabilities(file: Path, *, lock: Lock, settings: Submission, ranked: bool = False) -> np.ndarray:
    """The probabilities or numbers `(m, classes)` in a valid CSV; a label, or the first of a ranking, has 1.

    With `ranked`, the second of a ranking has 1/2, the third 1/3, and so on. Raises OSError.
    """
    rows = [cells for _, (_, *cells) in csv_rows(file.read_bytes())][1:]
    if settings.kind in KINDS_OF_NAMES:
        separator = separator_of(settings, lock.target.name)
        most = 1 if settings.kind == "ranking" and not ranked else None
        index, values = {name: k for k, name in enumerate(lock.classes)}, np.zeros((len(rows), len(lock.classes)))
        for row, (cell,) in zip(values, rows, strict=True):
            places = [index[name] for name in _names(cell, separator)[:most]]
            row[places] = 1 / np.arange(1, len(places) + 1) if ranked else 1
        return values
    values = np.array(rows, np.float64)
    if settings.kind == "probability":
        return np.hstack([1 - values, values] if positive_index(settings, lock.classes) else [values, 1 - values])
    return values


def check_submission(file: Path, *, lock: Lock, settings: Submission) -> list[str]:
    """Everything that is wrong with a CSV for this competition; empty if it may be submitted.

    One line for each kind of fault: how many, and the first few with their line numbers. Raises SubmissionError where
    the competition has no test images.
    """
    require_test(lock)
    columns = expected_columns(settings, lock.classes)
    try:
        header, rows = _read_rows(file)
    except OSError as error:
        return [f"cannot be read: {error.strerror}"]
    except ValueError as error:
        return [str(error)]
    if header != columns:
        return [_header_fault(header, columns)]
    found: dict[str, list[str]] = {}
    for kind, example in _row_faults(rows, columns, lock, settings):
        found.setdefault(kind, []).append(example)
    return [
        f"{len(texts)} {kind}: {'; '.join(texts[:MOST_EXAMPLES])}" + ("; ..." if len(texts) > MOST_EXAMPLES else "")
        for kind, texts in found.items()
    ]


def _read_rows(file: Path) -> tuple[list[str], Rows]:
    """The header, and the other rows with their line numbers; raises ValueError if the file is not a CSV, OSError."""
    (_, header), *rows = [*csv_rows(file.read_bytes())] or [(1, [])]
    if not header:
        raise ValueError("the file is empty")
    if header[0].startswith("\ufeff"):
        raise ValueError("line 1: begins with a byte order mark; save as UTF-8 without BOM")
    return header, rows


def _header_fault(header: Sequence[str], columns: Sequence[str]) -> str:
    in_header, in_columns = set(header), set(columns)
    missing = [name for name in columns if name not in in_header]
    extra = [name for name in header if name not in in_columns]
    details = f"; missing: {_short(', '.join(missing))}" if missing else ""
    details += f"; unknown: {_short(', '.join(extra))}" if extra else ""
    found, expected = _short(",".join(header)), _short(",".join(columns))
    return f"line 1: expected the header {expected}, found {found}{details or '; the order or number differs'}"


def _row_faults(rows: Rows, columns: Sequence[str], lock: Lock, settings: Submission) -> Faults:
    for line, row in rows:
        if len(row) != len(columns):
            yield f"rows do not have {len(columns)} cells", f"line {line}: {len(row)} cells"
    rows = [(line, row) for line, row in rows if len(row) == len(columns)]
    yield from _id_faults(rows, lock.test_ids.tolist())
    if settings.kind in KINDS_OF_NAMES:
        yield from _label_faults(rows, lock.classes, separator_of(settings, lock.target.name), settings.most)
        return
    sums_to_one = lock.target.name == "class" and settings.kind == "probabilities"
    for line, (_, *cells) in rows:
        values = [_number(cell) for cell in cells]
        for name, cell, value in zip(columns[1:], cells, values, strict=True):
            if math.isnan(value) or (settings.kind != "number" and not 0 <= value <= 1):
                kind = "cells are not finite numbers" if math.isnan(value) else "probabilities are not between 0 and 1"
                yield kind, f"line {line}: '{_short(cell)}' for {_short(name)}"
        if sums_to_one and abs(sum(values) - 1) > SUM_TOLERANCE:
            yield "rows do not sum to 1", f"line {line}: {sum(values):.6g}"


def _id_faults(rows: Rows, test_ids: Sequence[str]) -> Faults:
    known, line_of = set(test_ids), {}
    for line, (id_, *_) in rows:
        if id_ not in known:
            yield "ids are unknown", f"line {line}: '{_short(id_)}'"
        elif id_ in line_of:
            yield "ids are repeated", f"line {line}: '{id_}' as in line {line_of[id_]}"
        else:
            line_of[id_] = line
    for id_ in test_ids:
        if id_ not in line_of:
            yield "ids are missing", f"'{id_}'"
    expected_ids = [id_ for id_ in test_ids if id_ in line_of]
    for (id_, line), expected in zip(line_of.items(), expected_ids, strict=True):
        if id_ != expected:
            yield "rows are in another order than the sample", f"line {line}: id '{id_}', expected '{expected}'"


def _label_faults(rows: Rows, classes: Sequence[str], separator: str, most: int) -> Faults:
    known = set(classes)
    for line, (_, cell) in rows:
        names = _names(cell, separator)
        if most and not 1 <= len(names) <= most:
            yield f"cells do not have 1 to {most} class names", f"line {line}: '{_short(cell)}'"
        if len(set(names)) < len(names):
            yield "cells repeat a class name", f"line {line}: '{_short(cell)}'"
        for name in names:
            if name not in known:
                known.add(name)  # each unknown name is reported once
                yield f"class names are unknown (the classes are {examples(classes)})", f"line {line}: '{_short(name)}'"


def _names(cell: str, separator: str) -> list[str]:
    """The class names in a cell, which may be none with a separator."""
    return (cell.split(separator) if cell else []) if separator else [cell]


def _number(cell: str) -> float:
    """The cell's value; NaN unless it is a finite number in a form that other programs read too."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and cell.isascii() and "_" not in cell else math.nan


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
