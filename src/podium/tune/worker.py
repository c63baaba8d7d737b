"""What the main process and its worker processes exchange.

Nothing heavy is imported: a new worker must ignore Ctrl-C before it imports torch.
"""

import multiprocessing
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from podium.plan.runs import PlannedRun
from podium.tune.inner import InnerSplit
from podium.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all trials of a search share."""

    workspace: Workspace
    split: InnerSplit
    journal: Path
    study_name: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run to train on all inner rows but those of a part; `trial_id` is Optuna's where epochs are reported to it."""

    run: PlannedRun
    part: int
    trial_id: int | None = None
    may_be_pruned: bool = True


class Stopped(Exception):  # noqa: N818 - not an error
    """The search was stopped while a trial ran."""


context: Context
stop: Event | None = None


def start_worker(shared: Context, stop_event: Event | None) -> None:
    """Prepare a worker process. It ignores Ctrl-C: the main process sets `stop_event` then."""
    global context, stop
    context, stop = shared, stop_event
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        warnings.simplefilter("ignore")
