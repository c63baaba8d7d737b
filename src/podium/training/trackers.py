"""TensorBoard and Weights & Biases, through fastai's callbacks. They do not change the results of a run.

Each is imported only where the competition asks for it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Recorder

from podium.errors import TrainingError
from podium.plan.runs import PlannedRun
from podium.workspace import Workspace

# `wandb sync` sends later what was not sent in this time.
FINISH_SECONDS = 120


def validation_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of correct rows; the history file has it under the same name."""
    return (logits.argmax(1) == labels).float().mean()


@dataclass(frozen=True)
class Trackers:
    """The trackers of one run."""

    names: tuple[str, ...] = ()
    tensorboard_folder: Path | None = None

    def callbacks(self, learner: Learner, stage: str) -> list[Callback]:
        """The callbacks for one fit of the run, which is named `stage`."""
        if not self.names:
            return []
        learner.logger = _ignore  # fastai's Recorder would print a table
        validated = len(learner.dls.valid) > 0
        learner.metrics = [validation_accuracy] if validated else []
        callbacks: list[Callback] = [Recorder(valid_metrics=validated)]
        if "tensorboard" in self.names:
            folder = self.tensorboard_folder / "-".join(stage.replace("/", " of ").split())
            callbacks.append(_tensorboard_callback(folder))
        if "wandb" in self.names:
            callbacks.append(_wandb_callback())
        return callbacks


@contextmanager
def open_trackers(workspace: Workspace, run: PlannedRun) -> Iterator[Trackers]:
    """The trackers that the competition asks for, opened for one run.

    Raises TrainingError where Weights & Biases cannot start, before anything is trained.
    """
    names, curves = workspace.competition.trackers, workspace.paths.reports / "tensorboard" / run.run
    shutil.rmtree(curves, ignore_errors=True)  # TensorBoard would draw an earlier training over this one
    if "wandb" not in names:
        yield Trackers(names, curves)
        return
    wandb_run = _start_wandb(workspace, run)
    exit_code = 1
    try:
        yield Trackers(names, curves)
        exit_code = 0
    finally:
        wandb_run.finish(exit_code=exit_code)


def _start_wandb(workspace: Workspace, run: PlannedRun) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS)
    if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
        raise TrainingError(
            "Weights & Biases has no account on this machine.",
            file=workspace.paths.settings_file,
            expected="an account, or WANDB_MODE=offline",
            found='trackers = ["wandb"]',
            fix="WANDB_MODE=offline make ..., or wandb login",
        )
    workspace.paths.reports.mkdir(parents=True, exist_ok=True)
    try:
        return wandb.init(
            project=f"podium-{workspace.name}",
            name=run.run,
            dir=workspace.paths.reports,
            config=asdict(run.recipe) | {"seed": run.seed, "competition": workspace.name},
            settings=settings,
        )
    except wandb.Error as error:
        raise TrainingError(
            "Weights & Biases could not be started: nothing was trained.",
            file=workspace.paths.settings_file,
            found=str(error).splitlines()[0],
            fix="WANDB_MODE=offline make ..., and wandb sync later",
        ) from None


def _ignore(*_: object) -> None:
    pass


class _Hypers:
    """An optimiser's hyperparameters that are numbers; torch's have None and flags too, which cannot be drawn."""

    def __init__(self, optimiser: Any):
        names = ("lr", "mom", "wd")
        self.hypers = [{name: float(group[name]) for name in names if name in group} for group in optimiser.hypers]


def _tensorboard_callback(folder: Path) -> Callback:
    from fastai.callback.tensorboard import TensorBoardCallback

    class PodiumTensorBoard(TensorBoardCallback):
        run_valid = False  # or each validation batch is logged as a training step

        @property
        def opt(self) -> _Hypers:
            return _Hypers(self.learn.opt)

    return PodiumTensorBoard(log_dir=folder, trace_model=False, log_preds=False)


def _wandb_callback() -> Callback:
    from fastai.callback.wandb import WandbCallback

    class PodiumWandb(WandbCallback):
        run_valid = False

        @property
        def opt(self) -> _Hypers:
            return _Hypers(self.learn.opt)

        def before_fit(self) -> None:
            self.learn.gather_args = dict  # the config is the recipe, not the names of fastai's objects
            super().before_fit()

    return PodiumWandb(log_preds=False)
