"""Predictions at half their size: float16 logits, if the submission stays the same."""

import os
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from podium.ensemble.build import build_ensemble
from podium.errors import PredictionsError
from podium.files import atomic_write
from podium.predictions.align import Aligned
from podium.predictions.artefact import load_predictions, write_predictions
from podium.predictions.load import load_runs
from podium.submission import submission_text
from podium.workspace import Workspace


def compact_predictions(workspace: Workspace) -> tuple[int, int]:
    """Round the logits of all runs of a competition to float16; returns the bytes before and after.

    Raises PredictionsError, and changes no file, if a row of the submission would change. Every file is written
    before the first one is replaced, so that a full disk changes none.
    """
    aligned = load_runs(workspace)
    rounded = replace(
        aligned,
        oof_logits=_as_float16(aligned.oof_logits).astype(np.float32),
        test_logits=_as_float16(aligned.test_logits).astype(np.float32),
    )
    lines = _submission_lines(workspace, aligned)
    changed = sum(line != other for line, other in zip(lines, _submission_lines(workspace, rounded), strict=True))
    if changed:
        raise PredictionsError(
            "float16 would change the submission.",
            file=workspace.paths.predictions_folder,
            expected="the same rows from rounded logits",
            found=f"{changed:,} of {len(aligned.test_ids):,} rows change",
            fix="leave the files as they are",
        )
    files = [workspace.paths.predictions_file(run) for run in aligned.runs]
    before = sum(file.stat().st_size for file in files)
    with ExitStack() as replacements:
        for file in files:
            run = load_predictions(file)
            halved = {name: _as_float16(getattr(run, name)) for name in ("oof_logits", "test_logits")}
            stream = replacements.enter_context(atomic_write(file))
            write_predictions(stream, file, replace(run, **halved))
            stream.flush()
            os.fsync(stream.fileno())
    return before, sum(file.stat().st_size for file in files)


def _as_float16(logits: np.ndarray) -> np.ndarray:
    """Logits in float16; larger numbers become its largest number."""
    largest = np.finfo(np.float16).max
    return logits.clip(-largest, largest).astype(np.float16)


def _submission_lines(workspace: Workspace, aligned: Aligned) -> list[str]:
    competition = workspace.competition
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, only=True)
    return submission_text(
        result.test_ids.tolist(),
        probabilities=result.test_probabilities,
        classes=result.classes,
        settings=competition.submission,
        target=aligned.target,
    ).split("\n")
