"""How commands print their progress: as lines, and on a terminal also as lines that the next line overwrites.

Progress output never fails: neither a reader that goes away (`| head -1`) nor a full disk ends hours of training.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from podium.errors import pasteable

if TYPE_CHECKING:
    from podium.training.progress import EpochReport

# Lines of Kaggle's log that the next line overwrites.
WAITING = ("not scored yet", "not done yet")


def print_line(line: str, *, is_overwritten: bool = False) -> None:
    """Print a line at once; on a terminal, the next line overwrites it where `is_overwritten`, or where it waits.

    The commands in a line with `next:` can be pasted. Once a line cannot be written, it and all later
    output of the process are discarded.
    """
    line = pasteable(line) if "next: " in line else line
    is_overwritten = _is_terminal() and (is_overwritten or any(words in line for words in WAITING))
    try:
        print(f"{line:<79}" if _is_terminal() else line, end="\r" if is_overwritten else "\n", flush=True)
    except OSError:
        # Not only sys.stdout is replaced: Python would write the rest of its buffer when it ends, and fail then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None where the process was started with it closed


def duration(seconds: float) -> str:
    """Seconds as `minutes:seconds` or `hours:minutes:seconds`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def first_score(about: dict[str, Any]) -> str:
    """The first score in a description of predictions, with its name, such as accuracy 0.9412."""
    name, score = next(iter(about["scores"].items()))
    return f"{name} {score:.4f}"


class TaskPrinter:
    """Prints how much of a task is done: one line that is overwritten on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self.printed = time.monotonic()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Print that `done` of `total` items are done; `total` is 0 where it is unknown."""
        if time.monotonic() > self.printed + (0.2 if _is_terminal() else 10):
            self.printed = time.monotonic()
            print_line(f"{task}: {done:,}{f' of {total:,}' if total else ''}", is_overwritten=True)


class RunPrinter:
    """Prints a run's progress: one line per epoch; on a terminal, also a line that is overwritten in between.

    It has the methods of `podium.training.progress.Listener`, whose import would load torch.
    """

    def __init__(self, name: str):
        self.name, self.printed = name, 0.0
        # Runs that make starts side by side would overwrite each other's line.
        self.prints_steps = _is_terminal() and "-j" not in os.environ.get("MAKEFLAGS", "")

    def note(self, text: str) -> None:
        """Print a text for the user."""
        print_line(f"{self.name:<20} {text}")

    def step(self, share_done: float, images_per_second: float) -> None:
        """Print the share of the run that is done, at most twice a second."""
        if self.prints_steps and time.monotonic() > self.printed + 0.5:
            self.printed = time.monotonic()
            line = f"{self.name:<20} {share_done:4.0%}  {images_per_second:,.0f} images/s"
            print_line(line, is_overwritten=True)

    def validation(self, *_: object) -> None:
        """Print nothing: `epoch` has the accuracy."""

    def epoch(self, report: "EpochReport") -> None:
        """Print the losses and speed of an epoch."""
        is_validated = report.validation_accuracy == report.validation_accuracy  # NaN in a refit
        accuracy = f"{report.validation_accuracy:.4f}" if is_validated else "   -  "
        self.note(
            f"{report.stage.strip()} {report.epoch:>3}/{report.epochs}  loss {report.training_loss:.4f}  "
            f"validation accuracy {accuracy}  {report.images_per_second:,.0f} images/s  "
            f"{duration(report.seconds_left)} left"
        )
