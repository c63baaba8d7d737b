"""One trial: a run trained and scored on inner rows, in a worker process."""

import os
from dataclasses import replace
from multiprocessing.synchronize import Event

import numpy as np
import optuna
import torch

from podium.config.keys import Recipe
from podium.errors import DivergedError
from podium.metrics import softmax
from podium.training.batches.loader import PixelStore
from podium.training.cores import claim_cores
from podium.training.device import cpu_threads, pick_device
from podium.training.learner import fit_network
from podium.training.lr_find import find_if_asked
from podium.training.progress import EpochReport, Listener, ProgressRecorder
from podium.training.rows import FitData, open_recipe_images
from podium.training.run import check_finite
from podium.tune import worker
from podium.tune.study import load_study
from podium.tune.worker import Outcome, Trial


class _Stopped(Exception):  # noqa: N818 - not an error
    """The search was stopped."""


class _Reporter(Listener):
    """Reports epochs to the study; raises TrialPruned or _Stopped to end the training."""

    def __init__(self, trial: optuna.Trial | None, stop: Event | None, *, last_pruned_epoch: int):
        self.trial, self.stop, self.last_pruned_epoch = trial, stop, last_pruned_epoch
        self.epochs, self.parent = 0, os.getppid()

    def step(self, share_done: float, images_per_second: float) -> None:
        self.wait()

    def wait(self) -> None:
        if os.getppid() != self.parent:
            os._exit(1)  # the main process was killed: nothing else would end this one
        if self.stop is not None and self.stop.is_set():
            raise _Stopped("the search was stopped")

    def epoch(self, report: EpochReport) -> None:
        self.epochs += 1
        if self.trial is not None:
            self.trial.report(report.validation_accuracy, self.epochs)
            if self.epochs <= self.last_pruned_epoch and self.trial.should_prune():
                raise optuna.TrialPruned("below the median")  # fastai needs a message


def run_trial(trial: Trial) -> Outcome:
    """Train and score one trial; raises the TrainingError or DataError that no values of the keys would fix."""
    context, optuna_trial = worker.context, None
    if trial.trial_id is not None:
        optuna_trial = optuna.Trial(load_study(context.journal, context.study_name), trial.trial_id)
    # The last epoch is never pruned: nothing would be saved.
    prunable = trial.run.recipe.freeze_epochs + trial.run.recipe.epochs - 1 if trial.may_be_pruned else 0
    listener = _Reporter(optuna_trial, worker.stop, last_pruned_epoch=prunable)
    try:
        logits = _logits(trial, listener)
    except optuna.TrialPruned:
        return Outcome("pruned")
    except _Stopped:
        return Outcome("stopped")
    except DivergedError as error:
        return Outcome("failed", reason=f"{error.what} {error.found}")
    except torch.OutOfMemoryError:
        return Outcome("failed", reason="The device has too little memory.")
    return Outcome("complete", softmax(logits))


def _logits(trial: Trial, listener: _Reporter) -> np.ndarray:
    workspace, recipe, split = worker.context.workspace, trial.run.recipe, worker.context.split
    lock, root, scored = split.lock, workspace.paths.root, split.scored_rows(trial.part)
    store = PixelStore(open_recipe_images(workspace, recipe).train_images, pick_device())
    training = np.setdiff1d(split.rows, scored)
    data = FitData(store, lock.train_labels, len(lock.classes), training, scored)
    images = recipe.images_an_epoch(len(training)) * (recipe.freeze_epochs + recipe.epochs)
    with claim_cores(recipe.threads, while_waiting=listener.wait), cpu_threads(recipe.threads):
        if result := find_if_asked(recipe, data, seed=trial.run.seed, root=root):
            recipe = replace(recipe, learning_rate=result.rate)
        progress = ProgressRecorder(listener, images=images)
        network = fit_network(
            recipe, data, seed=trial.run.seed, purpose="/fold0", root=root, progress=progress, stage=""
        )
        return check_finite(network.logits(store, scored))


def parallel_trials(recipe: Recipe) -> int:
    """How many trials run at once: one on a GPU, else as many as have CPU cores of their own."""
    if pick_device().type != "cpu":
        return 1
    return max(1, len(os.sched_getaffinity(0)) // recipe.threads)
