"""One trial: draw values, train on inner rows, and score."""

from dataclasses import replace

import numpy as np
import optuna

from podium.config.keys import Recipe
from podium.data.folds import ALWAYS_TRAINS
from podium.errors import ConfigError, DeviceMemoryError, DivergedError
from podium.seeding import stream_seed
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.tune.study import OWN_VALUES, REASON, SCRATCH, Tuning

# Errors of a training that other values may not have.
FAILURES = (DivergedError, DeviceMemoryError, ConfigError)


def run_trial(tuning: Tuning, trial: optuna.Trial) -> float:
    """The score of the values that are drawn for a trial.

    Raises TrialPruned for values that cannot be trained (pruned, so that the sampler avoids them) or fall behind, and
    an error that no values would fix.
    """
    try:
        recipe = tuning.recipe_of(trial)
        probabilities = train_inner(tuning, recipe, part=0, listener=_Reporter(tuning, trial, recipe))
    except FAILURES as error:
        trial.set_user_attr(REASON, "; ".join(error.faults) or f"{error.what} {error.found}")
        raise optuna.TrialPruned from None
    return tuning.metric(probabilities, tuning.cell_labels(0))


def train_inner(tuning: Tuning, recipe: Recipe, *, part: int, listener: Listener | None = None) -> np.ndarray:
    """Probabilities (n, classes) of the cells (see podium.targets) of a part, trained on the other inner rows.

    Each part has its own seed. Raises the TrainingError or DataError of `train_run`.
    """
    seed = stream_seed(tuning.run.seed, f"tune part {part}") % 2**32 if part else tuning.run.seed
    run = replace(tuning.run, recipe=replace(recipe, refit=False, pseudo_labels=""), seed=seed, stamp="")
    lock, rows = tuning.inner, np.flatnonzero(tuning.inner.folds >= 0)
    lock = replace(lock, folds=np.where(lock.folds == part, 0, ALWAYS_TRAINS))  # the part is the only validation fold
    workspace = replace(
        tuning.workspace,
        paths=replace(tuning.workspace.paths, outputs=tuning.folder / SCRATCH),
        competition=replace(tuning.workspace.competition, trackers=()),
    ).with_lock(lock)
    predictions = train_run(workspace, run, listener=listener, rows=rows, test_rows=1)
    return lock.target.values(lock.target.cells(predictions.oof_logits))


class _Reporter(Listener):
    """Reports the score of each epoch of a trial to Optuna, and raises TrialPruned if it is below the median."""

    def __init__(self, tuning: Tuning, trial: optuna.Trial, recipe: Recipe):
        self.tuning, self.trial, self.epochs_done, own = tuning, trial, 0, tuning.run.recipe
        # A longer schedule is behind in its first epochs, so only equally long trials are compared epoch by epoch.
        same_length = (recipe.freeze_epochs, recipe.epochs) == (own.freeze_epochs, own.epochs)
        self.is_prunable = same_length and OWN_VALUES not in trial.user_attrs
        self.epochs = recipe.freeze_epochs + recipe.epochs

    def validation(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.epochs_done += 1
        target = self.tuning.inner.target
        score = self.tuning.metric(target.values(target.cells(logits)), target.cell_labels(labels))
        self.trial.report(score, self.epochs_done)
        # To stop after the last epoch would save nothing.
        if self.is_prunable and self.epochs_done < self.epochs and self.trial.should_prune():
            raise optuna.TrialPruned
