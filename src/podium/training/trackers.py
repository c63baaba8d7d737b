"""What else training is told to, beside the history CSV: TensorBoard and Weights & Biases, by fastai's own callbacks.

They only look: a run that is tracked gives the same bits. Neither is imported where it is not asked for.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner, Recorder

from podium.errors import TrainingError

# What W&B has not sent by then, `wandb sync` sends later.
FINISH_SECONDS = 120


def validation_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of the rows that are hits: as the history CSV has it, under the same name."""
    return (logits.argmax(1) == labels).float().mean()


@dataclass(frozen=True)
class Trackers:
    """The trackers of one run."""

    names: tuple[str, ...] = ()
    tensorboard_folder: Path | None = None

    def callbacks(self, learner: Learner, stage: str) -> list[Callback]:
        """What follows one fit of the run; `stage` keeps a run's fits apart."""
        if not self.names:
            return []
        learner.logger = _silent  # the Recorder's own table
        validated = len(learner.dls.valid) > 0
        learner.metrics = [validation_accuracy] if validated else []
        made: list[Callback] = [Recorder(valid_metrics=validated)]
        if "tensorboard" in self.names:
            made.append(_tensorboard(self.tensorboard_folder / "-".join(stage.replace("/", " of ").split())))
        if "wandb" in self.names:
            made.append(_wandb())
        return made


@contextmanager
def open_trackers(
    names: tuple[str, ...], reports: Path, run: str, *, settings_file: Path, about: dict[str, Any]
) -> Iterator[Trackers]:
    """The trackers of a run, writing below the competition's `reports`; `about` is what W&B shows as its config.

    `settings_file` is the competition.toml that asks for them; its folder's name is the project at W&B.

    Raises TrainingError, before anything is trained, where W&B has no account and was not told to stay offline.
    """
    curves = reports / "tensorboard" / run
    shutil.rmtree(curves, ignore_errors=True)  # of a training before: its curves would lie over these
    if "wandb" not in names:
        yield Trackers(names, curves)
        return
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS)
    if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
        raise TrainingError(
            "Weights & Biases does not know who you are.",
            file=settings_file,
            expected="an account on this machine, or nothing sent",
            found='trackers = ["wandb"]',
            fix="WANDB_MODE=offline make ..., or wandb login",
        )
    reports.mkdir(parents=True, exist_ok=True)
    try:
        logged = wandb.init(
            project=f"podium-{settings_file.parent.name}", name=run, dir=reports, config=about, settings=settings
        )
    except wandb.Error as error:
        raise TrainingError(
            "Weights & Biases could not be told of this run: nothing was trained.",
            file=settings_file,
            found=str(error).splitlines()[0],
            fix="WANDB_MODE=offline make ..., and wandb sync later",
        ) from None
    code = 1
    try:
        yield Trackers(names, curves)
        code = 0
    finally:
        logged.finish(exit_code=code)


def _silent(*_: object) -> None:
    pass


class _Hypers:
    """The numbers of an optimiser that a curve can be drawn of; torch's own lists hold None and flags among them."""

    def __init__(self, optimiser: Any):
        shown = ("lr", "mom", "wd")
        self.hypers = [{name: float(group[name]) for name in shown if name in group} for group in optimiser.hypers]


def _tensorboard(folder: Path) -> Callback:
    from fastai.callback.tensorboard import TensorBoardCallback

    class Tracked(TensorBoardCallback):
        run_valid = False  # or each validation batch is logged as a training step

        @property
        def opt(self) -> _Hypers:
            return _Hypers(self.learn.opt)

    return Tracked(log_dir=folder, trace_model=False, log_preds=False)


def _wandb() -> Callback:
    from fastai.callback.wandb import WandbCallback

    class Tracked(WandbCallback):
        run_valid = False

        @property
        def opt(self) -> _Hypers:
            return _Hypers(self.learn.opt)

        def before_fit(self) -> None:
            self.learn.gather_args = dict  # the recipe is the config, not what fastai's objects are called
            super().before_fit()

    return Tracked(log_preds=False)
