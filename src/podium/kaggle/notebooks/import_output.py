"""A kernel's output, taken into `oof/` with the checks that the ensemble makes: by hash, by stamp, by row."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.errors import KaggleError, PredictionsError
from podium.files import atomic_write
from podium.kaggle.notebooks.in_kernel import MANIFEST
from podium.lock import Lock, read_lock
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun, list_runs
from podium.plan.stamp import file_sha256, weights_sha256
from podium.predictions.align import align
from podium.predictions.artefact import load_predictions
from podium.predictions.load import check_against_lock


class ManifestError(KaggleError):
    """The output has no manifest, or one that is cut."""


@dataclass(frozen=True)
class TakenIn:
    """What came of a kernel: runs by name, `refused` with the reason of each, `left` for another kernel.

    Runs that are `kept` were trained here meanwhile: their parameters belong to the predictions that are here.
    """

    taken: tuple[str, ...]
    refused: Mapping[str, str]
    left: tuple[str, ...]
    kept: tuple[str, ...] = ()

    @property
    def refusals(self) -> list[str]:
        """Each refused run with its reason, for a message."""
        return [f"{run}: {reason}" for run, reason in self.refused.items()]


def read_manifest(output: Path) -> dict[str, Any]:
    """What the kernel says of its output; raises ManifestError where it is not there, cut, or none."""
    file = output / MANIFEST
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        lists = [told[name] for name in ("trained", "failed", "left")]
        if not all(isinstance(one, str) for names in lists for one in names) or not isinstance(told["files"], dict):
            raise ValueError("other values than names and files")
        return told
    except (OSError, ValueError, LookupError, TypeError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError("The kernel's output has no manifest.", file=file, found=found) from None


def damaged(output: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The files that did not arrive as the kernel wrote them."""
    return [name for name, sha256 in manifest["files"].items() if file_sha256(output / name) != sha256]


def take_in(project: Project, competition: str, output: Path, manifest: Mapping[str, Any]) -> TakenIn:
    """Move every trained run into `oof/<competition>/` that is what the plan expects today; the others are refused.

    What is up to date here is left as it is. The files are whole by the manifest (see `damaged`).
    Raises DataError where there is no `data.lock`.
    """
    lock = read_lock(project.lock_file(competition))
    planned = {one.run: one for one in list_runs(project, competition)}
    refused: dict[str, str] = {}
    kept = tuple(run for run in manifest["trained"] if run in planned and not planned[run].stale)
    trained = [run for run in manifest["trained"] if run not in kept]
    for run in trained:
        source = output / "oof" / competition / f"{run}.npz"
        try:
            _check(project, competition, source, planned.get(run), lock)
        except PredictionsError as error:
            refused[run] = "; ".join([error.found or error.what, *error.faults])
            continue
        history = output / "reports" / competition / "history" / f"{run}.csv"
        if history.is_file():
            _copy(history, project.history_file(competition, run))
        _copy(source, project.predictions_file(competition, run))  # last: it alone decides what is up to date
    taken = tuple(run for run in trained if run not in refused)
    return TakenIn(taken, refused, tuple(manifest["left"]), kept)


def _check(project: Project, competition: str, file: Path, planned: PlannedRun | None, lock: Lock) -> None:
    """Raise PredictionsError unless the file is the planned run, of today's recipe, data and weights."""
    if planned is None:
        raise PredictionsError("no recipe here makes it")
    one = load_predictions(file)
    if one.run != planned.run:
        raise PredictionsError(f"it says of itself that it is {one.run}")
    if one.about.get("stamp") != planned.stamp:
        raise PredictionsError("its recipe, its seed or the data are not today's: they changed since the push")
    weights = weights_sha256(planned.recipe, project.root)
    if weights and one.about.get("weights_sha256") != weights:
        raise PredictionsError("it started from another weights file")
    check_against_lock(align([one]), lock, paths=project.paths(competition))


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as inside, atomic_write(target) as outside:
        shutil.copyfileobj(inside, outside)
