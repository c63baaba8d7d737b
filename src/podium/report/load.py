"""Reads everything that the report shows. Nothing is trained, downloaded or written."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.config.keys import Competition
from podium.data.cache import Dataset, open_largest_images
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.errors import KaggleError
from podium.kaggle.ledger import LEDGER, Entry, read_ledger
from podium.lock import Lock
from podium.plan.stamp import ensemble_is_fresh, file_sha256
from podium.predictions.align import Aligned
from podium.predictions.artefact import DAMAGE
from podium.predictions.load import groups_of, load_runs
from podium.submission import check_submission
from podium.workspace import Workspace

# Matplotlib cannot draw larger numbers.
LARGEST_NUMBER = 1e30


@dataclass(frozen=True)
class Epoch:
    """One row of a run's history; NaN where a value was not measured."""

    stage: str
    training_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class LrCurve:
    """The result of lr_find for one recipe: the loss at each learning rate, and fastai's suggestions."""

    rates: list[float]
    losses: list[float]
    suggestions: dict[str, float]


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

    name: str
    competition: Competition
    lock: Lock
    aligned: Aligned
    result: EnsembleResult
    is_stale: dict[str, bool]  # run of a recipe -> whether it has to be trained again
    history: dict[str, list[Epoch]]  # run -> epochs
    lr_curves: dict[str, LrCurve]  # recipe -> curve
    ledger: list[Entry]
    ledger_fault: str
    submission: SubmissionFile | None
    images: Dataset | None


def load_report_data(workspace: Workspace) -> ReportData:
    """Load the runs, blend them, and read the other files of the competition.

    Raises SubmissionError where there are no predictions, PredictionsError where they cannot be blended.
    """
    competition, paths, lock = workspace.competition, workspace.paths, workspace.lock
    aligned = load_runs(workspace)
    ledger, ledger_fault = _read_ledger(paths.submissions / LEDGER)
    histories = {run: _read_history(paths.history_file(run)) for run in aligned.runs}
    lr_curves = {file.stem: _read_lr_curve(file) for file in sorted(paths.lr_find_folder.glob("*.json"))}
    return ReportData(
        name=workspace.name,
        competition=competition,
        lock=lock,
        aligned=aligned,
        result=build_ensemble(
            aligned, competition.ensemble, metric=competition.metric, groups=groups_of(lock, aligned)
        ),
        is_stale={run.run: run.stale for run in workspace.runs},
        history={run: epochs for run, epochs in histories.items() if epochs},
        lr_curves={recipe: curve for recipe, curve in lr_curves.items() if curve is not None},
        ledger=ledger,
        ledger_fault=ledger_fault,
        submission=_read_submission(workspace),
        images=open_largest_images(paths, lock),
    )


def _read_history(file: Path) -> list[Epoch]:
    """The epochs of a run, of the first fold only; empty where the file is missing or damaged."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [
        Epoch(stage, _number(row.get("training_loss")), _number(row.get("validation_accuracy")))
        for row in rows
        if "refit" not in (stage := str(row.get("stage"))) and ("fold" not in stage or "fold 1/" in stage)
    ]


def _read_lr_curve(json_file: Path) -> LrCurve | None:
    """The curve of one recipe; None where its files are damaged or have no points that can be drawn."""
    try:
        suggestions = json.loads(json_file.read_text(encoding="utf-8"))["suggestions"]
        with json_file.with_suffix(".csv").open(newline="", encoding="utf-8") as stream:
            points = [(_number(row["learning_rate"]), _number(row["loss"])) for row in csv.DictReader(stream)]
        points = [(rate, loss) for rate, loss in points if rate > 0 and not math.isnan(loss)]
        rates, losses = zip(*points, strict=True)
        suggested = {str(name): _number(rate) for name, rate in suggestions.items() if _number(rate) > 0}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error):
        return None
    return LrCurve(list(rates), list(losses), suggested)


def _read_ledger(file: Path) -> tuple[list[Entry], str]:
    """The ledger, and why it cannot be read: the page is useful without it."""
    try:
        return read_ledger(file), ""
    except KaggleError as error:
        return [], str(error)


def _read_submission(workspace: Workspace) -> SubmissionFile | None:
    file, lock = workspace.paths.submissions / "ensemble.csv", workspace.lock
    if not file.is_file():
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
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return {
            "strategy": record["strategy"]["used"],
            "score": _number(record["honest_score"]["score"]),
            "metric": str(record["metric"]),
            "temperature": _number(record["temperature"]),
            "stamp": record["stamp"],
            "members": [(run["run"], _number(run["weight"])) for run in record["runs"] if run["weight"]],
        }
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _read_probabilities(file: Path, lock: Lock) -> np.ndarray | None:
    """The probabilities of a submission (m, classes); None where they are damaged or do not fit the lock."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            ids, classes = arrays["ids"], arrays["classes"]
            probabilities = arrays["probabilities"].astype(np.float64)
    except DAMAGE:
        return None
    same_rows = np.array_equal(ids, lock.test_ids) and tuple(classes.tolist()) == tuple(lock.classes)
    if not same_rows or probabilities.shape != (len(ids), len(classes)) or not np.isfinite(probabilities).all():
        return None
    return probabilities


def _number(value: Any) -> float:
    """The value as a number that can be drawn, else NaN."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if abs(number) < LARGEST_NUMBER else math.nan
