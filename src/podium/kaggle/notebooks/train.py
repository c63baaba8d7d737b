"""Runs trained in a notebook on Kaggle's GPUs, and imported into `oof/` with the checks of the ensemble."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import PredictionsError
from podium.files import write_file
from podium.kaggle.notebooks.follow import Ended, pending_push, push_package, wait_for_output
from podium.kaggle.notebooks.package import check_images, pack_notebook
from podium.kaggle.notebooks.quota import check_quota
from podium.kaggle.session import Session
from podium.plan.runs import PlannedRun
from podium.plan.stamp import is_stale, weights_sha256
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions
from podium.workspace import Workspace


@dataclass(frozen=True)
class ImportedOutput:
    """The runs of a notebook's output, by name: `refused` with reasons, `left` for the next session."""

    imported: tuple[str, ...]
    refused: Mapping[str, str]
    left: tuple[str, ...]


def train_in_notebook(
    session: Session, runs: Sequence[PlannedRun], hours: Callable[[], float], *, force: bool = False
) -> ImportedOutput | None:
    """Train stale runs at Kaggle and import their predictions into `oof/`; returns None where nothing is to be done.

    A notebook that was pushed before is followed to its end instead, unless `force` forgets it. Without
    `force`, the `hours` that the training takes here are compared with the GPU hours that Kaggle leaves.
    Raises KaggleError, with the command to type, for everything that goes wrong on the way.
    """
    check_images(session.workspace, trains=True)
    with session.notebook_lock():
        push = pending_push(session, force=force)
        if push is None and not runs:
            return None
        if push is None:
            if not force:
                check_quota(session, hours)
            options = {"runs": runs, "user": session.kaggle.user(), "new_version": force}
            push = push_package(session, pack_notebook(session.workspace, session.folder, **options))
        return _import(session, wait_for_output(session, push))


def _import(session: Session, ended: Ended) -> ImportedOutput:
    """Import the output, and forget the push.

    Runs that ended before a failure are imported too. Raises KaggleError where the notebook or one of its runs failed,
    or a run was refused.
    """
    manifest = ended.manifest
    result = import_output(session.workspace, ended.output, manifest)
    session.push_file.unlink()
    unfinished = [run for run in ended.push.runs if run not in (*manifest["trained"], *manifest["left"])]
    if not (ended.failure or result.refused or unfinished):
        return result
    faults = [f"{run}: {refusal}" for run, refusal in result.refused.items()]
    faults += [] if ended.failure else [f"{run}: its training failed" for run in unfinished]
    found = f"{len(result.imported)} runs imported: {', '.join(result.imported) or 'none'}"
    what = "Not every run of the notebook was imported."
    raise ended.error(session, what, found, faults, log=bool(unfinished))


def import_output(workspace: Workspace, output: Path, manifest: Mapping[str, Any]) -> ImportedOutput:
    """Copy every trained run that is what the plan expects today into `oof/<competition>/`; refuse the others.

    Runs that are up to date here are left as they are: their parameters belong to the predictions that are here.
    Raises DataError where there is no `data.lock`.
    """
    planned_runs = {run.run: run for run in workspace.runs}
    imported, refused, paths = [], {}, workspace.paths
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
        parameters = output / "models" / workspace.name / f"{run}.safetensors"
        for file, target in ((history, paths.history_file(run)), (parameters, paths.parameters_file(run))):
            if file.is_file():
                write_file(target, file.read_bytes())
        write_file(paths.predictions_file(run), source.read_bytes())  # last: it makes the run up to date
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
