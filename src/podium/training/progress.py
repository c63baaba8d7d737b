"""The progress of a run: times it, reports it to a listener and the trackers, and keeps its history."""

import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback

from podium.errors import DivergedError
from podium.files import atomic_write
from podium.targets.target import CLASS, Target
from podium.training.trackers import Trackers


@dataclass(frozen=True)
class EpochReport:
    """The results of one epoch: one row of the history file."""

    stage: str  # freeze, train or refit; with the number of the fold where there are several
    epoch: int  # from 1
    epochs: int
    training_loss: float
    validation_accuracy: float  # NaN where there is no validation row
    images_per_second: float  # while training, without validation
    seconds: float  # since the run began
    seconds_left: float


class Listener:
    """Base class of what is notified of a run's progress; its methods do nothing."""

    def wait(self) -> None:
        """Called again and again while the run waits for free cores; may raise to cancel the run."""

    def note(self, text: str) -> None:
        """Called with a line of text for the user."""

    def step(self, share_done: float, images_per_second: float) -> None:
        """Called after each training step; `share_done` is 0 to 1 over the whole run."""

    def validation(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Called after each epoch with validation rows, before `epoch`: logits (n, classes) and labels (n,)."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch."""


class ProgressRecorder:
    """Times a run over all its fits, notifies the listener of each epoch, and keeps the epochs for the history file.

    `images` is how many training images all fits process.
    """

    def __init__(self, listener: Listener, *, images: int, trackers: Trackers | None = None, target: Target = CLASS):
        self.listener, self.images, self.target = listener, images, target
        self.trackers = trackers or Trackers()
        self.images_done, self.training_seconds, self.started = 0, 0.0, time.perf_counter()
        self.epochs: list[EpochReport] = []

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Training images per second, over all epochs so far."""
        return self.images_done / max(self.training_seconds, 1e-9)

    def write_history(self, file: Path) -> None:
        """Write the epochs, a row each, once the run is trained: a run that fails keeps its earlier history."""
        table = pd.DataFrame(self.epochs, columns=[field.name for field in fields(EpochReport)])
        with atomic_write(file) as stream:
            table.to_csv(stream, index=False, na_rep="nan")


class ProgressCallback(Callback):
    """Measures loss, accuracy and time of each epoch of one fit; raises DivergedError where the loss is not finite."""

    order = 60

    def __init__(self, recorder: ProgressRecorder, stage: str):
        self.recorder, self.stage = recorder, stage

    def before_train(self) -> None:
        """Reset the counts of the training rows."""
        self.images, self.total_loss, self.epoch_started = 0, 0.0, time.perf_counter()

    def before_validate(self) -> None:
        """Forget the validation of the previous epoch."""
        self.logits, self.labels = [], []

    def after_batch(self) -> None:
        """Add one batch; losses and logits stay on the device, so that a GPU does not wait for them."""
        count = len(self.learn.xb[0])
        if self.learn.training:
            self.images += count
            self.total_loss = self.total_loss + self.learn.loss.detach() * count
            self.recorder.images_done += count
            seconds = time.perf_counter() - self.epoch_started
            share_done = self.recorder.images_done / self.recorder.images
            self.recorder.listener.step(share_done, self.images / max(seconds, 1e-9))
        else:
            self.logits.append(self.learn.pred.detach())
            self.labels.append(self.learn.yb[0])

    def after_train(self) -> None:
        """Compute the mean loss, which waits for a GPU to finish, and then the time."""
        self.mean_loss = float(self.total_loss) / max(self.images, 1)
        self.epoch_seconds = time.perf_counter() - self.epoch_started
        self.recorder.training_seconds += self.epoch_seconds
        if not math.isfinite(self.mean_loss):
            raise DivergedError(
                "Training diverged.",
                expected="a finite loss",
                found=f"{self.mean_loss} in epoch {self.learn.epoch + 1} of {self.learn.n_epoch} ({self.stage})",
                fix="a smaller `learning_rate`, or `gradient_clip = 1.0`, in the recipe",
            )

    def after_epoch(self) -> None:
        """Keep the results of the epoch, and notify the listener."""
        recorder, accuracy = self.recorder, math.nan
        if self.logits:
            logits, labels = (torch.cat(parts).cpu().numpy() for parts in (self.logits, self.labels))
            mean, deviation = self.learn.dls.train.scale
            if deviation != 1 or mean:
                logits, labels = logits * deviation + mean, labels * deviation + mean
            accuracy = recorder.target.scores_of(logits, labels).get("accuracy", math.nan)
            recorder.listener.validation(logits, labels)
        seconds_left = recorder.seconds * (recorder.images / recorder.images_done - 1)
        report = EpochReport(
            stage=self.stage,
            epoch=self.learn.epoch + 1,
            epochs=self.learn.n_epoch,
            training_loss=round(self.mean_loss, 5),
            validation_accuracy=round(accuracy, 5),
            images_per_second=round(self.images / max(self.epoch_seconds, 1e-9), 1),
            seconds=round(recorder.seconds, 1),
            seconds_left=round(seconds_left, 1),
        )
        recorder.epochs.append(report)
        recorder.listener.epoch(report)
