"""The checkpoint of a run: what a killed training resumes from, bit for bit."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from podium.errors import ChangedDataError, DataError, DivergedError
from podium.files import DAMAGE, atomic_write, os_error_as

State = dict[str, Any]
"""Tensors, numbers and texts, also in lists and dicts: what torch.load reads without running code."""
Note = Callable[[str], object]
"""Called with a line of text for the user."""

# Increased when a change of the training code changes what a checkpoint contains.
CHECKPOINT_VERSION = 3
# Saving after each epoch must not take more than this share of the time; else it is done less often.
MOST_SHARE = 0.02


@dataclass
class FinishedFit:
    """What a run keeps of a network that is trained."""

    oof_logits: Tensor  # (validation rows, outputs); no rows after a refit
    test_logits: Tensor | None  # (test images, outputs); None before a refit, which predicts the test images instead
    parameters: dict[str, Tensor]  # none without test logits
    normalisation: State
    scale: tuple[float, float]
    precision: str
    learning_rate: float
    device: str


class Checkpoint:
    """The state of a run: its finished fits, the progress, and the fit in training. Without a file nothing is saved.

    The file is replaced after an epoch, and within an epoch after `minutes`, unless saving has taken more than
    MOST_SHARE of the time since. It counts only for the `key`, the hash of everything that decides the results; a fit
    that another process has finished only for the `fit_key`, which leaves the device out.
    """

    def __init__(
        self, file: Path | None = None, *, key: str = "", fit_key: str = "", minutes: float = 0.0, note: Note = print
    ):
        self.file, self.seconds, self.note, self.saves = file, 60 * minutes, note, file is not None
        # The id is that of the training in services that record it.
        new = {"key": key, "fit_key": fit_key, "id": secrets.token_hex(4)}
        new |= {name: {} for name in ("fits", "rates", "parts", "learner")}
        saved = _read(file) if file else {}
        self.is_saved, self.saved_at, self.cost = saved.get("key") == key, time.perf_counter(), 0.0
        self.state: State = saved if self.is_saved else new
        self.learner: State = self.state.pop("learner")  # of the fit that was in training, until it resumes
        self.fits = {name: FinishedFit(**fit) for name, fit in self.state["fits"].items()}
        self.rates: dict[str, float] = self.state["rates"]  # name of a fit -> the rate that lr_find has found
        self.files_of_fits: list[Path] = []
        self.parts: dict[str, int] = self.state["parts"]  # name of a fit -> parts of a batch, where the memory is small

    def is_in(self, stage: str) -> bool:
        """Whether a fit resumes in this stage."""
        return self.learner.get("stage") == stage

    def take_learner(self, stage: str) -> State:
        """The saved state of the fit in training, if it is in this stage; else nothing. It is given once."""
        if not self.is_in(stage):
            return {}
        learner, self.learner = self.learner, {}
        return learner

    def is_due(self, *, epoch_ends: bool) -> bool:
        """Whether it is time to save."""
        wait = max(self.cost / MOST_SHARE, 0.0 if epoch_ends else self.seconds)
        return self.saves and time.perf_counter() - self.saved_at >= wait

    def finish(self, name: str, fit: FinishedFit, progress: State) -> None:
        """Keep a finished fit, which is never trained again."""
        self.fits[name] = fit
        self.save(learner={}, progress=progress)

    def take_fits(self, files: Mapping[str, Path]) -> list[State]:
        """Take the fits that other processes have trained, each in a file of its own; returns their progress.

        `files` have a name for each fit of the run. They are removed with this checkpoint.
        """
        progress, self.files_of_fits = [], list(files.values())
        for name, file in files.items():
            saved = {} if name in self.fits else _read(file)
            if saved.get("fit_key") == self.state["fit_key"] and name in saved["fits"]:
                self.fits[name] = FinishedFit(**saved["fits"][name])
                self.rates.update(saved["rates"])
                self.parts.update(saved["parts"])
                progress.append(saved["progress"])
        return progress

    def remove(self) -> None:
        """Remove the file, once all results of the run are written, and those of its fits."""
        for file in (self.file, *self.files_of_fits):
            if file:
                file.unlink(missing_ok=True)

    def save(self, *, learner: State, progress: State) -> None:
        """Replace the file, if any. Where it cannot be written, a note says so, and nothing is saved from then on."""
        if not self.saves:
            return
        started = time.perf_counter()
        fits = {name: vars(fit) for name, fit in self.fits.items()}
        try:
            with atomic_write(self.file) as stream:
                torch.save(self.state | {"learner": learner, "progress": progress, "fits": fits}, stream)
        except (OSError, RuntimeError) as error:  # torch may replace the OSError by an error of its own
            reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            self.note(f"no checkpoint could be written, and the training goes on: {reason}")
            self.saves = False
        self.saved_at = time.perf_counter()
        self.cost = self.saved_at - started


@contextmanager
def open_checkpoint(
    file: Path | None, origin: dict[str, Any], *, minutes: float = 0.0, note: Note = print
) -> Iterator[Checkpoint]:
    """The checkpoint of a run, removed where the training diverged, which it would do again, or the data changed.

    `origin` is everything that decides the results; a checkpoint of another origin is not used.
    """
    fit_key = _hash({name: value for name, value in origin.items() if name != "device"})
    checkpoint = Checkpoint(file, key=_hash(origin), fit_key=fit_key, minutes=minutes, note=note)
    try:
        yield checkpoint
    except (DivergedError, ChangedDataError):
        checkpoint.remove()
        raise


def _hash(origin: dict[str, Any]) -> str:
    content = json.dumps(origin | {"version": CHECKPOINT_VERSION}, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(file: Path) -> State:
    """The content of a checkpoint; nothing where it is missing or damaged. Raises DataError if it cannot be read."""
    with os_error_as(DataError, "The checkpoint cannot be read.", file=file, fix=f"rm -r {file}"):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return {}
        except (OSError, MemoryError):  # the checkpoint may be whole
            raise
        except DAMAGE:
            return {}
    return content if isinstance(content, dict) else {}
