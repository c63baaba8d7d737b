"""Import of a notebook's output into `oof/`, with the checks of the ensemble: by hash, by stamp, by row."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import KaggleError, PredictionsError
from podium.files import DAMAGE, write_file
from podium.kaggle.notebooks.script import MANIFEST
from podium.plan.runs import PlannedRun
from podium.plan.stamp import file_sha256, is_stale, weights_sha256
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions
from podium.workspace import Workspace


class OutputError(KaggleError):
    """A notebook's output is not complete."""


@dataclass(frozen=True)
class ImportedOutput:
    """The runs of a notebook's output, by name: `refused` with reasons, `left` for the next session."""

    imported: tuple[str, ...]
    refused: Mapping[str, str]
    left: tuple[str, ...]


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest that the script wrote; raises OutputError where it, or a file that it names, is damaged."""
    file = output / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        damaged = [name for name, sha256 in manifest["files"].items() if file_sha256(output / name) != sha256]
    except DAMAGE as error:
        raise OutputError("The notebook's output has no manifest.", file=file, found=str(error)) from None
    if damaged:
        faults = [f"{name}: not as the notebook wrote it" for name in damaged]
        raise OutputError("The notebook's output is not complete.", file=output, faults=faults)
    return manifest


def import_output(workspace: Workspace, output: Path, manifest: Mapping[str, Any]) -> ImportedOutput:
    """Copy every trained run that is what the plan expects today into `oof/<competition>/`; refuse the others.

    Runs that are up to date here are left as they are: their parameters belong to the predictions that are here.
    Raises DataError where there is no `data.lock`.
    """
    planned_runs = {run.run: run for run in workspace.runs}
    imported, refused = [], {}
    for run in manifest["trained"]:
        planned = planned_runs.get(run)
        if planned is not None and not planned.stale:
            continue
        source = output / "oof" / workspace.name / f"{run}.npz"
        try:
            _check(workspace, source, planned)
        except PredictionsError as error:
            refused[run] = "; ".join([error.found or error.what, *error.faults])
            continue
        history = output / "reports" / workspace.name / "history" / f"{run}.csv"
        if history.is_file():
            write_file(workspace.paths.history_file(run), history.read_bytes())
        write_file(workspace.paths.predictions_file(run), source.read_bytes())  # last: it makes the run up to date
        imported.append(run)
    return ImportedOutput(tuple(imported), refused, tuple(manifest["left"]))


def _check(workspace: Workspace, file: Path, planned: PlannedRun | None) -> None:
    """Raise PredictionsError unless the file is the planned run, of today's recipe, data and weights."""
    if planned is None:
        raise PredictionsError("no recipe here has this run")
    predictions = load_predictions(file)
    if is_stale(predictions.about, stamp=planned.stamp, weights=weights_sha256(planned.recipe, workspace.paths.root)):
        raise PredictionsError("its recipe, seed, weights or data changed since the push")
    align([predictions], workspace.lock)
