"""Train on a SLURM cluster with a shared disk: one array job, by submitit, whose tasks are the fits.

A task that is preempted, or reaches its time limit, is put into the queue again by submitit and goes on from its
checkpoint.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import podium
from podium.engines.tasks import LAST_LINES, Note, Table, Task, TaskFailedError, run_task
from podium.errors import ConfigError
from podium.plan.paths import Paths

POLL_SECONDS = 1.0
HOURS = 12
INTERRUPTED = (130, 143)  # Podium's exit codes after Ctrl-C and SIGTERM
KILL_SECONDS = 300  # KillWait of SLURM is 30 s by default
# What SLURM says of a job -> what Podium says.
STATES = {"PENDING": "waiting", "UNKNOWN": "waiting", "REQUEUED": "waiting", "RUNNING": "running"}


@dataclass(frozen=True)
class SharedTask:
    """What a node calls: it trains a fit in the project's folder on the shared disk."""

    project: Path
    cache: Path

    def __call__(self, task: Task) -> None:
        """Train a fit; raises TaskFailedError.

        SLURM sends SIGTERM to a task that it takes back, and to its training; later it kills the task, and queues it
        again. That is not a failure, so the task waits for it.
        """
        try:
            run_task(task, self.project, {"PODIUM_CACHE": str(self.cache), "PYTHONPATH": python_path()})
        except TaskFailedError as error:
            if error.exit_code in INTERRUPTED:
                time.sleep(KILL_SECONDS)
            raise

    def checkpoint(self, task: Task) -> Any:
        """What submitit queues again when SLURM ends the task before its time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def python_path() -> str:
    """PYTHONPATH with the folder of this Podium, whatever the working directory is."""
    places = [str(Path(podium.__file__).parents[1].resolve()), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, places))


def train_with_slurm(
    tasks: Sequence[Task], paths: Paths, *, cluster: str, options: Sequence[str], note: Note
) -> dict[Task, str]:
    """Train the fits in an array job, and follow it; returns the reason for each that failed.

    `cluster` is slurm, or local, which starts the tasks as processes of this machine. `options` are `name=value` of
    submitit's parameters. Raises ConfigError where there is no submitit or no SLURM, or SLURM refuses the parameters.
    """
    try:
        import submitit
        from submitit.core.utils import FailedSubmissionError
    except ImportError:
        raise ConfigError("submitit is not installed.", fix="pip install 'podium[slurm]'") from None
    parameters: dict[str, Any] = {"name": f"podium-{paths.name}", "timeout_min": 60 * HOURS}
    parameters |= {"cpus_per_task": max(task.cores for task in tasks)}
    for option in options:
        name, _, value = option.partition("=")
        parameters[name] = int(value) if value.isdigit() else value
    logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each look where SLURM keeps no accounts
    try:
        executor = submitit.AutoExecutor(folder=paths.cache / "slurm" / "%j", cluster=cluster)
        executor.update_parameters(**parameters)
        jobs = executor.map_array(SharedTask(paths.root.resolve(), paths.cache.parent.resolve()), list(tasks))
    except (RuntimeError, NameError, ValueError, TypeError, FailedSubmissionError) as error:
        found = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "ADDRESS=local trains here; SLURM='slurm_partition=gpu timeout_min=600' has submitit's parameters"
        raise ConfigError("The array job could not be submitted.", found=found, fix=fix) from None
    note(f"array job {jobs[0].job_id.split('_')[0]}: its logs are in {paths.cache / 'slurm'}")
    waiting = dict(zip(jobs, tasks, strict=True))
    try:
        return _follow(waiting, Table(tasks, note))
    finally:  # after Ctrl-C
        for job in waiting:
            job.cancel()


def _follow(waiting: dict[Any, Task], table: Table) -> dict[Task, str]:
    """Wait until all jobs have ended, and remove them from `waiting`; returns the reason for each that failed."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    failed = {}
    while waiting:
        time.sleep(POLL_SECONDS)
        for job, task in tuple(waiting.items()):
            if not job.done():
                table.show(task, STATES.get(job.state, job.state.lower()))
                continue
            del waiting[job]
            try:
                job.result()
                table.show(task, "done")
            except (FailedJobError, UncompletedJobError) as error:
                printed = [line for line in (job.stdout() or "").splitlines() if not line.startswith("submitit ")]
                failed[task] = "\n".join((printed or str(error).splitlines())[-LAST_LINES:])
                table.show(task, "failed")
    return failed
