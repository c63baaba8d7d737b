"""Predictions at half their size: float16 logits, if the blend stays the same."""

from dataclasses import replace

import numpy as np

from podium.ensemble.build import build_ensemble
from podium.errors import PredictionsError
from podium.predictions.align import Aligned
from podium.predictions.artefact import load_predictions, save_predictions
from podium.predictions.load import load_runs
from podium.workspace import Workspace


def compact_predictions(workspace: Workspace) -> tuple[int, int]:
    """Round the logits of all runs of a competition to float16; returns the bytes before and after.

    Raises PredictionsError, and changes no file, if a test image would get another label.
    """
    aligned = load_runs(workspace)
    rounded = replace(
        aligned,
        oof_logits=_as_float16(aligned.oof_logits).astype(np.float32),
        test_logits=_as_float16(aligned.test_logits).astype(np.float32),
    )
    labels = _test_labels(workspace, aligned)
    if changed := int((labels != _test_labels(workspace, rounded)).sum()):
        raise PredictionsError(
            "float16 would change the submission.",
            file=workspace.paths.predictions_folder,
            expected="the same labels from rounded logits",
            found=f"other labels in {changed:,} of {len(labels):,} test rows",
            fix="leave the files as they are",
        )
    before = after = 0
    for file in map(workspace.paths.predictions_file, aligned.runs):
        before += file.stat().st_size
        run = load_predictions(file)
        halved = {name: _as_float16(getattr(run, name)) for name in ("oof_logits", "test_logits")}
        save_predictions(file, replace(run, **halved))
        after += file.stat().st_size
    return before, after


def _as_float16(logits: np.ndarray) -> np.ndarray:
    """Logits in float16; larger numbers become its largest number."""
    largest = np.finfo(np.float16).max
    return logits.clip(-largest, largest).astype(np.float16)


def _test_labels(workspace: Workspace, aligned: Aligned) -> np.ndarray:
    competition = workspace.competition
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, only=True)
    return result.test_probabilities.argmax(axis=1)
