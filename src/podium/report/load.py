"""Reads everything that the report shows. Nothing is trained, downloaded or written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from podium.data.cache import Dataset, find_images, size_name
from podium.data.prepare import recipe_sizes
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.errors import KaggleError
from podium.files import read_json
from podium.kaggle.ledger import LEDGER, Entry, read_ledger
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.plan.stamp import ensemble_is_fresh, file_sha256, with_hashes
from podium.predictions.align import load_runs
from podium.predictions.artefact import read_features
from podium.submission import check_submission
from podium.workspace import Workspace

# Matplotlib cannot draw larger numbers.
LARGEST_NUMBER = 1e30
# With more runs, learning curves and correlations are of those with the largest weights: a thousand cannot be read.
MOST_RUNS = 40
HISTORY_COLUMNS = {"stage": str, "training_loss": float, "validation_loss": float, "validation_accuracy": float}
NEWER_COLUMNS = {"validation_loss": np.nan}  # which histories of an older Podium do not have
CURVES = ("training loss", "validation loss", "validation accuracy")
CURVE_COLUMNS = {"learning_rate": float, "loss": float}


@dataclass(frozen=True, eq=False)
class SubmissionFile:
    """The CSV that `make ensemble` wrote, what is wrong with it, and how it was made."""

    file: Path
    sha256: str
    is_fresh: bool  # whether `make ensemble` would write the same bytes again
    faults: list[str]
    record: dict[str, Any] | None  # ensemble.json; None where it does not describe the files beside it
    probabilities: np.ndarray | None  # (m, classes), in the lock's order; None without record, or of another lock


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that the report shows about one competition."""

    workspace: Workspace
    result: EnsembleResult  # with the joined runs
    epochs: pd.DataFrame  # of at most MOST_RUNS runs: run, epoch, stage, CURVES
    lr_curves: dict[str, tuple[pd.DataFrame, dict[str, float]]]  # recipe -> its curve, suggestions
    ledger: list[Entry]
    ledger_fault: str
    submission: SubmissionFile | None
    images: Dataset | None
    features: np.ndarray | None  # (n + m, channels) of the labelled and the test images, as `podium embed` wrote them


def load_report_data(workspace: Workspace) -> ReportData:
    """Load the runs, blend them, and read the other files of the competition.

    Raises SubmissionError where there are no predictions, PredictionsError where they cannot be blended.
    """
    settings, paths, aligned = workspace.competition, workspace.paths, load_runs(workspace)
    result = build_ensemble(aligned, settings.ensemble, metric=settings.metric)
    ledger, ledger_fault = [], ""
    try:
        ledger = read_ledger(paths.submissions / LEDGER)
    except KaggleError as error:  # the page is useful without it
        ledger_fault = str(error)
    curves = {file.stem: _read_lr_curve(file) for file in sorted(paths.lr_find_folder.glob("*.csv"))}
    return ReportData(
        workspace=workspace,
        result=result,
        epochs=_read_epochs(paths, result),
        lr_curves={recipe: curve for recipe, curve in curves.items() if len(curve[0])},
        ledger=ledger,
        ledger_fault=ledger_fault,
        submission=_read_submission(workspace),
        images=find_images(paths, workspace.lock),
        features=_find_features(workspace),
    )


def _find_features(workspace: Workspace) -> np.ndarray | None:
    """The features (n + m, channels) of all images by one network, of the largest size; None where there are none."""
    for size in reversed(recipe_sizes(workspace)):
        if dataset := find_images(workspace.paths, workspace.lock, size=size_name(*size)):
            stems = [dataset.derived("features", part) for part, images in dataset.arrays.items() if len(images)]
            for file in sorted(stems[0].parent.glob(f"{stems[0].name}-*.npz")):
                body = file.name.removeprefix(stems[0].name)
                parts = [read_features(stem.with_name(stem.name + body)) for stem in stems]
                if all(part is not None for part in parts):
                    return np.concatenate(parts)
    return None


def _read_epochs(paths: Paths, result: EnsembleResult) -> pd.DataFrame:
    """The epochs of the runs with the largest weights, numbered; of the first fold only, and without a refit."""
    runs = sorted(run.run for run in sorted(result.runs, key=lambda run: -run.weight)[:MOST_RUNS])
    tables = [_read_csv(paths.history_file(run), HISTORY_COLUMNS).assign(run=run) for run in runs]
    table = pd.concat(tables, ignore_index=True).rename(columns=lambda name: name.replace("_", " "))
    has_fold = table["stage"].str.contains("fold", na=False) & ~table["stage"].str.contains("fold 1/", na=False)
    table = table[~has_fold & ~table["stage"].str.contains("refit", na=False)]
    table = table.assign(epoch=table.groupby("run").cumcount() + 1)
    return table[["run", "epoch", "stage", *CURVES]]


def _read_lr_curve(csv_file: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    """The points of one recipe's lr_find that can be drawn (learning rate, loss), and its suggestions."""
    curve = _read_csv(csv_file, CURVE_COLUMNS).rename(columns={"learning_rate": "learning rate"})
    curve = curve[(curve["learning rate"] > 0) & (curve["loss"].abs() < LARGEST_NUMBER)]  # neither NaN nor infinite
    try:
        suggestions = read_json(csv_file.with_suffix(".json"))["suggestions"]
        return curve, {name: float(rate) for name, rate in suggestions.items()}
    except (LookupError, TypeError, ValueError, AttributeError):
        return curve, {}


def _read_csv(file: Path, columns: dict[str, type]) -> pd.DataFrame:
    """Columns of a CSV file, NaN where it is older than a column; without rows where it is missing or damaged."""
    try:
        table = pd.read_csv(file, usecols=lambda name: name in columns, dtype=columns)
        return table.assign(**{name: value for name, value in NEWER_COLUMNS.items() if name not in table})[[*columns]]
    except (FileNotFoundError, ValueError, KeyError):
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})


def _read_submission(workspace: Workspace) -> SubmissionFile | None:
    file, lock = workspace.paths.submissions / "ensemble.csv", workspace.lock
    if not file.is_file() or not len(lock.test_ids):
        return None
    record = read_json(file.with_suffix(".json"))
    if not isinstance(record, dict) or record != with_hashes(record, file.with_suffix("")):
        record = None
    return SubmissionFile(
        file=file,
        sha256=file_sha256(file),
        is_fresh=ensemble_is_fresh(workspace.paths, workspace.competition),
        faults=check_submission(file, lock=lock, settings=workspace.competition.submission),
        record=record,
        probabilities=_read_probabilities(file.with_suffix(".probabilities.npz"), lock) if record else None,
    )


def _read_probabilities(file: Path, lock: Lock) -> np.ndarray | None:
    """The probabilities of a submission (m, classes), as it was written; None where they do not fit the lock."""
    with np.load(file, allow_pickle=False) as arrays:
        is_of_lock = np.array_equal(arrays["ids"], lock.test_ids) and tuple(arrays["classes"]) == tuple(lock.classes)
        return arrays["probabilities"].astype(np.float64) if is_of_lock else None
