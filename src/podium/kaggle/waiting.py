"""Waiting for Kaggle: how often and how long to ask, and one process at a time."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podium.errors import KaggleError
from podium.files import file_lock

Log = Callable[[str], None]
"""Receives one line about the progress."""


@dataclass(frozen=True)
class Patience:
    """How often Kaggle is asked, and for how long."""

    first_pause_seconds: float = 2
    longest_pause_seconds: float = 15
    wait_seconds: float = 600
    grace_seconds: float = 60  # how long Kaggle may take to list what was sent

    def pauses(self) -> Iterator[float]:
        """Seconds between two questions, until the wait is over."""
        pause, waited = self.first_pause_seconds, 0.0
        while waited < self.wait_seconds:
            yield pause
            waited += pause
            pause = min(pause * 1.5, self.longest_pause_seconds)


@contextmanager
def one_process(file: Path, message: str) -> Iterator[None]:
    """Hold a lock file; raises KaggleError with `message` where another process holds it.

    Child processes hold the lock too: the kaggle CLI may go on uploading after Podium was killed.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(file, wait=False, inherited=True))
        except BlockingIOError:
            raise KaggleError(message, file=file, fix="wait until it ends, then repeat the command") from None
        yield
