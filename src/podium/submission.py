"""The CSV for the leaderboard: written, checked against the competition, scored where the test labels are known."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from podium.config.competition import expected_columns, positive_index, separator_of
from podium.config.keys import Submission
from podium.errors import SubmissionError, examples
from podium.files import write_file
from podium.lock import Lock
from podium.targets.base import CLASS, Target

# Kaggle rescales rows; this difference from 1 is rounding.
SUM_TOLERANCE = 1e-3
MOST_EXAMPLES = 4
KINDS_OF_NAMES = ("labels", "ranking")

Rows = list[tuple[int, list[str]]]  # line number, cells
Faults = Iterator[tuple[str, str]]  # kind of fault, example


def write_submission(
    file: Path,
    ids: Sequence[str],
    *,
    probabilities: np.ndarray,
    classes: Sequence[str],
    settings: Submission,
    target: Target = CLASS,
) -> None:
    """Write probabilities `(m, classes)` as a submission, rows in the order of `ids`, atomically.

    Raises SubmissionError for probabilities that are not finite, ConfigError for classes that the kind does not allow.
    """
    if not (finite := np.isfinite(probabilities).all(axis=1)).all():
        found = f"NaN or infinity in {(~finite).sum()} rows (ids {examples(np.array(ids)[~finite])})"
        raise SubmissionError("A submission was not written.", file=file, expected="finite numbers", found=found)
    text = submission_text(ids, probabilities=probabilities, classes=classes, settings=settings, target=target)
    write_file(file, text.encode())


def submission_text(
    ids: Sequence[str],
    *,
    probabilities: np.ndarray,
    classes: Sequence[str],
    settings: Submission,
    target: Target = CLASS,
) -> str:
    """The content of a submission with these probabilities `(m, classes)`.

    A label is the most probable class (the first of equal ones), or of several labels all above 1/2; probabilities have
    nine significant digits.
    """
    assert probabilities.shape == (len(ids), len(classes)), (probabilities.shape, len(ids), len(classes))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(expected_columns(settings, classes))
    if settings.kind in KINDS_OF_NAMES:
        separator, places = separator_of(settings, target.name), _named_classes(probabilities, settings, target)
        cells = (separator.join(classes[k] for k in row) for row in places)
        writer.writerows(zip(ids, cells, strict=True))
    else:
        columns = [positive_index(settings, classes)] if settings.kind == "probability" else slice(None)
        rows = zip(ids, probabilities[:, columns].tolist(), strict=True)
        writer.writerows([id_, *(f"{value:.9g}" for value in row)] for id_, row in rows)
    return text.getvalue()


def _named_classes(probabilities: np.ndarray, settings: Submission, target: Target) -> Iterable[Sequence[int]]:
    """The indices of the classes that a submission names in each row, in this order."""
    if settings.kind == "ranking":
        return np.argsort(-probabilities, axis=1, kind="stable")[:, : settings.most].tolist()
    labels = target.predicted_labels(probabilities)
    return map(np.flatnonzero, labels) if labels.ndim > 1 else labels[:, None].tolist()


def require_test(lock: Lock) -> None:
    """Raise SubmissionError where a competition has no test images."""
    if not len(lock.test_ids):
        raise SubmissionError(
            'There is nothing to submit: the competition has no test images, [data] test = "".',
            fix="podium predict RUN FOLDER predicts the images of a folder",
        )


def check_submission(file: Path, *, lock: Lock, settings: Submission) -> list[str]:
    """Everything that is wrong with a CSV for this competition, with line numbers; empty if it may be submitted.

    Raises SubmissionError where the competition has no test images.
    """
    return _check(file, lock, settings)[1]


def score_submission(file: Path, answers: Mapping[str, str], *, lock: Lock, settings: Submission) -> int:
    """The number of correct rows of a CSV, by test labels, id -> class name, of all test rows or some of them.

    Raises SubmissionError for a CSV with faults, or for labels of another test.
    """
    rows, faults = _check(file, lock, settings)
    if faults:
        raise SubmissionError("This CSV cannot be scored.", file=file, faults=faults)
    unknown = sorted(answers.keys() - set(lock.test_ids.tolist())) + sorted(set(answers.values()) - set(lock.classes))
    if unknown or not answers:
        found = examples(unknown) or "none"
        raise SubmissionError("These are not labels of this test.", expected="known ids and classes", found=found)
    predicted = _probabilities(rows, lock.classes, settings, lock.target).argmax(axis=1).tolist()
    return sum(lock.classes[k] == answers.get(id_) for k, (_, (id_, *_)) in zip(predicted, rows, strict=True))


def read_probabilities(
    file: Path, *, classes: Sequence[str], settings: Submission, target: Target = CLASS
) -> np.ndarray:
    """The probabilities `(m, classes)` in a valid CSV; a label, or the first of a ranking, has 1. Raises OSError."""
    with file.open(encoding="utf-8", newline="") as stream:
        return _probabilities(list(enumerate(csv.reader(stream)))[1:], classes, settings, target)


def _probabilities(rows: Rows, classes: Sequence[str], settings: Submission, target: Target) -> np.ndarray:
    if settings.kind in KINDS_OF_NAMES:
        index, separator = {name: k for k, name in enumerate(classes)}, separator_of(settings, target.name)
        values = np.zeros((len(rows), len(classes)))
        for row, (_, (_, cell)) in zip(values, rows, strict=True):
            names = _names(cell, separator)
            row[[index[name] for name in (names[:1] if settings.kind == "ranking" else names)]] = 1
        return values
    values = np.array([cells for _, (_, *cells) in rows], dtype=np.float64)
    if settings.kind == "probability":
        values = np.hstack([1 - values, values] if positive_index(settings, classes) else [values, 1 - values])
    return values


def _check(file: Path, lock: Lock, settings: Submission) -> tuple[Rows, list[str]]:
    """The rows below the header, and one line for each kind of fault: how many, and the first few."""
    require_test(lock)
    columns = expected_columns(settings, lock.classes)
    try:
        header, rows = _read_rows(file)
    except SubmissionError as error:
        return [], [error.what]
    if header != columns:
        return rows, [_header_fault(header, columns)]
    complete = [(line, row) for line, row in rows if len(row) == len(columns)]
    other_rows = [f"line {line}: {len(row)} cells" for line, row in rows if len(row) != len(columns)]
    found = {f"rows do not have {len(columns)} cells": other_rows} if other_rows else {}
    is_label = settings.kind in KINDS_OF_NAMES
    sums_to_one = lock.target.sums_to_one and len(columns) > 2
    faults = (
        _label_faults(complete, lock.classes, separator_of(settings, lock.target.name), settings.most)
        if is_label
        else _number_faults(complete, columns[1:], is_probability=settings.kind != "number", sums_to_one=sums_to_one)
    )
    for kind, example in (*_id_faults(complete, lock.test_ids.tolist()), *faults):
        found.setdefault(kind, []).append(example)
    return rows, [
        f"{len(texts)} {kind}: {'; '.join(texts[:MOST_EXAMPLES])}" + ("; ..." if len(texts) > MOST_EXAMPLES else "")
        for kind, texts in found.items()
    ]


def _read_rows(file: Path) -> tuple[list[str], Rows]:
    """The header, and the other rows with their line numbers; raises SubmissionError if the file is not a CSV."""
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise SubmissionError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise SubmissionError(f"not UTF-8 text: byte {byte:#04x} at offset {error.start}") from None
    if text.startswith("\ufeff"):
        raise SubmissionError("line 1: begins with a byte order mark; save as UTF-8 without BOM")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SubmissionError(f"line {reader.line_num}: not CSV from here on ({error})") from None
    if not header:
        raise SubmissionError("the file is empty")
    return header, rows


def _header_fault(header: Sequence[str], columns: Sequence[str]) -> str:
    found, expected = _short(",".join(header)), _short(",".join(columns))
    missing = [name for name in columns if name not in header]
    extra = [name for name in header if name not in columns]
    details = f"; missing: {_short(', '.join(missing))}" if missing else ""
    details += f"; unknown: {_short(', '.join(extra))}" if extra else ""
    return f"line 1: expected the header {expected}, found {found}{details or '; the order or number differs'}"


def _id_faults(rows: Rows, test_ids: Sequence[str]) -> Faults:
    known, line_of = set(test_ids), {}
    for line, (id_, *_) in rows:
        if id_ not in known:
            # A spreadsheet or a list of files may have changed the id.
            forms = (id_.strip(), Path(id_.strip()).stem, id_.strip().lstrip("0"))
            meant = next((form for form in forms if form in known), "")
            yield "ids are unknown", f"line {line}: '{_short(id_)}'" + _meant(meant)
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


def _names(cell: str, separator: str) -> list[str]:
    """The class names in a cell, which may be none with a separator."""
    return (cell.split(separator) if cell else []) if separator else [cell]


def _label_faults(rows: Rows, classes: Sequence[str], separator: str, most: int) -> Faults:
    spellings = {name.lower(): name for name in classes}
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
                nearest = get_close_matches(name.lower().strip(), spellings, n=1)
                meant = spellings[nearest[0]] if nearest else ""
                yield "class names are unknown", f"line {line}: '{_short(name)}'" + _meant(meant)


def _number_faults(rows: Rows, columns: Sequence[str], *, is_probability: bool, sums_to_one: bool) -> Faults:
    for line, (_, *cells) in rows:
        values = [_number(cell) for cell in cells]
        for name, cell, value in zip(columns, cells, values, strict=True):
            if math.isnan(value) or (is_probability and not 0 <= value <= 1):
                kind = "cells are not finite numbers" if math.isnan(value) else "probabilities are not between 0 and 1"
                yield kind, f"line {line}: '{_short(cell)}' for {_short(name)}"
        if sums_to_one and abs(sum(values) - 1) > SUM_TOLERANCE:
            yield "rows do not sum to 1", f"line {line}: {sum(values):.6g}"


def _number(cell: str) -> float:
    """The cell's value; NaN unless it is a finite number in a form that other programs read too."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and cell.isascii() and "_" not in cell else math.nan


def _meant(name: str) -> str:
    return f", did you mean '{name}'?" if name else ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
