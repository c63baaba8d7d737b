"""The checkpoint of a run: what a killed training resumes from, bit for bit."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
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

# Increased when a change of the training code changes what a checkpoint contains.
CHECKPOINT_VERSION = 2
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


class Checkpoint:
    """The state of a run: its finished fits, the progress, and the fit in training. Without a file nothing is saved.

    The file is replaced after an epoch, and within an epoch after `minutes`, unless saving has taken more than
    MOST_SHARE of the time since. It counts only for the `key`, the hash of everything that decides the results.
    """

    def __init__(
        self, file: Path | None = None, *, key: str = "", minutes: float = 0.0, note: Callable[[str], object] = print
    ):
        self.file, self.seconds, self.note, self.saves = file, 60 * minutes, note, file is not None
        # The id is that of the training in services that record it.
        self.state: State = {
            "key": key,
            "id": secrets.token_hex(4),
            "fits": {},
            "rates": {},
            "parts": {},
            "progress": {},
            "learner": {},
        }
        self.is_saved, self.saved_at, self.cost = False, time.perf_counter(), 0.0
        if file and (saved := _read(file)).get("key") == key:
            self.state, self.is_saved = saved, True
        self.fits = {name: FinishedFit(**fit) for name, fit in self.state["fits"].items()}
        self.rates: dict[str, float] = self.state["rates"]  # name of a fit -> the rate that lr_find has found
        self.parts: dict[str, int] = self.state["parts"]  # name of a fit -> parts of a batch, where the memory is small

    def take_learner(self, stage: str) -> State:
        """The saved state of the fit in training, if it is in this stage; else nothing. It is given once."""
        if self.state["learner"].get("stage") != stage:
            return {}
        learner, self.state["learner"] = self.state["learner"], {}
        return learner

    def is_in(self, stage: str) -> bool:
        """Whether a fit resumes in this stage."""
        return self.state["learner"].get("stage") == stage

    def save_if_due(self, learner: Callable[[], State], progress: Callable[[], State], *, epoch_ends: bool) -> None:
        """Save the states that these functions return, if it is time."""
        wait = max(self.cost / MOST_SHARE, 0.0 if epoch_ends else self.seconds)
        if self.saves and time.perf_counter() - self.saved_at >= wait:
            self._save(learner=learner(), progress=progress())

    def finish(self, name: str, fit: FinishedFit, progress: State) -> None:
        """Keep a finished fit, which is never trained again."""
        self.fits[name] = fit
        if self.saves:
            self._save(learner={}, progress=progress)

    def remove(self) -> None:
        """Remove the file, once all results of the run are written."""
        if self.file:
            self.file.unlink(missing_ok=True)

    def _save(self, **states: State) -> None:
        started = time.perf_counter()
        self.state |= states | {"fits": {name: vars(fit) for name, fit in self.fits.items()}}
        try:
            with atomic_write(self.file) as stream:
                torch.save(self.state, stream)
        except (OSError, RuntimeError) as error:  # torch may replace the OSError by an error of its own
            reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            self.note(f"no checkpoint could be written, and the training goes on: {reason}")
            self.saves = False
        self.state["learner"] = {}  # frees what a resumed fit was loaded from
        self.saved_at = time.perf_counter()
        self.cost = self.saved_at - started


@contextmanager
def open_checkpoint(
    file: Path | None, origin: dict[str, Any], *, minutes: float, note: Callable[[str], object]
) -> Iterator[Checkpoint]:
    """The checkpoint of a run, removed where the training diverged, which it would do again, or the data changed.

    `origin` is everything that decides the results; a checkpoint of another origin is not used.
    """
    content = json.dumps(origin | {"version": CHECKPOINT_VERSION}, sort_keys=True, default=str)
    checkpoint = Checkpoint(file, key=hashlib.sha256(content.encode()).hexdigest(), minutes=minutes, note=note)
    try:
        yield checkpoint
    except (DivergedError, ChangedDataError):
        checkpoint.remove()
        raise


def _read(file: Path) -> State:
    """The content of a checkpoint; nothing where it is missing or damaged. Raises DataError if it cannot be read."""
    with os_error_as(DataError, "The checkpoint cannot be read.", file=file, fix=f"rm -r {file}"):
        if not file.exists():
            return {}
        with file.open("rb") as stream:
            try:
                content = torch.load(stream, map_location="cpu", weights_only=True)
            except (OSError, MemoryError):  # the checkpoint may be whole
                raise
            except DAMAGE:
                return {}
    return content if isinstance(content, dict) else {}
