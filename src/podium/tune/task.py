"""What a process that judges is told: the search, once, and then one task after the other.

Nothing heavy is imported: a new process is told to be silent before it imports what trains.
"""

import multiprocessing
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from podium.config.keys import Recipe
from podium.lock import Lock
from podium.plan.paths import Project

COMPLETE, PRUNED, FAILED, STOPPED = "complete", "pruned", "failed", "stopped"


@dataclass(frozen=True, kw_only=True)
class Place:
    """What all trials of a search share."""

    project: Project
    competition_name: str
    data: str | None
    lock: Lock
    seed: int
    journal: Path
    study_name: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A recipe to train on some rows and judge on others; `trial_id` where epochs are told to the study."""

    recipe: Recipe
    part: int
    training_rows: np.ndarray
    judged_rows: np.ndarray
    trial_id: int | None = None
    may_be_pruned: bool = True


@dataclass(frozen=True)
class Judged:
    """How it went: probabilities of the judged rows where it went well, and why not where it did not."""

    state: str
    probabilities: np.ndarray | None = None
    reason: str = ""


place: Place
stop: Event | None = None


def begin_process(of: Place, stopped: Event | None) -> None:
    """Prepare a process that will judge tasks; Ctrl-C is for the one that started it, which sets `stopped`."""
    global place, stop
    place, stop = of, stopped
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        warnings.simplefilter("ignore")
