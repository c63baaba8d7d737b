"""How training is going: told to listeners and trackers, written into the history."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fastai.callback.core import Callback

from podium.errors import DivergedError
from podium.training.lr_find import Finding
from podium.training.trackers import Trackers


@dataclass(frozen=True)
class EpochReport:
    """How one epoch went; one row of the history file."""

    stage: str  # freeze, train or refit, with the fold where there are several
    epoch: int  # from 1
    epochs: int
    training_loss: float
    validation_accuracy: float  # NaN where no labelled row was left out
    images_per_second: float  # of training alone
    seconds: float  # since the run began
    seconds_left: float


class Listener:
    """Hears how training goes; does nothing with it. The command line's prints, a test's remembers."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def step(self, share_done: float, images_per_second: float) -> None:
        """One step of the run is done; `share_done` is 0 to 1 over the whole run."""

    def epoch(self, report: EpochReport) -> None:
        """One epoch is done."""


class Watch:
    """Times a run over all its fits, tells listener and trackers, and writes each epoch into a CSV at once.

    `found` is called with what lr_find says, before the fit that learns at that rate.
    """

    def __init__(
        self,
        listener: Listener,
        history: Path,
        *,
        images: int,
        found: Callable[[Finding], object] = lambda finding: None,
        trackers: Trackers | None = None,
    ):
        self.listener, self.history, self.images, self.found = listener, history, images, found
        self.trackers = trackers or Trackers()
        self.seen, self.training_seconds, self.started = 0, 0.0, time.perf_counter()
        history.parent.mkdir(parents=True, exist_ok=True)
        with history.open("w", newline="") as file:
            csv.writer(file).writerow([field.name for field in fields(EpochReport)])

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Training images a second, over all epochs so far."""
        return self.seen / max(self.training_seconds, 1e-9)

    def finish_epoch(self, report: EpochReport) -> None:
        """Write and tell one epoch."""
        with self.history.open("a", newline="") as file:
            csv.writer(file).writerow(asdict(report).values())
        self.listener.epoch(report)


class WatchFit(Callback):
    """Counts loss, accuracy and time of one fit; stops it where the loss is no longer a number."""

    order = 60

    def __init__(self, watch: Watch, stage: str):
        self.watch, self.stage = watch, stage

    def before_train(self) -> None:
        """Start counting an epoch."""
        self.images, self.total, self.began = 0, 0.0, time.perf_counter()

    def before_validate(self) -> None:
        """Start counting the rows left out."""
        self.rows, self.hits = 0, 0

    def after_batch(self) -> None:
        """Count one batch; on the device, so that a GPU is not made to wait."""
        count = len(self.learn.xb[0])
        if self.learn.training:
            self.images += count
            self.total = self.total + self.learn.loss.detach() * count
            self.watch.seen += count
            spent = time.perf_counter() - self.began
            self.watch.listener.step(self.watch.seen / self.watch.images, self.images / max(spent, 1e-9))
        else:
            self.rows += count
            self.hits = self.hits + (self.learn.pred.argmax(1) == self.learn.yb[0]).sum()

    def after_train(self) -> None:
        """Stop the epoch's clock; a GPU has finished its steps when the loss has been read."""
        self.loss_mean = float(self.total) / max(self.images, 1)
        self.spent = time.perf_counter() - self.began
        self.watch.training_seconds += self.spent
        if not math.isfinite(self.loss_mean):
            raise DivergedError(
                "Training diverged.",
                expected="a loss that is a number",
                found=f"{self.loss_mean} in epoch {self.learn.epoch + 1} of {self.learn.n_epoch} ({self.stage})",
                fix="a smaller `learning_rate`, or `gradient_clip = 1.0`, in the recipe",
            )

    def after_epoch(self) -> None:
        """Report the epoch."""
        watch = self.watch
        self.watch.finish_epoch(
            EpochReport(
                stage=self.stage,
                epoch=self.learn.epoch + 1,
                epochs=self.learn.n_epoch,
                training_loss=round(self.loss_mean, 5),
                validation_accuracy=round(float(self.hits) / self.rows, 5) if self.rows else math.nan,
                images_per_second=round(self.images / max(self.spent, 1e-9), 1),
                seconds=round(watch.seconds, 1),
                seconds_left=round(watch.seconds * (watch.images / watch.seen - 1), 1),
            )
        )


class TellSteps(Callback):
    """Tells the listener of each of `steps` steps, where no run is watched."""

    order = 55  # before fastai's finder, which may end the fit after any step

    def __init__(self, listener: Listener, steps: int):
        self.listener, self.steps = listener, steps

    def before_fit(self) -> None:
        """Start the clock."""
        self.images, self.began = 0, time.perf_counter()

    def after_batch(self) -> None:
        """Tell one step."""
        self.images += len(self.learn.xb[0])
        spent = time.perf_counter() - self.began
        self.listener.step(self.learn.train_iter / self.steps, self.images / max(spent, 1e-9))
