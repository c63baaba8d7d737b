"""One trial: draw values, train on inner rows in a worker process, and score."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna

from podium.config.keys import Recipe
from podium.data.folds import ALWAYS_TRAINS
from podium.errors import ConfigError, DeviceMemoryError, DivergedError
from podium.seeding import stream_seed
from podium.training.device import count_gpus
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.tune.study import LOG_LOSS, OWN_VALUES, REASON, SCORE, Tuning

# Errors of a training that other values may not have.
FAILURES = (DivergedError, DeviceMemoryError, ConfigError)


def run_trial(tuning: Tuning, trial: optuna.Trial) -> float:
    """The gain of the values that are drawn for a trial: its score, or minus the score where less is better.

    Raises TrialPruned, FAILURES, or an error that no values would fix.
    """
    try:
        recipe = tuning.recipe_of(trial)
        listener = _Reporter(tuning, trial, prunable_epochs=_prunable_epochs(tuning, trial, recipe))
        probabilities = train_inner(tuning, recipe, part=0, listener=listener)
    except FAILURES as error:
        trial.set_user_attr(REASON, "; ".join(error.faults) or f"{error.what} {error.found}")
        raise
    labels = tuning.cell_labels(0)
    score = tuning.metric(probabilities, labels)
    trial.set_user_attr(SCORE, score)
    second = tuning.inner.target.metrics[tuning.inner.target.scores[1]]
    trial.set_user_attr(LOG_LOSS, -second.gain(second(probabilities, labels)))
    return tuning.metric.gain(score)


def train_inner(tuning: Tuning, recipe: Recipe, *, part: int, listener: Listener | None = None) -> np.ndarray:
    """Probabilities (n, classes) of the cells (see podium.targets) of a part, trained on the other inner rows.

    Each part has its own seed. Raises the TrainingError or DataError of `train_run`.
    """
    seed = stream_seed(tuning.run.seed, f"tune part {part}") % 2**32 if part else tuning.run.seed
    run = replace(tuning.run, recipe=replace(recipe, refit=False, pseudo_labels=""), seed=seed, stamp="")
    lock, rows = tuning.inner, np.flatnonzero(tuning.inner.folds >= 0)
    lock = replace(lock, folds=np.where(lock.folds == part, 0, ALWAYS_TRAINS))  # the part is the only validation fold
    with tempfile.TemporaryDirectory(dir=tuning.scratch) as folder:
        workspace = replace(
            tuning.workspace,
            paths=replace(tuning.workspace.paths, outputs=Path(folder)),
            competition=replace(tuning.workspace.competition, trackers=()),
        ).with_lock(lock)
        predictions = train_run(workspace, run, listener=listener or _Reporter(tuning), rows=rows, test_rows=1)
    return lock.target.values(lock.target.cells(predictions.oof_logits))


def parallel_trials(recipe: Recipe) -> int:
    """How many trials run at once: one on each GPU, else as many as have CPU cores of their own."""
    return count_gpus() or max(1, len(os.sched_getaffinity(0)) // recipe.threads)


class _Reporter(Listener):
    """Reports the gain of each epoch of a trial to Optuna; raises TrialPruned in one of the first `prunable_epochs`.

    Raises KeyboardInterrupt once the main process has stopped the search.
    """

    def __init__(self, tuning: Tuning, trial: optuna.Trial | None = None, *, prunable_epochs: int = 0):
        self.stop_file, self.tuning, self.trial = tuning.stop_file, tuning, trial
        self.prunable_epochs, self.epochs = prunable_epochs, 0

    def step(self, share_done: float, images_per_second: float) -> None:
        self.wait()

    def wait(self) -> None:
        if self.stop_file.exists():
            raise KeyboardInterrupt

    def validation(self, logits: np.ndarray, labels: np.ndarray) -> None:
        self.epochs += 1
        if self.trial is not None:
            metric, target = self.tuning.metric, self.tuning.inner.target
            score = metric(target.values(target.cells(logits)), target.cell_labels(labels))
            self.trial.report(metric.gain(score), self.epochs)
            if self.epochs <= self.prunable_epochs and self.trial.should_prune():
                raise optuna.TrialPruned


def _prunable_epochs(tuning: Tuning, trial: optuna.Trial, recipe: Recipe) -> int:
    own = tuning.run.recipe
    # A longer schedule is behind in its first epochs, so only equally long trials are compared epoch by epoch.
    same_length = (recipe.freeze_epochs, recipe.epochs) == (own.freeze_epochs, own.epochs)
    if OWN_VALUES in trial.user_attrs or not same_length:
        return 0
    return recipe.freeze_epochs + recipe.epochs - 1  # to stop after the last epoch would save nothing
