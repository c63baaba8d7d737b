"""Predictions at half their size, to be committed: float16 logits, where the blend stays what it is."""

from dataclasses import replace

import numpy as np

from podium.ensemble.build import build_ensemble
from podium.errors import PredictionsError
from podium.predictions.align import Aligned
from podium.predictions.artefact import load_predictions, save_predictions
from podium.predictions.load import groups_of, load_runs
from podium.workspace import Workspace


def compact_predictions(workspace: Workspace) -> tuple[int, int]:
    """Round the logits of a competition's runs to float16 and return the bytes before and after.

    All or none: raises PredictionsError, and leaves every file as it is, where a test image would get another label.
    """
    aligned = load_runs(workspace)
    rounded = replace(aligned, oof_logits=_as_read(aligned.oof_logits), test_logits=_as_read(aligned.test_logits))
    names = [_labels(workspace, one) for one in (aligned, rounded)]
    changed = int((names[0] != names[1]).sum())
    if changed:
        raise PredictionsError(
            "float16 would change the submission.",
            file=workspace.paths.predictions_folder,
            expected="the same labels from rounded logits",
            found=f"other labels in {changed:,} of {len(names[0]):,} test rows",
            fix="leave the files as they are",
        )
    sizes = []
    for run in aligned.runs:
        file = workspace.paths.predictions_file(run)
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


def _labels(workspace: Workspace, aligned: Aligned) -> np.ndarray:
    competition, groups = workspace.competition, groups_of(workspace.lock, aligned)
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, groups=groups, only=True)
    return result.test_probabilities.argmax(axis=1)
