"""TensorBoard and Weights & Biases, through fastai's callbacks. They do not change the results of a run.

Each is imported only where the competition asks for it.
"""

import shutil
from collections.abc import Callable, Iterator
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
    """Share of correct rows, or of correct labels (n, columns); the history file has it under the same name."""
    return ((logits.argmax(1) == labels) if labels.ndim == 1 else ((logits > 0) == (labels > 0.5))).float().mean()


class KeepsTraining:
    """Base of a tracker's callback: an error while it writes, such as a full disk, ends it and not the training."""

    def __call__(self, event_name: str) -> Any:
        """Handle one event of fastai."""
        try:
            return super().__call__(event_name)
        except OSError as error:
            self.run = False
            self.note(f"{type(self).__name__} stops, and the training goes on: {error.strerror or error}")


@dataclass(frozen=True)
class Trackers:
    """The trackers of one run."""

    names: tuple[str, ...] = ()
    tensorboard_folder: Path | None = None
    note: Callable[[str], object] = print  # receives a line where a tracker fails

    def callbacks(self, learner: Learner, stage: str) -> list[Callback]:
        """The callbacks for one fit of the run, which is named `stage`."""
        callbacks: list[Callback] = []
        if "tensorboard" in self.names:
            from fastai.callback.tensorboard import TensorBoardCallback

            folder = self.tensorboard_folder / "-".join(stage.replace("/", " of ").split())
            kind = type("TensorBoard", (KeepsTraining, TensorBoardCallback), {})
            callbacks.append(kind(log_dir=folder, trace_model=False, log_preds=False))
        if "wandb" in self.names:
            from fastai.callback.wandb import WandbCallback

            learner.gather_args = dict  # the config is the recipe, not the names of fastai's objects
            callbacks.append(type("Wandb", (KeepsTraining, WandbCallback), {})(log_preds=False))
        if not callbacks:
            return []
        for callback in callbacks:
            callback.run_valid = False  # or each validation batch is logged as a training step
            callback.note = self.note
        learner.logger = lambda *_: None  # fastai's Recorder would print a table
        labels = learner.dls.valid.labels if len(learner.dls.valid) else None
        is_validated = labels is not None and (labels.ndim == 1 or labels.shape[1] > 1)  # a number has no accuracy
        learner.metrics = [validation_accuracy] if is_validated else []
        return [Recorder(valid_metrics=is_validated), *callbacks]


@contextmanager
def open_trackers(workspace: Workspace, run: PlannedRun, *, note: Callable[[str], object]) -> Iterator[Trackers]:
    """The trackers that the competition asks for, opened for one run.

    Raises TrainingError where Weights & Biases cannot start, before anything is trained.
    """
    names, curves = workspace.competition.trackers, workspace.paths.reports / "tensorboard" / run.run
    if "tensorboard" in names:
        shutil.rmtree(curves, ignore_errors=True)  # TensorBoard would draw an earlier training over this one
    wandb_run = _start_wandb(workspace, run) if "wandb" in names else None
    exit_code = 1
    try:
        yield Trackers(names, curves, note)
        exit_code = 0
    finally:
        if wandb_run:
            wandb_run.finish(exit_code=exit_code)


def _start_wandb(workspace: Workspace, run: PlannedRun) -> Any:
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS)
    workspace.paths.reports.mkdir(parents=True, exist_ok=True)
    try:
        if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
            raise wandb.Error("no account on this machine")
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
            expected="an account and a network, or WANDB_MODE=offline",
            found=str(error).splitlines()[0],
            fix="wandb login; or WANDB_MODE=offline make ..., and wandb sync later",
        ) from None
