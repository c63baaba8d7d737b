"""Predictions that were made elsewhere, by a colleague or a public notebook, imported with the same checks."""

import csv
import difflib
import zipfile
from pathlib import Path

import numpy as np

from podium.errors import PredictionsError, examples
from podium.plan.names import check_run_name, run_name
from podium.plan.stamp import DAMAGE
from podium.predictions.align import id_faults
from podium.predictions.artefact import Predictions, finite_in_float32, read_array, save_predictions
from podium.workspace import Workspace

Columns = dict[str, np.ndarray]


def import_predictions(
    workspace: Workspace, name: str, *, oof: Path, test: Path | None, architecture: str | None = None
) -> Predictions:
    """Write `oof/<competition>/<name>.npz` from two tables of probabilities or logits, joined by id.

    `test` is None where there are no test images. Raises PredictionsError with all faults of a table, ConfigError if a
    recipe's run has this name.
    """
    recipes = workspace.recipes.items()
    check_run_name(name, [run_name(recipe_name, seed) for recipe_name, recipe in recipes for seed in recipe.seeds])
    lock = workspace.lock
    rows = np.flatnonzero(lock.folds >= 0)
    labels = lock.train_labels[rows]
    oof_logits, oof_kind = _read_logits(oof, lock.train_ids[rows], workspace)
    if (test is None) != (len(lock.test_ids) == 0):
        found = "no table (--test)" if test is None else str(test)
        raise PredictionsError("Wrong test table.", expected=f"predictions of {len(lock.test_ids):,} rows", found=found)
    none = np.empty((0, lock.target.outputs), np.float32)
    test_logits, test_kind = _read_logits(test, lock.test_ids, workspace) if test else (none, oof_kind)
    if oof_kind != test_kind:
        raise PredictionsError("The two tables have different kinds.", file=test, expected=oof_kind, found=test_kind)
    predictions = Predictions(
        oof_ids=lock.train_ids[rows],
        oof_logits=oof_logits,
        oof_labels=labels,
        test_ids=lock.test_ids,
        test_logits=test_logits,
        classes=tuple(lock.classes),
        about={
            "run": name,
            "architecture": architecture or name.rsplit(".s", 1)[0],
            "imported": True,
            "came_as": oof_kind,
            "fingerprint": lock.fingerprint,
            "fold_sha256": lock.fold_sha256,
            "scores": {name: round(score, 6) for name, score in lock.target.scores_of(oof_logits, labels).items()},
            **lock.target.described,
            "scored": "validation rows; its author says that it was not trained on them",
            "test_logits_from": "imported",
        },
    )
    save_predictions(workspace.paths.predictions_file(name), predictions)
    return predictions


def _read_logits(file: Path, ids: np.ndarray, workspace: Workspace) -> tuple[np.ndarray, str]:
    """Logits (n, outputs) float32 in the order of `ids`, and the kind of the table, such as probabilities."""
    columns, lock, settings = _read_table(file), workspace.lock, workspace.competition.submission
    classes = tuple(lock.target.columns(lock.classes, settings.label_column))
    table_ids = _ids(file, columns, id_column=settings.id_column, classes=classes)
    try:
        values = np.stack([columns[name].astype(np.float64) for name in classes], axis=1)
    except (ValueError, TypeError) as error:
        raise PredictionsError("A cell is not a number.", file=file, found=str(error)) from None
    order = np.argsort(table_ids)
    faults = id_faults(table_ids[order], np.sort(ids))
    if not (finite := finite_in_float32(values)).all():
        faults.append(f"NaN or infinity in {(~finite).sum()} rows: ids {examples(table_ids[~finite])}")
    _refuse(file, faults)
    values = values[order[np.searchsorted(table_ids[order], ids)]]
    try:
        logits, kind = lock.target.read_values(values)
    except ValueError as error:
        raise PredictionsError("These predictions cannot be imported.", file=file, faults=[str(error)]) from None
    return logits.astype(np.float32), kind


def _ids(file: Path, columns: Columns, *, id_column: str, classes: tuple[str, ...]) -> np.ndarray:
    """The ids (n,) str of a table; raises PredictionsError unless it has an id column and a column per class."""
    found = next((name for name in (id_column, "id", "ids") if name in columns), None)
    faults = [] if found else [f"no id column; expected '{id_column}'"]
    others = [name for name in columns if name not in (found, *classes)]
    for missing in (name for name in classes if name not in columns):
        nearest = difflib.get_close_matches(missing, others, n=1)
        faults.append(f"no column for the class '{missing}'" + (f"; is it '{nearest[0]}'?" if nearest else ""))
    if others:
        faults.append(f"columns that are not classes: {examples(others)}")
    _refuse(file, faults)
    ids = columns[found]
    if ids.dtype.kind == "f":  # pandas reads integers as floats where a cell is empty
        ids = ids.astype(np.int64)
    return np.array([str(value) for value in ids.tolist()])


def _refuse(file: Path, faults: list[str]) -> None:
    if faults:
        raise PredictionsError("These predictions cannot be imported.", file=file, faults=faults)


def _read_table(file: Path) -> Columns:
    """The table's columns by name."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if file.suffix.lower() not in readers:
        raise PredictionsError("Podium cannot read this kind of file.", file=file, expected=", ".join(readers))
    if not file.is_file():
        raise PredictionsError("There is no such file.", file=file)
    try:
        return readers[file.suffix.lower()](file)
    except (*DAMAGE, csv.Error) as error:
        raise PredictionsError("The table cannot be read.", file=file, found=str(error)[:200]) from None


def _read_csv(file: Path) -> Columns:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        header, *rows = [row for row in csv.reader(stream) if row]
    if ragged := [row for row in rows if len(row) != len(header)]:
        raise ValueError(f"a row with {len(ragged[0])} cells, {len(header)} columns: {','.join(ragged[0])[:60]}")
    return {name.strip(): np.array([row[place] for row in rows]) for place, name in enumerate(header)}


def _read_parquet(file: Path) -> Columns:
    import pandas

    table = pandas.read_parquet(file)
    return {str(name): table[name].to_numpy() for name in table.columns}


def _read_npz(file: Path) -> Columns:
    """One array per column, or `ids`, `classes` and one matrix `probabilities` or `logits`."""
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        arrays = {name: read_array(archive, name) for name in names}
    matrix = arrays.pop("probabilities", arrays.pop("logits", None))
    if matrix is None:
        return arrays
    names = arrays.pop("classes").tolist()
    if matrix.ndim != 2 or matrix.shape[1] != len(names):
        raise ValueError(f"a matrix of shape {matrix.shape} for {len(names)} classes")
    return arrays | {str(name): matrix[:, place] for place, name in enumerate(names)}
