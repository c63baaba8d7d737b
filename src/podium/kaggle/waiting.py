"""Waiting for Kaggle: how often and how long to ask, and one process at a time."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from podium.errors import KaggleError
from podium.files import file_lock

TIME = "%Y-%m-%dT%H:%M:%SZ"
Log = Callable[[str], None]
"""Receives one line about the progress."""


@dataclass(frozen=True)
class Patience:
    """How often Kaggle is asked, and for how long."""

    first_pause_seconds: float = 2
    longest_pause_seconds: float = 15
    wait_seconds: float = 600
    grace_seconds: float = 60  # how long Kaggle may take to list what was sent

    def attempts(self, *, most_seconds: float = math.inf) -> Iterator[float]:
        """Yield the seconds so far, and sleep after each attempt, until the wait or `most_seconds` are over."""
        pause, started, waited = self.first_pause_seconds, time.monotonic(), 0.0
        yield waited
        while waited < min(self.wait_seconds, most_seconds):
            time.sleep(pause)
            waited = time.monotonic() - started
            yield waited
            pause = min(pause * 1.5, self.longest_pause_seconds)

    def grace_left(self, sent: str) -> float:
        """Seconds until Kaggle must list what was sent at this time; 0 or less where they are over."""
        age = datetime.now(UTC) - datetime.strptime(sent, TIME).replace(tzinfo=UTC)
        return min(self.grace_seconds - age.total_seconds(), self.grace_seconds)


# A session of twelve hours, and some hours in the queue before it; a submitted notebook runs again before it is scored.
NOTEBOOK = Patience(first_pause_seconds=10, longest_pause_seconds=60, wait_seconds=17 * 3600)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime(TIME)


def one_process(file: Path, message: str) -> AbstractContextManager[None]:
    """Hold a lock file; raises KaggleError with `message` where another process holds it.

    Child processes hold the lock too: an upload may go on after Podium was killed.
    """
    refusal = KaggleError(message, file=file, fix="wait until it ends, then repeat the command")
    return file_lock(file, refusal=refusal, inherited=True)
