"""On a terminal, a table shows all runs that train side by side; it never mixes with lines, and ends with its runs."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from podium.cli.live import COLUMNS, LiveTable, close_table, rows_in, table_text
from podium.cli.printing import wrapped

SOURCE = str(Path(__file__).parents[2] / "src")
# Trains for some seconds, as `podium train` of one run does.
RUN = """
import sys, time
from podium.cli.printing import RunPrinter
from types import SimpleNamespace
printer, steps = RunPrinter(sys.argv[1]), int(sys.argv[2])
for step in range(steps):
    printer.step((step + 1) / steps, 1234.5)
    time.sleep(0.1)
    if step == steps // 2:
        report = {"stage": " fold 1/5", "epoch": 1, "epochs": 24, "training_loss": 0.51239, "seconds_left": 60.0}
        printer.epoch(SimpleNamespace(**report, validation_accuracy=0.87654, images_per_second=1234.5))
"""


def shown(text):
    """The lines of a terminal after it has shown a text with the codes that the table uses."""
    lines, row = [""], 0
    for part in re.split("(\x1b\\[J|\x1b\\[[0-9]+A|\r|\n)", re.sub("\x1b\\[[0-9;]*m", "", text)):
        if part == "\x1b[J":
            lines[row:] = [""]
        elif part.startswith("\x1b["):
            row -= int(part[2:-1])
            assert row >= 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part and part != "\r":
            lines[row] = part + lines[row][len(part) :]
    return lines


def read_terminal(reader):
    """What processes print until they end, in pieces."""
    pieces = []
    while True:
        try:
            pieces.append(os.read(reader, 1 << 16).decode())
        except OSError:  # all have closed the terminal
            return pieces


def test_the_table_has_the_runs_of_all_processes_and_ends_with_them(tmp_path):
    reader, terminal = pty.openpty()
    environment = os.environ | {"PYTHONPATH": SOURCE, "PODIUM_CACHE": str(tmp_path), "COLUMNS": "80"}
    commands = [[sys.executable, "-c", RUN, name, str(steps)] for name, steps in (("lite0.s1", 60), ("lite1.s1", 100))]
    runs = [subprocess.Popen(command, env=environment, stdout=terminal, stderr=terminal) for command in commands]
    os.close(terminal)
    pieces = read_terminal(reader)
    assert [run.wait() for run in runs] == [0, 0]
    screens = [shown("".join(pieces[: count + 1])) for count in range(len(pieces))]
    row = r"(?m)^lite[01].s1 +[0-9]+%"
    both = [screen for screen in map("\n".join, screens) if len(re.findall(row, screen)) == 2]
    assert both and all(re.search(r"(?m)^run +done +epoch +loss +accuracy +images/s +left", screen) for screen in both)
    assert re.search(r"lite1.s1 +[0-9]+% +fold 1/5 1/24 +0.5124 +0.8765 +1,23[45] +0:0", "\n".join(both))
    epoch = "fold 1/5  1/24  loss 0.5124  accuracy 0.8765  1,234/s  1:00 left"
    assert [line for line in screens[-1] if line] == [f"{name}.s1       {epoch}" for name in ("lite0", "lite1")]
    assert max(len(line) for screen in screens for line in screen) <= 80
    assert list((tmp_path / "running").glob("*.json")) == []


def test_the_row_of_a_killed_run_is_removed(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    for run, process in {"here.s1": os.getpid(), "gone.s1": gone.pid}.items():
        (tmp_path / f"{run}.json").write_text(json.dumps({"run": run, "process": process}))
    (tmp_path / "damaged.json").write_text("{")
    assert [row["run"] for row in rows_in(tmp_path)] == ["here.s1"]
    assert not (tmp_path / "gone.s1.json").exists()


def test_a_small_terminal_shows_some_of_many_runs():
    text = table_text([dict.fromkeys(COLUMNS, f"lite0.s{seed}") for seed in range(100)])
    lines = shown(text)
    assert len(lines) < 24 and any("and 82 more" in line for line in lines)
    assert text.endswith(f"\x1b[{text.count(chr(10))}A\r")


def test_the_time_left_is_that_of_the_share_that_was_done_since_the_first_step(tmp_path, monkeypatch):
    table, clock = LiveTable("a", tmp_path), SimpleNamespace()
    monkeypatch.setattr("podium.cli.live.time", clock)
    for share, now, left in [(0.9, 40.0, ""), (0.95, 100.0, "1:00"), (1.0, 160.0, "0:00")]:  # from a checkpoint
        clock.monotonic = lambda now=now: now
        table.step(share, 1.0)
        assert table.row["left"] == left
    close_table()


def test_a_table_that_cannot_be_written_does_not_end_a_training(tmp_path):
    (tmp_path / "running").touch()  # a file where the folder should be
    LiveTable("a", tmp_path / "running").step(0.5, 1.0)
    close_table()
    assert LiveTable.current is None


def test_a_line_is_broken_between_words_and_indented():
    line = "  on a test of 500 rows: " + "0.9577 " * 5 + "/a/path/that-is-longer-than/all/columns"
    assert wrapped(line, 40) == (
        "  on a test of 500 rows: 0.9577 0.9577\n    0.9577 0.9577 0.9577\n    /a/path/that-is-longer-than/all/columns"
    )
    assert wrapped("  short   as it is ", 40) == "  short   as it is "
