"""The checkpoint of a fit: what a killed training resumes from, bit for bit, and what is kept of a trained fit."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from podium.errors import DataError
from podium.files import DAMAGE, atomic_write, os_error_as

State = dict[str, Any]
"""Tensors, numbers and texts, also in lists and dicts: what torch.load reads without running code."""
Note = Callable[[str], object]
"""Called with a line of text for the user."""

# Increased when a change of the training code changes what a checkpoint contains.
CHECKPOINT_VERSION = 4
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
    """The state of one fit of a run: of its training, then what is kept of it. Without a file nothing is saved.

    The file is replaced after an epoch, and within an epoch after `minutes`, unless saving has taken more than
    MOST_SHARE of the time since. It counts only for the same `origin`, which is everything that decides the results; a
    trained fit also where the device was another one.
    """

    def __init__(
        self, file: Path | None = None, origin: State | None = None, *, minutes: float = 0.0, note: Note = print
    ):
        self.file, self.seconds, self.note, self.saves = file, 60 * minutes, note, file is not None
        content = {"device": "", "version": CHECKPOINT_VERSION} | (origin or {})
        device = content.pop("device")
        key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
        saved = _read(file) if file else {}
        self.is_saved = saved.get("key") == key and (saved["device"] == device or saved["finished"] is not None)
        # The id is that of the training in services that record it.
        new = {
            "key": key,
            "device": device,
            "id": secrets.token_hex(4),
            "finished": None,
            "progress": {},
            "learner": {},
        }
        self.state: State = saved if self.is_saved else new | {"rate": None, "parts": 1}
        self.learner: State = self.state.pop("learner")  # of the fit in training, until it resumes
        self.finished = FinishedFit(**self.state["finished"]) if self.state["finished"] else None
        self.rate: float | None = self.state["rate"]  # the rate that lr_find has found
        self.parts: int = self.state["parts"]  # of a batch, where the memory is small
        self.saved_at, self.cost = time.perf_counter(), 0.0

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

    def finish(self, fit: FinishedFit, progress: State) -> None:
        """Keep the trained fit, which is never trained again; tried also where the disk was full before."""
        self.finished, self.state["progress"], self.saves = fit, progress, self.file is not None
        self.save(learner={}, progress=progress)

    def remove(self) -> None:
        """Remove the file, once all results of the run are written."""
        if self.file:
            self.file.unlink(missing_ok=True)

    def save(self, *, learner: State, progress: State) -> None:
        """Replace the file, if any. Where it cannot be written, a note says so, and nothing is saved from then on."""
        if not self.saves:
            return
        started = time.perf_counter()
        finished = vars(self.finished) if self.finished else None
        now = {"finished": finished, "rate": self.rate, "parts": self.parts, "learner": learner, "progress": progress}
        try:
            with atomic_write(self.file) as stream:
                torch.save(self.state | now, stream)
        except (OSError, RuntimeError) as error:  # torch may replace the OSError by an error of its own
            reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            self.note(f"no checkpoint could be written, and the training goes on: {reason}")
            self.saves = False
        self.saved_at = time.perf_counter()
        self.cost = self.saved_at - started


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
