"""Tasks for a scheduler: each is one fit of a run, trained by `podium train RUN --fit FIT` in a process of its own.

What comes back is the fit's checkpoint. `train_run` joins the fits of a run, and takes only those of its own recipe,
seed, data, weights and library versions.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.plan.packages import training_versions

Note = Callable[[str], object]
LAST_LINES = 20
# Linux: prctl's option that ends a process with the one that started it.
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Task:
    """One fit, such as fold0 or refit, of a run of a competition, with the CPU cores and processes that it needs."""

    competition: str
    run: str
    fit: str
    cores: int
    processes: int = 1

    def __str__(self) -> str:
        return f"{self.run} {self.fit}"

    @property
    def checkpoint(self) -> str:
        """Its checkpoint, relative to the folder of the cache."""
        return f"{self.competition}/checkpoints/{self.run}.{self.fit}.pt"


class TaskFailedError(RuntimeError):
    """The training of a fit ended with an error; the message has its last lines."""

    exit_code = 1


class Table:
    """Says where each task is: one line for each change, with how many wait, run, are done and failed."""

    def __init__(self, tasks: Sequence[Task], note: Note):
        self.states, self.note = {str(task): "waiting" for task in tasks}, note

    def show(self, task: Task | str, state: str) -> None:
        """Note the state of a task, if it is new; what is done or failed stays so."""
        if self.states[str(task)] in (state, "done", "failed"):
            return
        self.states[str(task)] = state
        kinds = Counter(state.split()[0] for state in self.states.values())
        counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("waiting", "running", "done", "failed") if kinds[kind])
        self.note(f"{task}: {state} ({counts})")


def run_task(task: Task, project: Path, environment: Mapping[str, str]) -> None:
    """Train a fit in the folder `project`, print its output, and end its process with this one.

    Raises TaskFailedError.
    """
    command = [sys.executable, "-m", "podium", "train", task.run, "--fit", task.fit, "--competition", task.competition]
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray sets it to 1
    last: deque[str] = deque(maxlen=LAST_LINES)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    options = {"cwd": project, "env": {**kept, **environment}, "preexec_fn": _end_with_parent}
    with subprocess.Popen(command, **pipes, **options) as process:
        for line in process.stdout:
            last.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        error = TaskFailedError(f"{''.join(last)}exit code {process.returncode}")
        error.exit_code = process.returncode
        raise error


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def version_faults(expected: Mapping[str, str]) -> Sequence[str]:
    """What this machine has in another version than `expected`."""
    here = training_versions()
    return [f"{name}: expected {text}, found {here[name]}" for name, text in expected.items() if here[name] != text]
