"""The CSV for the leaderboard: written, checked against the competition, scored where the test labels are known."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from podium.config.keys import Submission
from podium.errors import SubmissionError
from podium.files import atomic_write
from podium.lock import Lock
from podium.metrics import METRICS, wilson_interval

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# Kaggle rescales rows; this difference from 1 is rounding.
SUM_TOLERANCE = 1e-3
MOST_EXAMPLES = 4

Rows = list[tuple[int, list[str]]]  # line number, cells


@dataclass(frozen=True)
class SubmissionScores:
    """Scores on the rows whose labels are known; accuracy with its 95 % interval (Wilson)."""

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
        writer.writerows((id_, classes[label]) for id_, label in zip(ids, labels, strict=True))
    else:
        rows = zip(ids, probabilities.tolist(), strict=True)
        writer.writerows([id_, *(f"{value:.9g}" for value in row)] for id_, row in rows)
    with atomic_write(file) as stream:
        stream.write(text.getvalue().encode())


def check_submission(file: Path, *, lock: Lock, settings: Submission) -> list[str]:
    """Everything that is wrong with a CSV for this competition, with line numbers; empty if it may be submitted."""
    return _check(file, lock, settings)[1]


def score_submission(
    file: Path, answers: Mapping[str, str], *, lock: Lock, settings: Submission, metric: str = "accuracy"
) -> SubmissionScores:
    """Score a CSV by known test labels, id -> class name, for all test rows or some of them.

    Returns the metric, accuracy, macro F1 and log loss; those that need probabilities are left out for labels.
    Raises SubmissionError for a CSV with faults, or for labels of another test.
    """
    rows, faults = _check(file, lock, settings)
    if faults:
        raise SubmissionError("This CSV cannot be scored.", file=file, faults=faults)
    unknown = sorted(answers.keys() - set(lock.test_ids.tolist())) + sorted(set(answers.values()) - set(lock.classes))
    if unknown or not answers:
        found = ", ".join(unknown[:MOST_EXAMPLES]) or "none"
        raise SubmissionError("These are not labels of this test.", expected="known ids and classes", found=found)
    index = {name: place for place, name in enumerate(lock.classes)}
    cells = [row for _, row in rows if row[0] in answers]
    labels = np.array([index[answers[row[0]]] for row in cells])
    if settings.kind == "labels":
        probabilities = np.eye(len(index))[[index[row[1]] for row in cells]]
    else:
        probabilities = np.array([row[1:] for row in cells], dtype=np.float64)
    names = dict.fromkeys((metric, "accuracy", "macro_f1", "log_loss"))
    scores = {
        name: METRICS[name](probabilities, labels)
        for name in names
        if settings.kind == "probabilities" or not METRICS[name].needs_probabilities
    }
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    return SubmissionScores(scores, wilson_interval(correct, len(labels)), len(labels))


def _check(file: Path, lock: Lock, settings: Submission) -> tuple[Rows, list[str]]:
    """The rows below the header, and all faults."""
    columns = expected_columns(settings, lock.classes)
    try:
        header, rows = _read_rows(file)
    except SubmissionError as error:
        return [], [error.what]
    if header != columns:
        return rows, [_header_fault(header, columns)]
    ragged = [f"line {line}: {len(row)} cells" for line, row in rows if len(row) != len(columns)]
    faults = _summary(f"rows do not have {len(columns)} cells", ragged)
    rows = [(line, row) for line, row in rows if len(row) == len(columns)]
    faults += _id_faults([(line, row[0]) for line, row in rows], lock.test_ids.tolist())
    if settings.kind == "labels":
        faults += _label_faults([(line, row[1]) for line, row in rows], lock.classes)
    else:
        faults += _probability_faults(rows, lock.classes)
    return rows, faults


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
    first_line = text.split("\n", 1)[0]
    delimiter = next((mark for mark in DELIMITERS if mark in first_line), ",")
    if delimiter != ",":
        raise SubmissionError(f"line 1: columns are separated by {DELIMITERS[delimiter]}, expected commas")
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


def _id_faults(cells: Sequence[tuple[int, str]], test_ids: Sequence[str]) -> list[str]:
    known, line_of = set(test_ids), {}
    unknown, repeated = [], []
    for line, id_ in cells:
        if id_ not in known:
            # A spreadsheet or a list of files may have changed the id.
            forms = (id_.strip(), Path(id_.strip()).stem, id_.strip().lstrip("0"))
            unknown.append(
                f"line {line}: '{_short(id_)}'" + _meant(next((form for form in forms if form in known), ""))
            )
        elif id_ in line_of:
            repeated.append(f"line {line}: '{id_}' as in line {line_of[id_]}")
        else:
            line_of[id_] = line
    missing = [f"'{id_}'" for id_ in test_ids if id_ not in line_of]
    faults = _summary("ids are missing", missing) + _summary("ids are unknown", unknown)
    faults += _summary("ids are repeated", repeated)
    in_order = [id_ for id_ in test_ids if id_ in line_of]
    for (id_, line), expected in zip(line_of.items(), in_order, strict=True):
        if id_ != expected:
            return [*faults, f"line {line}: rows in another order than the sample: id '{id_}', expected '{expected}'"]
    return faults


def _label_faults(cells: Sequence[tuple[int, str]], classes: Sequence[str]) -> list[str]:
    known, lines = set(classes), {}
    for line, name in cells:
        if name not in known:
            lines.setdefault(name, []).append(line)
    spellings = {name.lower(): name for name in classes}
    unknown = []
    for name, where in list(lines.items())[:MOST_EXAMPLES]:
        nearest = get_close_matches(name.lower().strip(), spellings, n=1)
        meant = _meant(spellings[nearest[0]] if nearest else "")
        unknown.append(f"line {where[0]}: '{_short(name)}' in {len(where)} rows{meant}")
    return _summary("class names are unknown", unknown, count=len(lines))


def _probability_faults(rows: Rows, classes: Sequence[str]) -> list[str]:
    not_numbers, outside, sums = [], [], []
    for line, row in rows:
        values = [_number(cell) for cell in row[1:]]
        for name, cell, value in zip(classes, row[1:], values, strict=True):
            if not 0 <= value <= 1:
                faults = not_numbers if math.isnan(value) else outside
                faults.append(f"line {line}: '{_short(cell)}' for {_short(name)}")
        if abs(sum(values) - 1) > SUM_TOLERANCE:
            sums.append(f"line {line}: {sum(values):.6g}")
    faults = _summary("cells are not finite numbers", not_numbers)
    faults += _summary("probabilities are not between 0 and 1", outside)
    return faults + _summary("rows do not sum to 1", sums)


def _number(cell: str) -> float:
    """The cell's value; NaN unless it is a finite number in a form that other programs read too."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and cell.isascii() and "_" not in cell else math.nan


def _summary(words: str, examples: Sequence[str], *, count: int | None = None) -> list[str]:
    """One fault for all examples of a kind: how many, and the first few; none if there are no examples."""
    count = len(examples) if count is None else count
    shown = list(examples[:MOST_EXAMPLES])
    return [f"{count} {words}: {'; '.join(shown)}" + ("; ..." if count > len(shown) else "")] if shown else []


def _meant(name: str) -> str:
    return f", did you mean '{name}'?" if name else ""


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
