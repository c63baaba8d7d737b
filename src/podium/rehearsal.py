"""Rehearse a competition: every step from training to the CSV, on few images, before hours of training."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from podium.ensemble.write import WrittenEnsemble, write_ensemble
from podium.plan.runs import PlannedRun
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.workspace import Workspace

REHEARSAL_FOLDER = Path(".rehearsal")
REHEARSAL_ROWS = 1_000


def rehearse(workspace: Workspace, *, listener_of: type[Listener]) -> WrittenEnsemble:
    """Train the first run of every recipe for one epoch on about 1,000 rows, and write their ensemble.

    Everything is written below `.rehearsal/`. `listener_of` makes a listener from a recipe's name.
    """
    paths = workspace.paths
    scratch = replace(workspace, paths=replace(paths, outputs=paths.root / REHEARSAL_FOLDER))
    for old_predictions in scratch.paths.predictions_folder.glob("*.npz"):
        old_predictions.unlink()
    lock = workspace.lock
    strata = lock.target.strata(lock.train_labels, least=1, most=REHEARSAL_ROWS)
    rows = balanced_rows(strata, lock.folds, rows=REHEARSAL_ROWS)
    first_runs = {run.recipe_name: run for run in reversed(workspace.trainable_runs)}
    for name in sorted(first_runs):
        train_run(scratch, _shortened(first_runs[name]), listener=listener_of(name), rows=rows)
    return write_ensemble(scratch, rehearsed=True)


def _shortened(run: PlannedRun) -> PlannedRun:
    epochs, freeze_epochs = min(run.recipe.epochs, 1), min(run.recipe.freeze_epochs, 1)
    recipe = replace(run.recipe, epochs=epochs, freeze_epochs=freeze_epochs, progressive_pixels=())
    return replace(run, recipe=recipe, stamp=f"rehearsal of {run.stamp}")


def balanced_rows(labels: np.ndarray, folds: np.ndarray, *, rows: int) -> np.ndarray:
    """Indices of about `rows` labelled rows, sorted: equally many of each class in each fold, evenly spaced.

    Neighbours are often alike, as in names sorted by subject: the first rows would not represent the others.
    """
    groups = [
        np.flatnonzero((labels == label) & (folds == fold)) for label in np.unique(labels) for fold in np.unique(folds)
    ]
    most = max(1, rows // len(groups))
    spaced = [group[np.linspace(0, len(group) - 1, min(most, len(group))).astype(int)] for group in groups]
    return np.sort(np.concatenate(spaced))
