"""All runs of a competition, joined and checked against its lock."""

from pathlib import Path

import numpy as np

from podium.ensemble.cross_fit import side_by_side
from podium.errors import PredictionsError, SubmissionError
from podium.lock import Lock, read_lock
from podium.plan.paths import Project
from podium.predictions.align import Aligned, align
from podium.predictions.artefact import examples, load_predictions


def load_aligned(project: Project, competition_name: str, *, rehearsed: bool = False) -> tuple[Aligned, Lock]:
    """All runs of a competition, joined and held against its lock; raises PredictionsError."""
    lock_file = project.lock_file(competition_name)
    lock = read_lock(lock_file)
    aligned = align(side_by_side(load_predictions, _prediction_files(project, competition_name)))
    refuse_other_data(aligned, lock, lock_file=lock_file, name=competition_name, rehearsed=rehearsed)
    return aligned, lock


def groups_of(lock: Lock, aligned: Aligned) -> np.ndarray | None:
    """The group of each joined validation row, (n,), where rows have groups."""
    return None if lock.groups is None else lock.groups[np.searchsorted(lock.train_ids, aligned.oof_ids)]


def _prediction_files(project: Project, competition_name: str) -> list[Path]:
    folder = project.predictions_folder(competition_name)
    if files := sorted(folder.glob("*.npz")):
        return files
    fix = f"make train COMPETITION={competition_name}"
    raise SubmissionError("There are no predictions to blend.", file=folder, fix=fix)


def refuse_other_data(aligned: Aligned, lock: Lock, *, lock_file: Path, name: str, rehearsed: bool = False) -> None:
    """Raise PredictionsError where all runs agree with each other but not with the lock."""
    held_out = lock.folds >= 0
    judged = dict(zip(lock.train_ids[held_out].tolist(), lock.train_labels[held_out].tolist(), strict=True))
    found = dict(zip(aligned.oof_ids.tolist(), aligned.oof_labels.tolist(), strict=True))
    other_labels = [one for one in judged.keys() & found.keys() if judged[one] != found[one]]
    faults = []
    for key, expected in (("fingerprint", lock.fingerprint), ("fold_sha256", lock.fold_sha256)):
        if aligned.abouts[0][key] != expected:
            faults.append(f"{key} {aligned.abouts[0][key][:12]} instead of {expected[:12]}")
    if aligned.classes != tuple(lock.classes):
        faults.append(f"classes {examples(aligned.classes)} instead of {examples(lock.classes)}")
    if other_labels:
        faults.append(f"other labels in {len(other_labels)} rows ({examples(sorted(other_labels))})")
    for part, ids, expected in (
        ("validation", found.keys(), found.keys() & judged.keys() if rehearsed else judged.keys()),
        ("test", set(aligned.test_ids.tolist()), set(lock.test_ids.tolist())),
    ):
        for words, some in (("lack", expected - ids), ("have other", ids - expected)):
            if some:
                faults.append(f"{words} {part} ids: {len(some)} ({examples(sorted(some))})")
    if faults:
        raise PredictionsError(
            "The predictions belong to other data than the competition's lock.",
            file=lock_file,
            fix=f"move oof/{name}/ away and make train COMPETITION={name}, or bring {lock_file} back",
            faults=faults,
        )
