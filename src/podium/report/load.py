"""Reads everything that the report shows. Nothing is trained, downloaded or written."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.data.cache import Dataset, find_images
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.errors import KaggleError
from podium.files import read_json
from podium.kaggle.ledger import LEDGER, Entry, read_ledger
from podium.lock import Lock
from podium.plan.stamp import DamagedFileError, ensemble_is_fresh, file_sha256, open_archive
from podium.predictions.align import Aligned, load_runs
from podium.predictions.artefact import read_array
from podium.submission import check_submission
from podium.workspace import Workspace

# Matplotlib cannot draw larger numbers.
LARGEST_NUMBER = 1e30


@dataclass(frozen=True, eq=False)
class SubmissionFile:
    """The CSV that `make ensemble` wrote, what is wrong with it, and how it was made."""

    file: Path
    sha256: str
    is_fresh: bool  # whether `make ensemble` would write the same bytes again
    faults: list[str]
    record: dict[str, Any] | None  # how it was made; None where ensemble.json is missing or damaged
    probabilities: np.ndarray | None  # (m, classes), in the lock's order; None where they do not fit the lock


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that the report shows about one competition."""

    workspace: Workspace
    aligned: Aligned
    result: EnsembleResult
    histories: dict[str, list[tuple[str, float, float]]]  # run -> stage, training loss, validation accuracy
    lr_curves: dict[str, tuple[list[tuple[float, float]], dict[str, float]]]  # recipe -> points, suggestions
    ledger: list[Entry]
    ledger_fault: str
    submission: SubmissionFile | None
    images: Dataset | None


def load_report_data(workspace: Workspace) -> ReportData:
    """Load the runs, blend them, and read the other files of the competition.

    Raises SubmissionError where there are no predictions, PredictionsError where they cannot be blended.
    """
    settings, paths, aligned = workspace.competition, workspace.paths, load_runs(workspace)
    ledger, ledger_fault = [], ""
    try:
        ledger = read_ledger(paths.submissions / LEDGER)
    except KaggleError as error:  # the page is useful without it
        ledger_fault = str(error)
    return ReportData(
        workspace=workspace,
        aligned=aligned,
        result=build_ensemble(aligned, settings.ensemble, metric=settings.metric),
        histories={run: epochs for run in aligned.runs if (epochs := _read_history(paths.history_file(run)))},
        lr_curves={
            file.stem: curve
            for file in sorted(paths.lr_find_folder.glob("*.csv"))
            if (curve := _read_lr_curve(file))[0]
        },
        ledger=ledger,
        ledger_fault=ledger_fault,
        submission=_read_submission(workspace),
        images=find_images(paths, workspace.lock),
    )


def _read_history(file: Path) -> list[tuple[str, float, float]]:
    """Stage, training loss and validation accuracy of a run's epochs, of the first fold only."""
    rows = [
        (row.get("stage") or "", _number(row.get("training_loss")), _number(row.get("validation_accuracy")))
        for row in _read_csv(file)
    ]
    return [row for row in rows if "refit" not in row[0] and ("fold" not in row[0] or "fold 1/" in row[0])]


def _read_lr_curve(csv_file: Path) -> tuple[list[tuple[float, float]], dict[str, float]]:
    """The points (rate, loss) of one recipe's lr_find that can be drawn, and its suggestions."""
    points = [(_number(row.get("learning_rate")), _number(row.get("loss"))) for row in _read_csv(csv_file)]
    record = read_json(csv_file.with_suffix(".json"))
    suggestions = record.get("suggestions") if isinstance(record, dict) else None
    rates = {name: _number(rate) for name, rate in suggestions.items()} if isinstance(suggestions, dict) else {}
    drawable = [(rate, loss) for rate, loss in points if rate > 0 and not math.isnan(loss)]
    return drawable, {name: rate for name, rate in rates.items() if rate > 0}


def _read_submission(workspace: Workspace) -> SubmissionFile | None:
    file, lock = workspace.paths.submissions / "ensemble.csv", workspace.lock
    if not file.is_file() or not len(lock.test_ids):
        return None
    return SubmissionFile(
        file=file,
        sha256=file_sha256(file),
        is_fresh=ensemble_is_fresh(workspace.paths, workspace.competition),
        faults=check_submission(file, lock=lock, settings=workspace.competition.submission),
        record=_read_record(file.with_suffix(".json")),
        probabilities=_read_probabilities(file.with_suffix(".probabilities.npz"), lock),
    )


def _read_record(file: Path) -> dict[str, Any] | None:
    """How the submission was made, from ensemble.json; None where that is missing or damaged."""
    record = read_json(file)
    try:
        return {
            "strategy": record["strategy"]["used"],
            "score": _number(record["honest_score"]["score"]),
            "metric": str(record["metric"]),
            "temperature": _number(record["temperature"]),
            "stamp": record["stamp"],
            "members": [(run["run"], _number(run["weight"])) for run in record["runs"] if run["weight"]],
        }
    except (LookupError, TypeError):
        return None


def _read_probabilities(file: Path, lock: Lock) -> np.ndarray | None:
    """The probabilities of a submission (m, classes); None where they are damaged or do not fit the lock."""
    try:
        with open_archive(file) as archive:
            ids, classes, probabilities = (read_array(archive, name) for name in ("ids", "classes", "probabilities"))
            probabilities = probabilities.astype(np.float64)
    except (FileNotFoundError, DamagedFileError):
        return None
    same_rows = np.array_equal(ids, lock.test_ids) and tuple(classes.tolist()) == tuple(lock.classes)
    if not same_rows or probabilities.shape != (len(ids), len(classes)) or not np.isfinite(probabilities).all():
        return None
    return probabilities


def _read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; empty where it is missing or damaged."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (FileNotFoundError, UnicodeDecodeError, csv.Error):
        return []


def _number(value: Any) -> float:
    """The value as a number that can be drawn, else NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if abs(number) < LARGEST_NUMBER else math.nan
