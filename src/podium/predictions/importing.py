"""Predictions that were made elsewhere, by a colleague or a public notebook, imported with the same checks."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from podium.errors import PredictionsError, examples
from podium.files import DAMAGE
from podium.plan.runs import check_run_name, run_name
from podium.plan.stamp import read_about
from podium.predictions.align import rows_of_ids
from podium.predictions.artefact import Predictions, finite_in_float32, read_array, save_predictions
from podium.targets.target import Target
from podium.text import csv_rows
from podium.workspace import Workspace

# Smaller probabilities have the logit of this one; probabilities that were rounded do not sum to 1.
MIN_PROBABILITY, SUM_TOLERANCE = 1e-12, 1e-3
MOST_EXAMPLES = 4

Columns = dict[str, np.ndarray]


def import_predictions(workspace: Workspace, name: str, *, oof: Path, test: Path | None) -> Predictions:
    """Write `oof/<competition>/<name>.npz` from two tables of probabilities or logits, joined by id.

    `test` is None where there are no test images. The architecture of the run vit.s1 is vit. Raises PredictionsError
    with all faults of a table, or where another run has the same predictions, ConfigError if a recipe's run has this
    name.
    """
    recipes, lock = workspace.recipes.items(), workspace.lock
    check_run_name(name, [run_name(recipe_name, seed) for recipe_name, recipe in recipes for seed in recipe.seeds])
    rows = np.flatnonzero(lock.folds >= 0)
    labels = lock.train_labels[rows]
    oof_logits, kind = _read_logits(oof, lock.train_ids[rows], workspace)
    test_logits, test_kind = np.empty((0, lock.target.outputs), np.float32), kind
    if (test is None) != (len(lock.test_ids) == 0):
        found = "no table (--test)" if test is None else str(test)
        raise PredictionsError("Wrong test table.", expected=f"predictions of {len(lock.test_ids):,} rows", found=found)
    if test:
        test_logits, test_kind = _read_logits(test, lock.test_ids, workspace)
    if kind != test_kind:
        raise PredictionsError("The two tables have different kinds.", file=test, expected=kind, found=test_kind)
    sha256 = hashlib.sha256(oof_logits.tobytes() + test_logits.tobytes()).hexdigest()
    for file in workspace.paths.predictions_files():
        if file.stem != name and (read_about(file) or {}).get("imported_sha256") == sha256:
            what = f"These predictions are imported already, as {file.stem}."
            raise PredictionsError(what, file=oof, fix=f"delete {file} to import them by another name")
    predictions = Predictions(
        oof_ids=lock.train_ids[rows],
        oof_logits=oof_logits,
        oof_labels=labels,
        test_ids=lock.test_ids,
        test_logits=test_logits,
        classes=tuple(lock.classes),
        about={
            "run": name,
            "architecture": name.rsplit(".s", 1)[0],
            "imported": True,
            "came_as": kind,
            "imported_sha256": sha256,
            "fingerprint": lock.fingerprint,
            "fold_sha256": lock.fold_sha256,
            "scores": {name: round(score, 6) for name, score in lock.target.scores_of(oof_logits, labels).items()},
            "target": lock.target.name,
            "scored": "validation rows; its author says that it was not trained on them",
            "test_logits_from": "imported",
        },
    )
    save_predictions(workspace.paths.predictions_file(name), predictions)
    return predictions


def _read_logits(file: Path, ids: np.ndarray, workspace: Workspace) -> tuple[np.ndarray, str]:
    """Logits (n, outputs) float32 in the order of `ids`, and the kind of the table, such as probabilities."""
    (table, places), lock, settings = _read_table(file), workspace.lock, workspace.competition.submission
    names = lock.classes if lock.target.has_probabilities else [settings.label_column]
    table_ids = _ids(file, table, id_column=settings.id_column, names=names)
    values = np.stack([_numbers(table[name]) for name in names], axis=1)
    rows, faults = rows_of_ids(table_ids, ids)
    faults += _repeated_ids(table_ids, places)
    if not (finite := finite_in_float32(values)).all():
        wrong = np.flatnonzero(~finite)
        cells = [(row, names[int(np.argmin(finite_in_float32(values[row][:, None])))]) for row in wrong[:MOST_EXAMPLES]]
        texts = [f"{places[row]}, id {table_ids[row]}: {table[name][row]} for {name}" for row, name in cells]
        faults.append(f"{len(wrong):,} rows have a cell that is no finite number: {'; '.join(texts)}")
    _refuse(file, faults)
    logits, kind = _logits_of(file, values, lock.target)
    return logits[rows].astype(np.float32), kind


def _ids(file: Path, table: Columns, *, id_column: str, names: Sequence[str]) -> np.ndarray:
    """The ids (n,) str of a table; raises PredictionsError unless it has an id column and the columns `names`."""
    found = next((name for name in (id_column, "id") if name in table), None)
    faults = [] if found else [f"no id column; expected '{id_column}'"]
    known = {found, *names}
    others = [name for name in table if name not in known]
    faults += [f"columns that are not classes: {examples(others)}"] if others else []
    faults += [f"no column for the class '{name}'" for name in names if name not in table]
    _refuse(file, faults)
    return np.array([str(value) for value in table[found].tolist()])


def _numbers(cells: np.ndarray) -> np.ndarray:
    """The cells (n,) as float64; NaN where one is not a number."""
    try:
        return cells.astype(np.float64)
    except (ValueError, TypeError):
        import pandas as pd  # for what is refused

        return pd.to_numeric(pd.Series(cells), errors="coerce").to_numpy(np.float64)


def _repeated_ids(ids: np.ndarray, places: Sequence[str]) -> list[str]:
    """Faults of the first ids that are repeated, with their places."""
    first, faults = {}, []
    for id_, place in zip(ids.tolist(), places, strict=True):
        if first.setdefault(id_, place) is not place and len(faults) < MOST_EXAMPLES:
            faults.append(f"{place}: the id '{id_}', as in {first[id_]}")
    return faults


def _logits_of(file: Path, values: np.ndarray, target: Target) -> tuple[np.ndarray, str]:
    """Logits of a table's values (n, columns), and what these are: numbers, logits or probabilities."""
    if not target.has_probabilities:
        return values, "numbers"
    if values.min(initial=0) < 0 or values.max(initial=0) > 1:
        return values, "logits"
    if not target.has_columns and np.abs(values.sum(axis=1) - 1).max(initial=0) > SUM_TOLERANCE:
        _refuse(file, ["values are between 0 and 1 but rows do not sum to 1: neither probabilities nor logits"])
    logs, logs_of_no = (np.log(np.maximum(shares, MIN_PROBABILITY)) for shares in (values, 1 - values))
    return logs - logs_of_no if target.has_columns else logs, "probabilities"


