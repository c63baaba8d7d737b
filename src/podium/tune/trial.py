"""One trial: a run trained and scored on inner rows, in a worker process."""

import os
import tempfile
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import optuna

from podium.config.keys import Recipe
from podium.metrics import softmax
from podium.training.device import pick_device
from podium.training.progress import EpochReport, Listener
from podium.training.run import train_run
from podium.tune import worker
from podium.tune.study import load_study
from podium.tune.worker import Stopped, Trial


class _Reporter(Listener):
    """Reports epochs to the study; raises TrialPruned or Stopped to end the training."""

    def __init__(self, trial: optuna.Trial | None, stop: Event | None, *, last_pruned_epoch: int):
        self.trial, self.stop, self.last_pruned_epoch = trial, stop, last_pruned_epoch
        self.epochs, self.parent = 0, os.getppid()

    def step(self, share_done: float, images_per_second: float) -> None:
        self.wait()

    def wait(self) -> None:
        if os.getppid() != self.parent:
            os._exit(1)  # the main process was killed: nothing else would end this one
        if self.stop is not None and self.stop.is_set():
            raise Stopped("the search was stopped")

    def epoch(self, report: EpochReport) -> None:
        self.epochs += 1
        if self.trial is not None:
            self.trial.report(report.validation_accuracy, self.epochs)
            if self.epochs <= self.last_pruned_epoch and self.trial.should_prune():
                raise optuna.TrialPruned("below the median")  # fastai needs a message


def run_trial(trial: Trial) -> np.ndarray:
    """Probabilities (n, classes) of the rows of the trial's part.

    Raises TrialPruned, Stopped, or the TrainingError or DataError of `train_run`.
    """
    context, optuna_trial = worker.context, None
    if trial.trial_id is not None:
        optuna_trial = optuna.Trial(load_study(context.journal, context.study_name), trial.trial_id)
    # The last epoch is never pruned: nothing would be saved.
    prunable = trial.run.recipe.freeze_epochs + trial.run.recipe.epochs - 1 if trial.may_be_pruned else 0
    listener = _Reporter(optuna_trial, worker.stop, last_pruned_epoch=prunable)
    with tempfile.TemporaryDirectory() as folder:
        scratch = replace(
            context.workspace,
            paths=context.workspace.paths.with_outputs(Path(folder)),
            competition=replace(context.workspace.competition, trackers=()),
        )
        vars(scratch)["lock"] = context.split.lock_for(trial.part)  # else it would be read from its file
        predictions = train_run(scratch, trial.run, listener=listener, rows=context.split.rows, test_rows=1)
    return softmax(predictions.oof_logits)


def parallel_trials(recipe: Recipe) -> int:
    """How many trials run at once: one on a GPU, else as many as have CPU cores of their own."""
    if pick_device().type != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)) // recipe.threads)
