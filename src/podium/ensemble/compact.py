"""Predictions at half their size: float16 logits, if the submission stays the same."""

import os
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from podium.ensemble.build import build_ensemble
from podium.errors import PredictionsError
from podium.files import atomic_write
from podium.predictions.align import Aligned, load_runs
from podium.predictions.artefact import load_predictions, write_predictions
from podium.submission import submission_text
from podium.workspace import Workspace

LOGITS = ("oof_logits", "test_logits")


def compact_predictions(workspace: Workspace) -> tuple[int, int]:
    """Round the logits of all runs of a competition to float16; returns the bytes before and after.

    Raises PredictionsError, and changes no file, if a row of the submission would change. Every file is written
    before the first one is replaced, so that a full disk changes none.
    """
    aligned = load_runs(workspace)
    logits = {name: as_float16(getattr(aligned, name)).astype(np.float32) for name in LOGITS}
    lines, rounded = (_submission_lines(workspace, runs) for runs in (aligned, replace(aligned, **logits)))
    if changed := sum(line != other for line, other in zip(lines, rounded, strict=True)):
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
            stream = replacements.enter_context(atomic_write(file))
            halved = replace(run, **{name: as_float16(getattr(run, name)) for name in LOGITS})
            write_predictions(stream, file, halved)
            stream.flush()
            os.fsync(stream.fileno())
    return before, sum(file.stat().st_size for file in files)


def as_float16(logits: np.ndarray) -> np.ndarray:
    """Logits in float16; larger numbers become its largest number."""
    largest = np.finfo(np.float16).max
    return logits.clip(-largest, largest).astype(np.float16)


def _submission_lines(workspace: Workspace, aligned: Aligned) -> list[str]:
    competition = workspace.competition
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric, only=True)
    text = submission_text(result.test_probabilities, lock=workspace.lock, settings=competition.submission)
    return text.split("\n")