def _refuse(file: Path, faults: list[str]) -> None:
    if faults:
        raise PredictionsError("These predictions cannot be imported.", file=file, faults=faults)


def _read_table(file: Path) -> tuple[Columns, Sequence[str]]:
    """The table's columns by name, and the place of each row for messages."""
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    if file.suffix.lower() not in readers:
        raise PredictionsError("Podium cannot read this kind of file.", file=file, expected=", ".join(readers))
    try:
        table, places = readers[file.suffix.lower()](file)
        shapes = {column.shape for column in table.values()}
        if [len(shape) for shape in shapes] != [1]:
            raise ValueError("it is not a table: it has no columns, or they are not of one length")
        return table, places or [f"row {row}" for row in range(1, shapes.pop()[0] + 1)]
    except DAMAGE as error:
        found = getattr(error, "strerror", None) or str(error)[:200]
        raise PredictionsError("The table cannot be read.", file=file, found=found) from None


def _read_csv(file: Path) -> tuple[Columns, list[str]]:
    (_, header), *rows = [(line, row) for line, row in csv_rows(file.read_bytes(), "utf-8-sig") if row] or [(0, [])]
    if len({*map(str.strip, header)}) < len(header):
        raise ValueError(f"several columns have one name: {','.join(header)[:60]}")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"line {line} has {len(row)} cells, {len(header)} columns: {','.join(row)[:60]}")
    columns = {name.strip(): np.array([row[place] for _, row in rows]) for place, name in enumerate(header)}
    return columns, [f"line {line}" for line, _ in rows]


def _read_parquet(file: Path) -> tuple[Columns, list[str]]:
    import pandas

    return {str(name): column.to_numpy() for name, column in pandas.read_parquet(file).items()}, []


def _read_npz(file: Path) -> tuple[Columns, list[str]]:
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        return {name: read_array(archive, name) for name in names}, []
