"""One network of a search, trained and judged in a process of its own."""

import os
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import optuna
import torch

from podium.errors import DivergedError
from podium.metrics import softmax
from podium.training.batches.loader import PixelStore
from podium.training.cores import claim_cores
from podium.training.device import cpu_threads, pick_device
from podium.training.learner import evaluation_loader, fit_network
from podium.training.logits import predict_logits
from podium.training.progress import EpochReport, Listener, Watch
from podium.training.rows import Material, checked_dataset
from podium.training.run import checked_logits
from podium.tune import task as shared
from podium.tune.history import load_history
from podium.tune.task import COMPLETE, FAILED, PRUNED, STOPPED, Judged, Place, Task


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The search was stopped, or whoever ran it is gone."""


class _Reporter(Listener):
    """Tells the study of each epoch, and ends what is not worth the rest or not wanted any more."""

    def __init__(self, trial: optuna.Trial | None, stop: Event | None, *, pruned_until: int):
        self.trial, self.stop, self.pruned_until = trial, stop, pruned_until
        self.epochs, self.parent = 0, os.getppid()

    def step(self, share_done: float, images_per_second: float) -> None:
        self.go_on()

    def go_on(self) -> None:
        """Raise where nobody waits for the result any more."""
        if os.getppid() != self.parent:
            os._exit(1)  # nobody is left who would collect this process
        if self.stop is not None and self.stop.is_set():
            raise _Stopped("the search was stopped")

    def epoch(self, report: EpochReport) -> None:
        self.epochs += 1
        if self.trial is not None:
            self.trial.report(report.validation_accuracy, self.epochs)
            if self.epochs <= self.pruned_until and self.trial.should_prune():
                raise optuna.TrialPruned("below the median")  # fastai asks every exception for its words


def judge(task: Task) -> Judged:
    """Train and judge one task; what cannot be trained by any values raises, as it would for a run."""
    place, trial = shared.place, None
    if task.trial_id is not None:
        trial = optuna.Trial(load_history(place.journal, place.study_name), task.trial_id)
    epochs = task.recipe.freeze_epochs + task.recipe.epochs
    # After the last epoch there is nothing left to save: the score is worth more.
    reporter = _Reporter(trial, shared.stop, pruned_until=epochs - 1 if task.may_be_pruned else 0)
    try:
        return Judged(COMPLETE, _probabilities(task, place, reporter))
    except optuna.TrialPruned:
        return Judged(PRUNED)
    except _Stopped:
        return Judged(STOPPED)
    except DivergedError as error:
        return Judged(FAILED, reason=f"{error.what} {error.found}")
    except torch.OutOfMemoryError:
        return Judged(FAILED, reason="The device's memory is too small.")


def _probabilities(task: Task, place: Place, listener: _Reporter) -> np.ndarray:
    """Probabilities (n, classes) of the judged rows by a network that learned from the training rows."""
    recipe, lock = task.recipe, place.lock
    dataset = checked_dataset(place.project, place.competition_name, recipe, lock=lock, data=place.data)
    store = PixelStore(dataset.train_images, pick_device())
    material = Material(
        store, dataset.train_images, lock.train_labels, len(lock.classes), task.training_rows, task.judged_rows
    )
    images = recipe.images_an_epoch(len(task.training_rows)) * (recipe.freeze_epochs + recipe.epochs)
    with (
        claim_cores(recipe.threads, meanwhile=listener.go_on),
        cpu_threads(recipe.threads),
        tempfile.TemporaryDirectory() as folder,
    ):
        watch = Watch(listener, Path(folder) / "history.csv", images=images)
        fitted = fit_network(
            recipe,
            material,
            seed=place.seed,
            purpose=f"/tune{task.part}",
            root=place.project.root,
            watch=watch,
            stage="",
        )
        loader = evaluation_loader(store, task.judged_rows, recipe=recipe, normalisation=fitted.normalisation)
        views = recipe.test_time_augmentation
        logits = predict_logits(fitted.network, loader, views=views, precision=fitted.precision)
    return softmax(checked_logits(logits))
