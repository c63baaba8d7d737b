"""Everything that a report shows, read from where it lies; nothing is trained, fetched or written."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.config import Competition, read_competition
from podium.data.dataset import Dataset, cached_dataset
from podium.data.lock import Lock
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.ensemble.write import groups_of, load_aligned
from podium.kaggle.ledger import Entry, ledger_file, read_ledger
from podium.plan import list_runs
from podium.predictions import DAMAGE, Aligned
from podium.project import Project
from podium.stamp import ensemble_is_fresh, file_sha256
from podium.submission import check_submission


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history; what was not measured is NaN."""

    stage: str
    training_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class Finder:
    """What the learning-rate finder saw of a recipe: a loss for each rate, and what fastai suggests."""

    rates: list[float]
    losses: list[float]
    suggestions: dict[str, float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A submission that lies there: its CSV, what made it, and what it says of the test rows in its own order."""

    file: Path
    sha256: str
    is_fresh: bool  # whether the runs that are here would write it again
    faults: list[str]
    made: dict[str, Any]
    ids: np.ndarray  # (m,) str
    probabilities: np.ndarray  # (m, classes)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What there is to show of a competition."""

    name: str
    competition: Competition
    lock: Lock
    aligned: Aligned
    result: EnsembleResult
    stale: dict[str, bool]  # of the recipes' runs
    history: dict[str, list[Epoch]]  # of each run
    finders: dict[str, Finder]  # of each recipe
    ledger: list[Entry]
    submission: Prepared | None
    images: Dataset | None


def gather(project: Project, name: str) -> Gathered:
    """Read a competition's runs, blend them as competition.toml says, and read what else is known of them.

    Raises SubmissionError where there are no predictions, PredictionsError where they cannot be blended, KaggleError
    for a damaged ledger.
    """
    competition = read_competition(project.competition_folder(name))
    aligned, lock = load_aligned(project, name)
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, groups=groups_of(lock, aligned))
    return Gathered(
        name=name,
        competition=competition,
        lock=lock,
        aligned=aligned,
        result=result,
        stale={run.run: run.stale for run in list_runs(project, name)},
        history={run: rows for run in aligned.runs if (rows := _history(project.history_file(name, run)))},
        finders=dict(_finders(project.finder_folder(name))),
        ledger=read_ledger(ledger_file(project, name)),
        submission=_submission(project, name, competition, lock),
        images=cached_dataset(project, name, fingerprint=lock.fingerprint),
    )


def _history(file: Path) -> list[Epoch]:
    """The epochs of a run's file, of its first fold where it has several; none where there is no file."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    epochs = [
        Epoch(row.get("stage") or "", _number(row.get("training_loss")), _number(row.get("validation_accuracy")))
        for row in rows
    ]
    return [one for one in epochs if "refit" not in one.stage and ("fold" not in one.stage or "fold 1/" in one.stage)]


def _finders(folder: Path) -> Iterator[tuple[str, Finder]]:
    for file in sorted(folder.glob("*.json")):
        try:
            suggestions = json.loads(file.read_text(encoding="utf-8"))["suggestions"]
            with file.with_suffix(".csv").open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            rates, losses = ([float(row[column]) for row in rows] for column in ("learning_rate", "loss"))
            yield file.stem, Finder(rates, losses, {word: float(rate) for word, rate in suggestions.items()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error):
            continue  # what another version wrote is no reason to show nothing


def _submission(project: Project, name: str, competition: Competition, lock: Lock) -> Prepared | None:
    file = project.submissions_folder(name) / "ensemble.csv"
    try:
        made = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".probabilities.npz"), allow_pickle=False) as kept:
            ids, probabilities = kept["ids"], kept["probabilities"]
        if not file.is_file() or not isinstance(made, dict):
            return None
    except DAMAGE:
        return None
    return Prepared(
        file=file,
        sha256=file_sha256(file),
        is_fresh=ensemble_is_fresh(project, name),
        faults=check_submission(file, lock=lock, settings=competition.submission),
        made=made,
        ids=ids,
        probabilities=probabilities.astype(np.float64),
    )


def _number(cell: object) -> float:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
