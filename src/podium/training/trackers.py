"""TensorBoard and Weights & Biases: each is a function that logs values (name -> number) of a step of a fit.

They do not change the results of a run, and each is imported only where the competition asks for it.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from podium.errors import TrainingError
from podium.plan.runs import PlannedRun
from podium.training.checkpoint import Checkpoint
from podium.workspace import Workspace

Log = Callable[[str, int, dict[str, float]], object]
"""Logs values: the name of the fit, the number of the step in it, the values."""

# `wandb sync` sends later what was not sent in this time.
FINISH_SECONDS = 120


class Trackers:
    """The trackers of one run. One that cannot write, as on a full disk, stops with a note; the training goes on."""

    def __init__(self, note: Callable[[str], object] = print):
        self.logs: dict[str, Log] = {}  # by the name of the tracker
        self.note = note

    def log(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Log the values of a step with every tracker."""
        for name, log in tuple(self.logs.items()):
            try:
                log(stage, step, values)
            except OSError as error:
                del self.logs[name]
                self.note(f"{name} stops, and the training goes on: {error.strerror or error}")


@contextmanager
def open_trackers(
    workspace: Workspace, run: PlannedRun | None, checkpoint: Checkpoint, *, note: Callable[[str], object]
) -> Iterator[Trackers]:
    """The trackers that the competition asks for, opened for one run; their curves resume where the run does.

    None where nothing is left to train.

    Raises TrainingError where Weights & Biases cannot start, before anything is trained.
    """
    names, trackers = workspace.competition.trackers if run else (), Trackers(note)
    if "tensorboard" in names:
        folder = workspace.paths.reports / "tensorboard" / run.run
        trackers.logs["TensorBoard"] = _tensorboard_log(folder, checkpoint.is_saved)
    if "wandb" not in names:
        yield trackers
        return
    wandb_run, exit_code = _start_wandb(workspace, run, checkpoint), 1
    trackers.logs["Weights & Biases"] = lambda stage, step, values: wandb_run.log(values)
    try:
        yield trackers
        exit_code = 0
    finally:
        wandb_run.finish(exit_code=exit_code)


def _tensorboard_log(folder: Path, resumes: bool) -> Log:
    """The curves of each fit are in a folder of its own; those of an earlier training in the same folder are removed.

    Where the training resumes, TensorBoard does not show the steps after its checkpoint a second time.
    """
    from torch.utils.tensorboard import SummaryWriter

    if not resumes:
        shutil.rmtree(folder, ignore_errors=True)
    writers: dict[str, SummaryWriter] = {}

    def log(stage: str, step: int, values: dict[str, float]) -> None:
        if stage not in writers:
            name = "-".join(stage.replace("/", " of ").split())
            writers[stage] = SummaryWriter(folder / name, purge_step=step if resumes else None)
        for name, value in values.items():
            writers[stage].add_scalar(name, value, step)
        if "epoch" in values:
            writers[stage].flush()

    return log


def _start_wandb(workspace: Workspace, run: PlannedRun, checkpoint: Checkpoint) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS)
    workspace.paths.reports.mkdir(parents=True, exist_ok=True)
    try:
        if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
            raise wandb.Error("no account on this machine")
        return wandb.init(
            project=f"podium-{workspace.name}",
            name=run.run,
            id=checkpoint.state["id"],
            resume="allow",
            dir=workspace.paths.reports,
            config=asdict(run.recipe) | {"seed": run.seed, "competition": workspace.name},
            settings=settings,
        )
    except wandb.Error as error:
        raise TrainingError(
            "Weights & Biases could not be started: nothing was trained.",
            file=workspace.paths.settings_file,
            expected="an account and a network, or WANDB_MODE=offline",
            found=str(error).splitlines()[0],
            fix="wandb login; or WANDB_MODE=offline make ..., and wandb sync later",
        ) from None
