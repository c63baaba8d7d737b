"""Predictions made elsewhere, by a colleague or a public notebook, brought into `oof/` with the same checks."""

import csv
import difflib
from pathlib import Path

import numpy as np

from podium.config.keys import Competition
from podium.errors import PredictionsError
from podium.lock import Lock
from podium.metrics import accuracy, log_loss, softmax
from podium.plan.names import check_run_name, run_name
from podium.predictions.artefact import DAMAGE, Predictions, examples, save_predictions
from podium.workspace import Workspace

SUM_TOLERANCE = 1e-3
SMALLEST = 1e-12
Columns = dict[str, np.ndarray]


def import_predictions(
    workspace: Workspace, name: str, *, oof: Path, test: Path, architecture: str | None = None
) -> Predictions:
    """Write `oof/<competition>/<name>.npz` from two tables of probabilities or logits, joined by id.

    Raises PredictionsError with all faults of a table, ConfigError for a name that a recipe's run has.
    """
    taken = [run_name(recipe_name, seed) for recipe_name, recipe in workspace.recipes.items() for seed in recipe.seeds]
    check_run_name(name, taken)
    competition, lock = workspace.competition, workspace.lock
    judged = np.flatnonzero(lock.folds >= 0)
    oof_logits, came_as = _logits(oof, lock.train_ids[judged], lock, competition)
    test_logits, also_as = _logits(test, lock.test_ids, lock, competition)
    if came_as != also_as:
        raise PredictionsError("Two tables of different kinds.", file=test, expected=came_as, found=also_as)
    labels = lock.train_labels[judged]
    probabilities = softmax(oof_logits)
    predictions = Predictions(
        oof_ids=lock.train_ids[judged],
        oof_logits=oof_logits,
        oof_labels=labels,
        test_ids=lock.test_ids,
        test_logits=test_logits,
        classes=tuple(lock.classes),
        about={
            "run": name,
            "architecture": architecture or name.rsplit(".s", 1)[0],
            "imported": True,
            "came_as": came_as,
            "fingerprint": lock.fingerprint,
            "fold_sha256": lock.fold_sha256,
            "scores": {
                "accuracy": round(accuracy(probabilities, labels), 6),
                "log_loss": round(log_loss(probabilities, labels), 6),
            },
            "scored": "validation rows, which it never saw by its author's word",
            "test_logits_from": "imported",
        },
    )
    save_predictions(workspace.paths.predictions_file(name), predictions)
    return predictions


def _logits(file: Path, ids: np.ndarray, lock: Lock, competition: Competition) -> tuple[np.ndarray, str]:
    """Logits (n, classes) float32 in the order of `ids`, and what the table held."""
    columns = _read(file)
    id_column = next((one for one in (competition.submission.id_column, "id", "ids") if one in columns), None)
    faults = [] if id_column else [f"no column of ids; expected '{competition.submission.id_column}'"]
    others = [one for one in columns if one not in (id_column, *lock.classes)]
    for missing in (one for one in lock.classes if one not in columns):
        nearest = difflib.get_close_matches(missing, others, n=1)
        faults.append(f"no column for the class '{missing}'" + (f"; is it '{nearest[0]}'?" if nearest else ""))
    if others:
        faults.append(f"columns that are no class: {examples(others)}")
    _refuse(file, faults)
    values = _numbers(file, columns, lock.classes)
    ids_as_found = columns[id_column]
    if ids_as_found.dtype.kind == "f":  # a table with a gap has made numbers of them
        ids_as_found = ids_as_found.astype(np.int64)
    found = np.array([str(one) for one in ids_as_found.tolist()])
    place = {one: row for row, one in enumerate(found.tolist())}
    missing, strange = [one for one in ids.tolist() if one not in place], place.keys() - set(ids.tolist())
    if len(place) < len(found):
        faults.append(f"{len(found) - len(place)} ids are there more than once")
    if missing:
        faults.append(f"{len(missing)} of {len(ids)} ids are missing: {examples(missing)}")
    if strange:
        faults.append(f"{len(strange)} ids do not belong here: {examples(sorted(strange))}")
    if not np.isfinite(values).all():
        bad = found[~np.isfinite(values).all(axis=1)]
        faults.append(f"NaN, infinity or no number in {len(bad)} rows: ids {examples(bad.tolist())}")
    _refuse(file, faults)
    values = values[[place[one] for one in ids.tolist()]]
    inside = bool(values.min() >= 0 and values.max() <= 1)
    if inside and np.abs(values.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        return np.log(np.maximum(values, SMALLEST)).astype(np.float32), "probabilities"
    if inside:
        _refuse(file, ["values between 0 and 1 whose rows do not sum to 1: neither probabilities nor logits"])
    return values.astype(np.float32), "logits"


def _refuse(file: Path, faults: list[str]) -> None:
    if faults:
        raise PredictionsError("These predictions cannot be taken in.", file=file, faults=faults)


def _numbers(file: Path, columns: Columns, classes: tuple[str, ...]) -> np.ndarray:
    try:
        return np.stack([columns[one].astype(np.float64) for one in classes], axis=1)
    except (ValueError, TypeError) as error:
        raise PredictionsError("A cell is not a number.", file=file, found=str(error)) from None


def _read(file: Path) -> Columns:
    """The table's columns by name; an .npz may hold them one by one, or `ids`, `classes` and a matrix."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if file.suffix.lower() not in readers:
        raise PredictionsError("Not a table that Podium reads.", file=file, expected=", ".join(readers))
    if not file.is_file():
        raise PredictionsError("There is no such file.", file=file)
    try:
        return readers[file.suffix.lower()](file)
    except (*DAMAGE, csv.Error) as error:
        raise PredictionsError("A table that cannot be read.", file=file, found=str(error)[:200]) from None


def _read_csv(file: Path) -> Columns:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        header, *rows = [row for row in csv.reader(stream) if row]
    if odd := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"a row with {len(odd[0])} cells under {len(header)} columns: {','.join(odd[0])[:60]}")
    return {name.strip(): np.array([row[place] for row in rows]) for place, name in enumerate(header)}


def _read_parquet(file: Path) -> Columns:
    import pandas

    table = pandas.read_parquet(file)
    return {str(name): table[name].to_numpy() for name in table.columns}


def _read_npz(file: Path) -> Columns:
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    matrix = arrays.pop("probabilities", arrays.pop("logits", None))
    if matrix is None:
        return arrays
    names = arrays.pop("classes").tolist()
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise ValueError(f"a matrix of shape {matrix.shape} for {len(names)} classes")
    return arrays | {str(name): matrix[:, place] for place, name in enumerate(names)}
