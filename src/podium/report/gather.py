"""Everything that a report shows, read from where it lies; nothing is trained, fetched or written."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium.config.keys import Competition, read_competition
from podium.data.cache import Dataset, cached_dataset
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.errors import KaggleError
from podium.kaggle.ledger import Entry, ledger_file, read_ledger
from podium.lock import Lock
from podium.plan.paths import Project
from podium.plan.runs import list_runs
from podium.plan.stamp import ensemble_is_fresh, file_sha256
from podium.predictions.align import Aligned
from podium.predictions.artefact import DAMAGE
from podium.predictions.load import groups_of, load_runs
from podium.submission import check_submission
from podium.workspace import open_workspace

# What is larger has no place in a figure.
LARGEST = 1e30


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
    """A submission that lies there: its CSV, what made it, and what it says of the test rows in the lock's order."""

    file: Path
    sha256: str
    is_fresh: bool  # whether the runs that are here would write it again
    faults: list[str]
    made: dict[str, Any]
    probabilities: np.ndarray | None  # (m, classes); None where they are of other rows or classes


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
    ledger_fault: str
    submission: Prepared | None
    images: Dataset | None


def gather(project: Project, name: str) -> Gathered:
    """Read a competition's runs, blend them as competition.toml says, and read what else is known of them.

    Raises SubmissionError where there are no predictions, PredictionsError where they cannot be blended.
    """
    competition = read_competition(project.competition_folder(name))
    workspace = open_workspace(name, project.root, project.outputs)
    aligned, lock = load_runs(workspace), workspace.lock
    ledger, ledger_fault = _ledger(ledger_file(project, name))
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
        ledger=ledger,
        ledger_fault=ledger_fault,
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
        Epoch(str(row.get("stage")), _number(row.get("training_loss")), _number(row.get("validation_accuracy")))
        for row in rows
    ]
    return [one for one in epochs if "refit" not in one.stage and ("fold" not in one.stage or "fold 1/" in one.stage)]


def _finders(folder: Path) -> Iterator[tuple[str, Finder]]:
    for file in sorted(folder.glob("*.json")):
        try:
            suggestions = json.loads(file.read_text(encoding="utf-8"))["suggestions"]
            with file.with_suffix(".csv").open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            points = [(_number(row["learning_rate"]), _number(row["loss"])) for row in rows]
            rates, losses = zip(*[(rate, loss) for rate, loss in points if rate > 0 and loss == loss], strict=True)
            known = {str(word): rate for word, one in suggestions.items() if (rate := _number(one)) > 0}
            yield file.stem, Finder(list(rates), list(losses), known)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error):
            continue  # what another version wrote is no reason to show nothing


def _ledger(file: Path) -> tuple[list[Entry], str]:
    """The ledger, or why it cannot be read: the page is of use without it."""
    try:
        return read_ledger(file), ""
    except KaggleError as error:
        return [], str(error)


def _submission(project: Project, name: str, competition: Competition, lock: Lock) -> Prepared | None:
    file = project.submissions_folder(name) / "ensemble.csv"
    if not file.is_file():
        return None
    try:
        made = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = None
    return Prepared(
        file=file,
        sha256=file_sha256(file),
        is_fresh=ensemble_is_fresh(project.paths(name), competition),
        faults=check_submission(file, lock=lock, settings=competition.submission),
        made=_made(made),
        probabilities=_kept(file.with_suffix(".probabilities.npz"), lock),
    )


def _made(made: Any) -> dict[str, Any]:
    """What the JSON says that the page shows; what is not of its kind is left out."""
    told = _of_kind(made, dict)
    honest, strategy = (_of_kind(told.get(key), dict) for key in ("honest_score", "strategy"))
    weights = [(run.get("run"), _number(run.get("weight"))) for run in map(_table, _of_kind(told.get("runs"), list))]
    return {
        "strategy": str(strategy.get("used", "not said")),
        "score": _number(honest.get("score")),
        "metric": str(told.get("metric", "")),
        "temperature": _number(told.get("temperature")),
        "stamp": str(told.get("stamp", "none")),
        "members": [(str(run), weight) for run, weight in weights if weight],
    }


def _of_kind(value: Any, kind: type) -> Any:
    """The value, or an empty one where it is of another kind."""
    return value if isinstance(value, kind) else kind()


def _table(value: Any) -> dict[str, Any]:
    return _of_kind(value, dict)


def _kept(file: Path, lock: Lock) -> np.ndarray | None:
    """The probabilities beside a CSV, in the lock's order; None where they are damaged or of something else."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            ids, classes, probabilities = kept["ids"], kept["classes"], kept["probabilities"].astype(np.float64)
    except DAMAGE:
        return None
    expected = (len(lock.test_ids), len(lock.classes))
    same = np.array_equal(ids, lock.test_ids) and tuple(classes.tolist()) == tuple(lock.classes)
    return probabilities if same and probabilities.shape == expected and np.isfinite(probabilities).all() else None


def _number(cell: Any) -> float:
    """A cell as a number of a size that can be drawn, else NaN."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return math.nan
    return value if abs(value) < LARGEST else math.nan
