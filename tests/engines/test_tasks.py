"""A task trains one fit in a process of its own, which ends with it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from podium.engines.tasks import Table, Task, TaskFailedError, run_task, version_faults
from podium.plan import packages
from podium.plan.packages import training_versions

TASK = Task("digits", "tiny.s1", "fold0", cores=1)


def stand_in(folder, text):
    """A module `podium` that does this instead of training."""
    (folder / "podium.py").write_text("import os, sys, time\n" + text)
    return {"PYTHONPATH": str(folder)}


def test_a_task_trains_its_fit_in_the_project(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = "print(sys.argv[1:], os.getcwd(), os.environ['EXTRA'], os.environ.get('OMP_NUM_THREADS'))"
    run_task(TASK, tmp_path, stand_in(tmp_path, text) | {"EXTRA": "yes"})
    arguments = ["train", "tiny.s1", "--fit", "fold0", "--competition", "digits"]
    assert capsys.readouterr().out == f"{arguments} {tmp_path} yes None\n"


def test_a_task_that_fails_says_why(tmp_path):
    with pytest.raises(TaskFailedError, match=r"^Training diverged\.\n  fix: less\nexit code 1$"):
        run_task(TASK, tmp_path, stand_in(tmp_path, "sys.exit('Training diverged.\\n  fix: less')"))
    with pytest.raises(TaskFailedError, match=r"^1/9\nexit code -9$"):
        run_task(TASK, tmp_path, stand_in(tmp_path, "print('1/9', flush=True); os.kill(os.getpid(), 9)"))


def test_a_training_ends_with_the_process_that_a_scheduler_kills(tmp_path):
    environment = stand_in(tmp_path, "open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    code = f"from podium.engines.tasks import *; run_task({TASK!r}, Path({str(tmp_path)!r}), {environment!r})"
    worker = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    training = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(training, 0)
            time.sleep(0.02)


def test_a_machine_with_other_versions_is_told_which(monkeypatch):
    here = training_versions()
    assert version_faults(here) == []
    assert version_faults(here | {"torch": "1.0"}) == [f"torch: expected 1.0, found {here['torch']}"]
    monkeypatch.setattr(packages, "TRAINING_PACKAGES", ("no-such-package",))
    assert training_versions() == {"no-such-package": "none"}


def test_the_table_has_a_line_for_each_change():
    lines = []
    other = Task("digits", "tiny.s1", "fold1", cores=1)
    table = Table([TASK, other], lines.append)
    table.show("tiny.s1 fold0", "running on a")
    table.show("tiny.s1 fold0", "running on a")
    table.show("tiny.s1 fold0", "running on b")
    table.show(TASK, "done")
    table.show("tiny.s1 fold0", "running on b")
    table.show(other, "failed")
    assert lines == [
        "tiny.s1 fold0: running on a (1 waiting, 1 running)",
        "tiny.s1 fold0: running on b (1 waiting, 1 running)",
        "tiny.s1 fold0: done (1 waiting, 1 done)",
        "tiny.s1 fold1: failed (1 done, 1 failed)",
    ]
