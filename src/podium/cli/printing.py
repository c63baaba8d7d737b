"""How commands print: progress as lines, some of which the next line overwrites on a terminal; results also as JSON.

Progress output never fails: neither a reader that goes away (`| head -1`) nor a full disk ends hours of training.
"""

import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podium.cli.live import LiveTable, cleared, duration
from podium.errors import pasteable

if TYPE_CHECKING:
    from podium.training.progress import EpochReport

# Lines of Kaggle's log that the next line overwrites.
WAITING = ("not scored yet", "not done yet")
_collected: list[dict[str, Any]] = []  # what `json_results` collects, where a command prints JSON


@contextmanager
def json_results() -> Iterator[dict[str, Any]]:
    """Within the context, results are added to a dict, printed as JSON at the end; all else is printed to stderr.

    Where there is no other result, it has the lines that were printed.
    """
    results: dict[str, Any] = {}
    _collected.append(results)
    try:
        with redirect_stdout(sys.stderr):
            yield results
    finally:
        _collected.clear()
    if results.keys() - {"lines"}:
        results.pop("lines", None)
    text = json.dumps(_as_json(results), indent=2, default=lambda value: getattr(value, "tolist", value.__str__)())
    if not _write(text):
        sys.exit(1)  # a program that reads half of it must not take it for the whole


def print_result(record: Mapping[str, Any], lines: Iterable[str] = (), *, text: str = "") -> None:
    """Print the result of a command: the lines and the text, or instead of them the record where JSON is collected.

    The text, such as a CSV for other programs, is printed as it is on a terminal too.
    """
    if _collected:
        _collected[0].update(record)
        return
    for line in lines:
        print_line(line)
    if text:
        _write(text, end="")


def _as_json(value: Any) -> Any:
    """The value without dataclasses and tuples; NaN and infinity are None."""
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): _as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def wrote_line(files: Iterable[Path]) -> str:
    """The line that names files which were written."""
    return f"wrote {', '.join(map(str, files))}"


def print_line(line: str, *, is_overwritten: bool = False) -> None:
    """Print a line at once; on a terminal, the next line overwrites it where `is_overwritten`, or where it waits.

    The commands in a line with `next:` can be pasted.
    """
    if "next: " in line:
        line = pasteable(line)
    elif _is_terminal():
        line = wrapped(line, shutil.get_terminal_size().columns)
    if _collected:
        _collected[0].setdefault("lines", []).append(line)
    is_overwritten = _is_terminal() and (is_overwritten or any(words in line for words in WAITING))
    _write(f"{cleared(sys.stdout)}{line}", end="\r" if is_overwritten else "\n")


def _write(text: str, end: str = "\n") -> bool:
    """Write a text at once; returns False where it cannot be, and discards it and all later output of the process."""
    try:
        print(text, end=end, flush=True)
        return True
    except OSError:
        # Not only sys.stdout is replaced: Python would write the rest of its buffer when it ends, and fail then.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return False


def wrapped(line: str, columns: int) -> str:
    """The line in lines of at most so many columns, broken between words; those after the first are indented."""
    if len(line) <= columns:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    options = {"replace_whitespace": False, "break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(line, columns, subsequent_indent=indent, **options)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()  # None where the process was started with it closed


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
    """Prints a run's progress: one line per epoch; on a terminal, also a table of all runs that train at the time.

    It has the methods of `podium.training.progress.Listener`, whose import would load torch.
    """

    def __init__(self, name: str):
        self.name = name
        folder = Path(os.environ.get("PODIUM_CACHE") or ".cache") / "running"
        self.table = LiveTable(name, folder) if _is_terminal() else None

    def note(self, text: str) -> None:
        """Print a text for the user."""
        print_line(f"{self.name:<14} {text}")

    def step(self, share_done: float, images_per_second: float) -> None:
        """Show the share of the run that is done."""
        if self.table:
            self.table.step(share_done, images_per_second)

    def validation(self, *_: object) -> None:
        """Print nothing: `epoch` has the accuracy."""

    def epoch(self, report: "EpochReport") -> None:
        """Print the losses and speed of an epoch."""
        if self.table:
            self.table.epoch(report)
        is_validated = report.validation_accuracy == report.validation_accuracy  # NaN in a refit
        accuracy = f"{report.validation_accuracy:.4f}" if is_validated else "   -  "
        self.note(
            f"{report.stage.strip()} {report.epoch:>2}/{report.epochs}  loss {report.training_loss:.4f}  "
            f"accuracy {accuracy}  {report.images_per_second:,.0f}/s  {duration(report.seconds_left)} left"
        )
