"""The score of a submission by the labels of test images. Nothing else in Podium opens a file with these."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from podium.data.digits import digits_answers
from podium.data.labels import read_test_labels
from podium.errors import SubmissionError
from podium.metrics import METRICS, wilson_interval
from podium.submission import check_submission, read_probabilities
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
        fix = f"correct the file, or make ensemble COMPETITION={workspace.name}"
        raise SubmissionError("This CSV cannot be scored.", file=file, faults=faults, fix=fix)
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
    if not file:
        answers = digits_answers()
        return np.arange(len(answers)), lock.target.read_names([answers[id_] for id_ in lock.test_ids], lock.classes)
    rows, labels = read_test_labels(file, workspace.competition, lock, faults)
    if faults:
        raise SubmissionError("These answers cannot be used.", file=file, faults=faults)
    order = np.argsort(rows)
    return rows[order], labels[order]
