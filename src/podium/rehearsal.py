"""Runs in a scratch folder: a rehearsal on few images before hours of training, and training a run once more."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from podium.config.pixels import count_pixels
from podium.ensemble.compact import as_float16
from podium.ensemble.compare import bootstrap, estimate
from podium.ensemble.pool import pool_of
from podium.ensemble.write import WrittenEnsemble, write_ensemble
from podium.plan.runs import PlannedRun
from podium.predictions.align import align
from podium.predictions.artefact import Predictions, load_predictions
from podium.training.estimate import check_recipes
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.workspace import Workspace

REHEARSAL_FOLDER = Path(".rehearsal")
# Labelled images that a rehearsal uses: fewer, but at least FEWEST_ROWS, where they have more than 64 x 64 pixels.
REHEARSAL_ROWS, FEWEST_ROWS, REHEARSAL_PIXELS = 1_000, 50, 1_000 * 64 * 64
# What is the same when a run is trained again, the strictest level first; of the last one, nothing is.
LEVELS = ("bit for bit", "same labels", "same score within its interval", "another score")


def rehearse(workspace: Workspace, *, listener_of: type[Listener]) -> WrittenEnsemble:
    """Train the first run of every recipe for one epoch on few rows, and write their ensemble.

    Everything is written below `.rehearsal/`. `listener_of` makes a listener from a recipe's name.
    """
    scratch = _in_scratch(workspace, REHEARSAL_FOLDER)
    for old_predictions in scratch.paths.predictions_folder.glob("*.npz"):
        old_predictions.unlink()
    first_runs = {run.recipe_name: run for run in reversed(workspace.trainable_runs)}
    rows = _few_rows(workspace)
    check_recipes(workspace, list(first_runs.values()))
    for name in sorted(first_runs):
        train_run(scratch, _shortened(first_runs[name]), listener=listener_of(name), rows=rows)
    return write_ensemble(scratch, rehearsed=True)


def _in_scratch(workspace: Workspace, folder: Path) -> Workspace:
    """The workspace, which writes everything below another folder."""
    return replace(workspace, paths=replace(workspace.paths, outputs=workspace.paths.root / folder))


def _few_rows(workspace: Workspace) -> np.ndarray:
    """Indices of the labelled rows that a rehearsal uses, sorted."""
    lock, largest = workspace.lock, max(count_pixels(recipe.network_pixels) for recipe in workspace.recipes.values())
    rows = min(REHEARSAL_ROWS, max(FEWEST_ROWS, REHEARSAL_PIXELS // largest))
    strata = lock.target.strata(lock.train_labels, least=1, most=rows)
    return balanced_rows(strata, lock.folds, rows=rows)


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


def repeat_run(
    workspace: Workspace, run: PlannedRun, *, listener: Listener, rehearsed: bool = False
) -> tuple[str, str]:
    """Train a run again in `.rehearsal/verify/`, and compare it with its predictions: what `compare_predictions` gives.

    `rehearsed`: train it twice instead, for one epoch on few rows. Raises PredictionsError where the run has
    no predictions, and as `train_run` does.
    """
    scratch, options = _in_scratch(workspace, REHEARSAL_FOLDER / "verify"), {"listener": listener}
    if rehearsed:
        run, rows = _shortened(run), _few_rows(workspace)
        options |= {"rows": rows, "test_rows": len(rows)}

    def train() -> Predictions:
        train_run(scratch, run, **options)
        return load_predictions(scratch.paths.predictions_file(run.run))

    first = train() if rehearsed else load_predictions(workspace.paths.predictions_file(run.run))
    return compare_predictions(first, train(), workspace)


def compare_predictions(first: Predictions, second: Predictions, workspace: Workspace) -> tuple[str, str]:
    """The level of LEVELS at which two predictions of one run are the same, and the scores and labels behind it.

    They must have the same rows. If the first were rounded to float16, they are compared with the rounded second ones.
    """
    second = replace(second, about=second.about | {"run": f"{first.run} again"})
    both = align([first, second], replace(workspace.lock, test_ids=first.test_ids), rehearsed=True)
    metric, target, parts = workspace.competition.metric, both.target, (both.oof_logits, both.test_logits)
    pool = pool_of(both, workspace.competition.ensemble, metric=metric)
    values = [target.values(logs) for logs in pool.logs]
    scores = [pool.measure(of_run, pool.labels) for of_run in values]
    low, high = estimate(bootstrap(pool, [values[0][None]], outside=False), 0, tests=0).interval
    labels = np.concatenate([target.predicted(target.cells(part)) for part in parts], axis=1)
    differ, count = int((labels[0] != labels[1]).sum()), labels.shape[1]
    same_bits = any(all(np.array_equal(old, change(new)) for old, new in parts) for change in (np.copy, as_float16))
    level = LEVELS[(same_bits, not differ, low <= scores[1] <= high, True).index(True)]
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    return level, f"{metric} {scores[1]:.4f}, before {scores[0]:.4f}, {interval}; {differ:,} of {count:,} labels differ"
