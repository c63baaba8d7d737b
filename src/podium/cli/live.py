"""A table of all runs that train side by side, on a terminal: any of their processes draws it below the other lines."""

import atexit
import io
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from podium.errors import PodiumError
from podium.files import file_lock, read_json

if TYPE_CHECKING:
    from podium.training.progress import EpochReport

# The cursor stays at the first line of the table, so that the next line of any process begins there.
CLEAR, UP = "\x1b[J", "\x1b[{}A\r"
DRAW_SECONDS, MOST_COLUMNS, OTHER_LINES = 0.5, 100, 6
COLUMNS = {name: name for name in ("run", "done", "epoch", "loss", "accuracy")} | {"speed": "images/s", "left": "left"}


def duration(seconds: float) -> str:
    """Seconds as `minutes:seconds` or `hours:minutes:seconds`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class LiveTable:
    """The row of the run that this process trains; its thread draws the table whenever no other process does."""

    current: ClassVar["LiveTable | None"] = None

    def __init__(self, run: str, folder: Path):
        close_table()
        LiveTable.current = self
        self.row = dict.fromkeys(COLUMNS, "") | {"run": run, "done": "0%", "process": os.getpid()}
        self.folder, self.written, self.ended = folder, 0.0, threading.Event()
        self.first: tuple[float, float] | None = None  # the share that was done at the first step, and its time
        self.file = folder / f"{run}.{os.getpid()}.json"
        self.show()
        self.thread = threading.Thread(target=self._draw_until_the_end, daemon=True)
        self.thread.start()

    def show(self, **cells: str) -> None:
        """Show these cells to the process that draws, at most twice a second."""
        self.row |= cells
        if time.monotonic() > self.written + DRAW_SECONDS:
            self.written = time.monotonic()
            temporary = self.file.with_suffix(".tmp")  # not flushed to the disk: it is of no use after a crash
            with suppress(OSError):  # a full disk does not end a training
                self.folder.mkdir(parents=True, exist_ok=True)
                temporary.write_text(json.dumps(self.row))
                temporary.replace(self.file)

    def step(self, share_done: float, images_per_second: float) -> None:
        """Show the progress within an epoch."""
        self.first = self.first or (share_done, time.monotonic())
        first_share, started = self.first  # a run may go on from a checkpoint
        trained, left = share_done - first_share, ""
        if trained > 0:
            left = duration((time.monotonic() - started) * (1 - share_done) / trained)
        speed = f"{images_per_second:,.0f}" if images_per_second else ""
        self.show(done=f"{share_done:.0%}", speed=speed, left=left)

    def epoch(self, report: "EpochReport") -> None:
        """Show the results of an epoch."""
        accuracy = "" if isnan(report.validation_accuracy) else f"{report.validation_accuracy:.4f}"
        epoch, loss = f"{report.stage.strip()} {report.epoch}/{report.epochs}", f"{report.training_loss:.4f}"
        self.show(epoch=epoch, loss=loss, accuracy=accuracy)

    def close(self) -> None:
        """Remove the row, and the table if this process has drawn it: another process draws it again."""
        if not self.ended.is_set():
            self.ended.set()
            self.thread.join()
            with suppress(OSError):
                self.file.unlink()
                self.file.with_suffix(".tmp").unlink(missing_ok=True)

    def _draw_until_the_end(self) -> None:
        while not self.ended.wait(DRAW_SECONDS):
            try:
                with file_lock(self.folder / "drawn", refusal=PodiumError("another process draws")):
                    while not self.ended.wait(DRAW_SECONDS):
                        sys.stdout.write(table_text(rows_in(self.folder)))
                        sys.stdout.flush()
                    sys.stdout.write(CLEAR)
                    sys.stdout.flush()
            except PodiumError:
                continue
            except (OSError, ValueError):  # the terminal is gone; a table is not worth a run
                return


@atexit.register
def close_table() -> None:
    """Remove the row of this process, as when its run ends or an error is printed."""
    if LiveTable.current:
        LiveTable.current.close()
        LiveTable.current = None


def cleared(stream: TextIO) -> str:
    """What removes the table that another process may have drawn, before a text on a terminal."""
    return CLEAR if stream is not None and stream.isatty() else ""


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """The rows of the runs whose process is there, by their names; rows of killed processes are removed."""
    rows = []
    for file in sorted(folder.glob("*.json")):
        row = read_json(file)
        if row and Path(f"/proc/{row['process']}").exists():
            rows.append(row)
        elif row:
            with suppress(OSError):
                file.unlink()
    return rows


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as a terminal shows it, with the cursor back at its first line."""
    from rich.console import Console
    from rich.table import Table

    columns, lines = shutil.get_terminal_size()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, heading in COLUMNS.items():
        table.add_column(heading, justify="left" if name in ("run", "epoch") else "right", no_wrap=True)
    shown = rows[: max(1, lines - OTHER_LINES)]
    for row in shown:
        table.add_row(*(row[name] for name in COLUMNS))
    console = Console(file=io.StringIO(), width=min(columns, MOST_COLUMNS), force_terminal=True)
    console.print(table)
    if len(shown) < len(rows):
        console.print(f"and {len(rows) - len(shown)} more")
    text = console.file.getvalue()
    return CLEAR + text + UP.format(text.count("\n"))
