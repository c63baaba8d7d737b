"""The progress of a run: times it, reports it to a listener and the trackers, and keeps its history."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from podium.errors import DivergedError
from podium.files import atomic_write
from podium.training.checkpoint import Checkpoint
from podium.training.trackers import Trackers

# What changes within an epoch.
EPOCH_STATE = ("stage", "epoch", "epochs_of_stage", "steps", "finite_steps", "epoch_images", "total_loss")


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
    validation_loss: float = math.nan  # the mean log loss in nats, or of numbers the mean distance; NaN as above


class Listener:
    """Base class of what is notified of a run's progress; its methods do nothing."""

    def note(self, text: str) -> None:
        """Called with a line of text for the user."""

    def step(self, share_done: float, images_per_second: float) -> None:
        """Called after each training step; `share_done` is 0 to 1 over the whole run."""

    def validation(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Called after each epoch with validation rows, before `epoch`: logits (n, classes) and labels (n,)."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch."""


def diverged(expected: str, found: str) -> DivergedError:
    """The error for a training that diverged."""
    fix = "a smaller `learning_rate`, or `gradient_clip = 1.0`, in the recipe"
    return DivergedError("Training diverged.", expected=expected, found=found, fix=fix)


class ProgressRecorder:
    """Times a run over all its fits, notifies the listener of each epoch, and keeps the epochs of the fit in training.

    `images` is how many training images all fits process.
    """

    def __init__(self, listener: Listener, *, images: int, checkpoint: Checkpoint | None = None):
        self.listener, self.images = listener, images
        self.images_done, self.training_seconds, self.started = 0, 0.0, time.perf_counter()
        self.begin_fit(checkpoint or Checkpoint(), Trackers())

    def begin_fit(self, checkpoint: Checkpoint, trackers: Trackers) -> None:
        """Begin a fit; with a saved checkpoint go on from its progress."""
        self.checkpoint, self.trackers, self.before, self.epochs = checkpoint, trackers, self.totals(), []
        self.start_epoch("", 1, 0)
        if checkpoint.is_saved:
            self.add(checkpoint.state["progress"])
            done = self.images_done / max(self.images, 1)
            self.listener.note(f"goes on from its checkpoint, {done:.0%} of the training")

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Training images per second, over all epochs so far."""
        return self.images_done / max(self.training_seconds, 1e-9)

    def totals(self) -> dict[str, float]:
        """What is summed over the fits of a run."""
        return {"images": self.images_done, "training_seconds": self.training_seconds, "seconds": self.seconds}

    def state_dict(self) -> dict[str, Any]:
        """The progress of the fit so far; raises DivergedError as `mean_loss` does."""
        self.mean_loss()
        totals = {name: total - self.before[name] for name, total in self.totals().items()}
        epoch = {name: getattr(self, name) for name in EPOCH_STATE}
        epoch_seconds, epochs = time.perf_counter() - self.epoch_started, [asdict(report) for report in self.epochs]
        return totals | {"epoch": epoch, "epoch_seconds": epoch_seconds, "epochs": epochs}

    def add(self, state: dict[str, Any]) -> None:
        """Add the progress of a fit, from `state_dict`, to the run; the time since then does not count."""
        self.images_done += state["images"]
        self.training_seconds += state["training_seconds"]
        self.started -= state["seconds"]
        self.epoch_started = time.perf_counter() - state["epoch_seconds"]
        self.epochs = [EpochReport(**report) for report in state["epochs"]]
        vars(self).update(state["epoch"])

    def start_epoch(self, stage: str, epoch: int, epochs: int) -> None:
        """Start an epoch, counted from 1, of the `epochs` of a stage."""
        self.steps = 0 if epoch == 1 else self.steps  # of the stage
        self.stage, self.epoch, self.epochs_of_stage = stage, epoch, epochs
        self.finite_steps = self.steps  # before the first loss that is not finite
        self.epoch_images, self.total_loss, self.epoch_started = 0, 0.0, time.perf_counter()

    def step(self, loss: Tensor, images: int, groups: Sequence[dict[str, Any]]) -> None:
        """Add a step of so many images; their mean `loss` stays on the device, so that a GPU does not wait for it.

        `groups` are the optimiser's, whose learning rates the trackers log.
        """
        self.steps += 1
        self.epoch_images += images
        self.images_done += images
        self.total_loss = self.total_loss + loss * images
        self.finite_steps = self.finite_steps + self.total_loss.isfinite()
        if self.trackers:
            rates = {f"lr_{place}": group["lr"] for place, group in enumerate(groups)}
            self.trackers.log(self.stage, self.steps, self.images_done, {"train_loss": float(loss)} | rates)
        seconds = time.perf_counter() - self.epoch_started
        self.listener.step(self.images_done / self.images, self.epoch_images / max(seconds, 1e-9))

    def mean_loss(self) -> float:
        """The mean loss of the epoch so far; raises DivergedError where it is not finite."""
        loss = float(self.total_loss) / max(self.epoch_images, 1)
        if not math.isfinite(loss):
            place = f"epoch {self.epoch} of {self.epochs_of_stage} ({self.stage.strip()})"
            raise diverged("a finite loss", f"{loss} at step {int(self.finite_steps) + 1}, in {place}")
        return loss

    def restart(self) -> None:
        """Forget the epochs and the images of a fit that begins again."""
        self.images_done, self.epochs = self.before["images"], []

    def end_epoch(self, validate: Callable[[], tuple[float, float]]) -> None:
        """Compute the mean loss, which waits for a GPU to finish, and the time; then validate, keep and report all.

        `validate` gives accuracy and loss, NaN where there are none. Raises DivergedError where the loss is not finite.
        """
        loss = self.mean_loss()
        seconds = time.perf_counter() - self.epoch_started
        self.training_seconds += seconds
        accuracy, validation_loss = validate()
        report = EpochReport(
            stage=self.stage,
            epoch=self.epoch,
            epochs=self.epochs_of_stage,
            training_loss=round(loss, 5),
            validation_accuracy=round(accuracy, 5),
            images_per_second=round(self.epoch_images / max(seconds, 1e-9), 1),
            seconds=round(self.seconds, 1),
            seconds_left=round(self.seconds * (self.images / self.images_done - 1), 1),
            validation_loss=round(validation_loss, 5),
        )
        self.epochs.append(report)
        numbers = {name: value for name, value in asdict(report).items() if name != "stage" and math.isfinite(value)}
        self.trackers.log(self.stage, self.steps, self.images_done, numbers)
        self.listener.epoch(report)


def write_history(file: Path, epochs: Sequence[dict[str, Any]]) -> None:
    """Write the epochs of all fits, a row each, once the run is trained: a run that fails keeps its earlier history."""
    table = pd.DataFrame(epochs, columns=[field.name for field in fields(EpochReport)])
    with atomic_write(file) as stream:
        table.to_csv(stream, index=False, na_rep="nan")
