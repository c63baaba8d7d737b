"""Predictions at half their size, to be committed: float16 logits, where the blend stays what it is."""

from dataclasses import replace

import numpy as np

from podium.config.keys import read_competition
from podium.ensemble.build import build_ensemble
from podium.errors import PredictionsError
from podium.lock import Lock
from podium.plan.paths import Project
from podium.predictions.align import Aligned
from podium.predictions.artefact import load_predictions, save_predictions
from podium.predictions.load import load_aligned


def compact_predictions(project: Project, competition_name: str) -> tuple[int, int]:
    """Round the logits of a competition's runs to float16 and return the bytes before and after.

    All or none: raises PredictionsError, and leaves every file as it is, where a test image would get another label.
    """
    aligned, lock = load_aligned(project, competition_name)
    rounded = replace(aligned, oof_logits=_as_read(aligned.oof_logits), test_logits=_as_read(aligned.test_logits))
    names = [_labels(project, competition_name, one, lock) for one in (aligned, rounded)]
    changed = int((names[0] != names[1]).sum())
    if changed:
        raise PredictionsError(
            "float16 would change the submission.",
            file=project.predictions_folder(competition_name),
            expected="the same labels from rounded logits",
            found=f"other labels in {changed:,} of {len(names[0]):,} test rows",
            fix="leave the files as they are",
        )
    sizes = []
    for run in aligned.runs:
        file = project.predictions_file(competition_name, run)
        before, one = file.stat().st_size, load_predictions(file)
        halves = {name: _halved(getattr(one, name)) for name in ("oof_logits", "test_logits")}
        save_predictions(file, replace(one, **halves))
        sizes.append((before, file.stat().st_size))
    return sum(before for before, _ in sizes), sum(after for _, after in sizes)


def _halved(logits: np.ndarray) -> np.ndarray:
    """Logits in float16; what is too large for it becomes its largest number."""
    largest = np.finfo(np.float16).max
    return logits.clip(-largest, largest).astype(np.float16)


def _as_read(logits: np.ndarray) -> np.ndarray:
    return _halved(logits).astype(np.float32)


def _labels(project: Project, competition_name: str, aligned: Aligned, lock: Lock) -> np.ndarray:
    competition = read_competition(project.competition_folder(competition_name))
    groups = None if lock.groups is None else lock.groups[np.searchsorted(lock.train_ids, aligned.oof_ids)]
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, groups=groups, only=True)
    return result.test_probabilities.argmax(axis=1)
