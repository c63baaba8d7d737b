"""The score of a submission by the labels of test images. Nothing else in Podium opens a file with these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from podium.config.competition import separator_of
from podium.data.digits import digits_answers
from podium.data.labels import read_labels
from podium.data.tables import image_rows, read_table
from podium.errors import SubmissionError, examples
from podium.metrics import METRICS, wilson_interval
from podium.submission import check_submission, read_probabilities
from podium.targets.target import BETWEEN_NAMES
from podium.workspace import Workspace


@dataclass(frozen=True)
class Grade:
    """The score of a submission, the interval of an accuracy, and the medal."""

    file: Path
    metric: str
    greater_is_better: bool
    score: float  # NaN where the metric has none, as an AUC of rows of one class
    rows: int  # of the test images, those with an answer
    interval: tuple[float, float] | None  # 95 %
    thresholds: Mapping[str, float]
    medal: str | None


def grade(
    workspace: Workspace, file: Path, *, answers: Path | None = None, thresholds: Mapping[str, float] | None = None
) -> Grade:
    """Score a CSV by the competition's metric, with labels of all test images or of some of them.

    `answers` is a CSV in UTF-8 with the ids and a column of labels, or one of 0 and 1 for each class; it is opened once
    the submission is valid. Digits need none. `thresholds` are the worst scores of medals, the best medal first. Raises
    SubmissionError with all faults of either file.
    """
    competition, lock, thresholds = workspace.competition, workspace.lock, thresholds or {}
    metric, ranked = METRICS[competition.metric], competition.submission.kind == "ranking"
    if not answers and competition.data.source != "digits":
        fix = "podium score FILE --answers <a CSV of ids and labels>; or submit the file"
        raise SubmissionError("Only the test labels of digits come with Podium.", fix=fix)
    if faults := check_submission(file, lock=lock, settings=competition.submission):
        raise SubmissionError("This CSV cannot be scored.", file=file, faults=faults)
    rows, labels = _read_answers(workspace, answers)
    values = read_probabilities(file, lock=lock, settings=competition.submission, ranked=ranked)[rows]
    if ranked:
        score = float(values[np.arange(len(labels)), labels].mean())
    else:
        score = lock.target.score_of_submitted(values, labels, competition.metric)
    return Grade(
        file=file,
        metric=competition.metric,
        greater_is_better=metric.greater_is_better,
        score=score,
        rows=len(rows),
        interval=wilson_interval(score * len(rows), len(rows)) if competition.metric == "accuracy" else None,
        thresholds=thresholds,
        medal=next((medal for medal, worst in thresholds.items() if metric.gain(score) >= metric.gain(worst)), None),
    )


def _read_answers(workspace: Workspace, file: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """The indices (n,) of the test images with an answer, in a file or else of digits, and their labels."""
    lock, faults = workspace.lock, []
    answers = _table_of_answers(workspace, file, faults) if file else digits_answers()
    if lock.target.has_classes:
        unknown = {name for text in answers.values() for name in text.split(BETWEEN_NAMES)} - {"", *lock.classes}
        faults += [f"{examples(sorted(unknown))}: no class of the labelled images"] if unknown else []
    if faults:
        raise SubmissionError("These answers cannot be used.", file=file, faults=faults)
    rows = np.array([row for row, id_ in enumerate(lock.test_ids.tolist()) if id_ in answers])
    return rows, lock.target.read_names([answers[id_] for id_ in lock.test_ids[rows].tolist()], lock.classes)


def _table_of_answers(workspace: Workspace, file: Path, faults: list[str]) -> dict[str, str]:
    """Id -> what a listing of images says about its label."""
    lock, data, submission = workspace.lock, workspace.competition.data, workspace.competition.submission
    table, target = read_table(file, faults), lock.target.name
    id_column = _first_of((submission.id_column, data.id_column), table.header)
    if lock.target.has_probabilities and {*lock.classes} <= {*table.header}:
        columns, changes = list(lock.classes), {"label_columns": lock.classes, "label_separator": ""}
    else:
        columns = [_first_of((data.label_column, submission.label_column), table.header)]
        separator = data.label_separator or separator_of(submission, target)
        changes = {"label_column": columns[0], "label_columns": (), "label_separator": separator}
    # Grades are read as classes, because the answers need not have every grade.
    data = replace(data, **changes, target="class" if target == "ordinal" else target)
    names = {id_: id_ for id_ in lock.test_ids.tolist()}
    options = {"unknown": "is no test image", "may_be_empty": columns if data.label_separator else []}
    rows = image_rows(table, [id_column, *columns], names, faults, **options)
    cells = [(id_, labels) for id_, (_, *labels) in rows]
    texts, _ = read_labels(data, columns, cells, table=str(file), faults=faults)
    faults += [] if texts or faults else [f"{file}: no row of a test image"]
    return {id_: text or "" for (id_, _), text in zip(rows, texts, strict=True)}


def _first_of(columns: Sequence[str], header: Sequence[str]) -> str:
    """The first of the columns that a table has; the first of all where it has none, which is then a fault."""
    return next((column for column in columns if column in header), columns[0])
