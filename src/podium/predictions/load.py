"""All runs of a competition, joined by id and compared with its lock."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from podium.errors import PredictionsError, SubmissionError
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.predictions.align import Aligned, align, id_faults
from podium.predictions.artefact import examples, load_predictions
from podium.workspace import Workspace


def load_runs(workspace: Workspace, *, rehearsed: bool = False) -> Aligned:
    """All runs in `oof/<competition>`, joined by id; `rehearsed` runs have only some of the validation rows.

    Raises SubmissionError where there are no predictions, PredictionsError where they are damaged, or do not belong
    to the data of `data.lock`.
    """
    with ThreadPoolExecutor() as threads:
        aligned = align(list(threads.map(load_predictions, prediction_files(workspace.paths))))
    check_against_lock(aligned, workspace.lock, paths=workspace.paths, rehearsed=rehearsed)
    return aligned


def prediction_files(paths: Paths) -> list[Path]:
    """The predictions files of a competition, sorted by run; raises SubmissionError where there are none."""
    files = sorted(paths.predictions_folder.glob("*.npz"))
    if not files:
        raise SubmissionError(
            "There are no predictions to blend.",
            file=paths.predictions_folder,
            fix=f"make train COMPETITION={paths.name}",
        )
    return files


def groups_of(lock: Lock, aligned: Aligned) -> np.ndarray | None:
    """The group of each validation row, (n,) str; None where rows have no groups."""
    return None if lock.groups is None else lock.groups[np.searchsorted(lock.train_ids, aligned.oof_ids)]


def check_against_lock(aligned: Aligned, lock: Lock, *, paths: Paths, rehearsed: bool = False) -> None:
    """Raise PredictionsError where the joined runs belong to other data, folds or rows than the lock."""
    faults = []
    for key, expected in (("fingerprint", lock.fingerprint), ("fold_sha256", lock.fold_sha256)):
        if aligned.abouts[0][key] != expected:
            faults.append(f"{key}: expected {expected[:12]}, found {aligned.abouts[0][key][:12]}")
    if aligned.classes != tuple(lock.classes):
        faults.append(f"classes: expected {examples(lock.classes)}, found {examples(aligned.classes)}")
    rows = np.flatnonzero(lock.folds >= 0)
    if rehearsed:
        rows = rows[np.isin(lock.train_ids[rows], aligned.oof_ids)]
    rows = rows[np.argsort(lock.train_ids[rows])]
    oof_faults = id_faults(aligned.oof_ids, lock.train_ids[rows], part="validation ")
    if not oof_faults and (differs := aligned.oof_labels != lock.train_labels[rows]).any():
        faults.append(f"{differs.sum()} rows have another label ({examples(aligned.oof_ids[differs])})")
    faults += oof_faults + id_faults(aligned.test_ids, np.sort(lock.test_ids), part="test ")
    if faults:
        raise PredictionsError(
            "The predictions belong to other data than the competition's lock.",
            file=paths.lock_file,
            fix=f"move oof/{paths.name}/ away and make train COMPETITION={paths.name}, or restore {paths.lock_file}",
            faults=faults,
        )
