"""The notebook of a code competition: it predicts the test images, which Kaggle replaces by hidden ones to score it."""

import json
from pathlib import Path

import numpy as np

from podium.files import read_json
from podium.kaggle.notebooks.float16 import rehearsed_precision
from podium.kaggle.notebooks.follow import pending_push, push_package, wait_for_output
from podium.kaggle.notebooks.package import Push, blend_files, pack_notebook
from podium.kaggle.notebooks.quota import check_quota
from podium.kaggle.notebooks.script import SUBMISSION
from podium.kaggle.session import Session
from podium.plan.stamp import file_sha256
from podium.submission import check_submission, read_probabilities
from podium.workspace import Workspace

# Probabilities that differ by less are rounding.
TOLERANCE = 1e-5
EQUAL = "equal to ensemble.csv, byte for byte"


def run_blend_notebook(session: Session, *, force: bool = False) -> tuple[Push, Path]:
    """Push a notebook with the ensemble's members, unless Kaggle has it already, and wait until it has run.

    Returns the push and the CSV that it wrote for the visible test images, with `ensemble.json` beside it. Raises
    KaggleError where the notebook failed, or its CSV is no submission, and what `pack_notebook` raises.
    """
    workspace = session.workspace
    with session.notebook_lock():
        precision = rehearsed_precision(workspace, blend_files(workspace).values())
        options = {"user": session.kaggle.user(), "new_version": force, "precision": precision}
        packed = pack_notebook(workspace, session.folder, **options)
        push = pending_push(session, force=force)
        if push is None or push.archive != packed.archive:
            session.log(f"the members' parameters are packed as {precision}")
            if not force:
                check_quota(session)
            push = push_package(session, packed)
        ended = wait_for_output(session, push)
        file, settings = ended.output / SUBMISSION, workspace.competition.submission
        faults = [] if ended.failure else check_submission(file, lock=workspace.lock, settings=settings)
        if ended.failure or faults:
            session.push_file.unlink()
            raise ended.error(session, "The notebook's CSV is no submission.", "", faults, log=bool(ended.failure))
    session.log(f"the notebook's CSV of the visible test images: {compare(workspace, file)}")
    record = read_json(workspace.paths.submissions / "ensemble.json") | {"csv_sha256": file_sha256(file)}
    file.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    return push, file


def compare(workspace: Workspace, file: Path) -> str:
    """How a valid CSV differs from `ensemble.csv`: EQUAL, or in how many rows."""
    ensemble = workspace.paths.submissions / "ensemble.csv"
    if file.read_bytes() == ensemble.read_bytes():
        return EQUAL
    options = {"lock": workspace.lock, "settings": workspace.competition.submission}
    distances = np.abs(read_probabilities(file, **options) - read_probabilities(ensemble, **options)).max(axis=1)
    count = int((distances > TOLERANCE).sum())
    return f"{count:,} of {len(distances):,} rows differ from ensemble.csv by more than {TOLERANCE:g}"
