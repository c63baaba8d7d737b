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
    """Times a run over all its fits, notifies the listener of each epoch, and keeps the epochs for the history file.

    `images` is how many training images all fits process. A run with a saved checkpoint goes on from its progress.
    """

    def __init__(
        self, listener: Listener, *, images: int, trackers: Trackers | None = None, checkpoint: Checkpoint | None = None
    ):
        self.listener, self.images = listener, images
        self.trackers, self.checkpoint = Trackers() if trackers is None else trackers, checkpoint or Checkpoint()
        self.images_done, self.training_seconds, self.started = 0, 0.0, time.perf_counter()
        self.epochs: list[EpochReport] = []
        self.start_epoch("", 1, 0)
        if self.checkpoint.is_saved:
            self.load_state_dict(self.checkpoint.state["progress"])
            listener.note(f"goes on from its checkpoint, {self.images_done / max(images, 1):.0%} of the training")

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Training images per second, over all epochs so far."""
        return self.images_done / max(self.training_seconds, 1e-9)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know of the training so far; raises DivergedError as `mean_loss` does."""
        self.mean_loss()
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int | float | str | Tensor)}
        epoch_seconds = time.perf_counter() - self.epoch_started
        epochs = [asdict(report) for report in self.epochs]
        return numbers | {"seconds": self.seconds, "epoch_seconds": epoch_seconds, "epochs": epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the progress of a killed training; the time since it was saved does not count."""
        now, state = time.perf_counter(), dict(state)
        started, epoch_started = now - state.pop("seconds"), now - state.pop("epoch_seconds")
        epochs = [EpochReport(**report) for report in state.pop("epochs")]
        vars(self).update(state | {"started": started, "epoch_started": epoch_started, "epochs": epochs})

    def join(self, states: Sequence[dict[str, Any]]) -> None:
        """Add the progress of fits that other processes have trained; their seconds are added too."""
        for state in states:
            self.images_done += state["images_done"]
            self.training_seconds += state["training_seconds"]
            self.started -= state["seconds"]
            self.epochs += [EpochReport(**report) for report in state["epochs"]]
        if states:
            self.listener.note(f"joins {len(states)} fits that are trained")

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

    def restart(self, stage: str, images_before: int) -> None:
        """Forget the epochs of a fit that begins again; the images that it has processed are left to do once more."""
        self.images += self.images_done - images_before
        names = (stage, stage or "train")
        self.epochs = [report for report in self.epochs if report.stage.removeprefix("freeze") not in names]

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

    def sort_epochs(self, stages: Sequence[str]) -> None:
        """Sort the epochs by the fit that they are of; `stages` are those of the fits, the first of which may be ""."""
        self.epochs.sort(key=lambda report: max(k for k, stage in enumerate(stages) if report.stage.endswith(stage)))

    def write_history(self, file: Path) -> None:
        """Write the epochs, a row each, once the run is trained: a run that fails keeps its earlier history."""
        table = pd.DataFrame(self.epochs, columns=[field.name for field in fields(EpochReport)])
        with atomic_write(file) as stream:
            table.to_csv(stream, index=False, na_rep="nan")


class SilentRecorder(ProgressRecorder):
    """The progress of a process beside rank 0, which alone validates and reports."""

    def end_epoch(self, validate: Callable[[], float]) -> None:
        """Go on with the next epoch."""
