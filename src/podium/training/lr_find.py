"""lr_find: train for a hundred steps at rising learning rates, and read a good rate from the losses."""

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from fastai.callback.schedule import LRFinder, minimum, slide, steep, valley
from fastai.learner import Recorder

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.plan.runs import PlannedRun
from podium.seeding import stream_seed
from podium.training.batches.loader import FitData
from podium.training.device import cpu_threads
from podium.training.errors import name_run_in_errors
from podium.training.learner import make_learner, prepare_network, seeded_dropout
from podium.training.lr_curve import LrFindResult
from podium.training.optimisers import KINDS, list_rates
from podium.training.progress import Listener
from podium.training.rows import first_fold, open_recipe_images
from podium.workspace import Workspace

RULES = {"valley": valley, "slide": slide, "steep": steep, "minimum": minimum}
# fastai's defaults.
STEPS, LOWEST_RATE, HIGHEST_RATE = 100, 1e-7, 10.0
# As fastai does, ignore the first steps, whose smoothed loss is a mean of few batches, and the last, which diverge.
FIRST_STEPS, LAST_STEPS = 10, 5
# The slide rule needs this many.
FEWEST_STEPS = 16


def find_learning_rate_of_run(workspace: Workspace, run: PlannedRun, *, listener: Listener) -> LrFindResult:
    """Run lr_find for a run's recipe on the first fold, whatever its `learning_rate`; raises TrainingError, DataError.

    Claims no cores: a user waits for it, and it takes a hundred steps.
    """
    recipe, paths = run.recipe, workspace.paths
    dataset = open_recipe_images(workspace, recipe)
    dataset.verify()
    with (
        name_run_in_errors(run.recipe_name, paths.recipe_file(run.recipe_name)),
        cpu_threads(recipe.threads),
    ):
        if not recipe.epochs:
            raise TrainingError("No layer is trained.", expected="epochs of 1 or more", found=f'head = "{recipe.head}"')
        data = first_fold(workspace.lock, dataset)
        result = find_learning_rate(recipe, data, seed=run.seed, root=paths.root, listener=listener)
    return result


def find_learning_rate(
    recipe: Recipe, data: FitData, *, seed: int, root: Path, listener: Listener | None = None
) -> LrFindResult:
    """Run fastai's lr_find with a network and random streams of its own.

    Every list of parameters has the rate that training would give it: biases times `bias_ratio`, early layers lower.
    Filters that Muon trains keep still. Raises TrainingError where the loss diverges at once.
    """
    started = time.perf_counter()
    network = prepare_network(recipe, data, root=root, seed=stream_seed(seed, "network/lr-find"))
    recorder, finder = Recorder(), _Finder(recipe, listener or Listener(), groups=len(network.layer_groups()))
    with tempfile.TemporaryDirectory() as folder, seeded_dropout(data.store.device, seed, "dropout/lr-find"):
        learner = make_learner(recipe, network, data, seed=seed, purpose="/lr-find", folder=Path(folder))
        with learner.no_logging():
            learner.fit(STEPS // len(learner.dls.train) + 1, cbs=[recorder, finder])
        losses = [float(loss) for loss in recorder.losses]
    rates = [_rate(step / STEPS) for step in range(len(losses))]
    seconds, rows = time.perf_counter() - started, len(data.training_rows)
    return result_of_losses(rates, losses, seconds=seconds, batch_size=recipe.images_per_step, rows=rows)


class _Finder(LRFinder):
    """fastai's LRFinder, with the rates of each list of parameters; reports each step to a listener."""

    def __init__(self, recipe: Recipe, listener: Listener, *, groups: int):
        super().__init__(num_it=STEPS)
        # LRFinder's own schedule would give all lists of parameters the same rate.
        self.scheds = {"lr": lambda share: _scheduled_rates(recipe, share, groups=groups)}
        self.listener, self.started = listener, time.perf_counter()

    def after_batch(self) -> None:
        """Report one step; LRFinder may end the fit after it."""
        images = self.learn.train_iter * len(self.learn.xb[0])
        self.listener.step(self.learn.train_iter / STEPS, images / max(time.perf_counter() - self.started, 1e-9))
        super().after_batch()


def result_of_losses(
    rates: Sequence[float], losses: Sequence[float], *, seconds: float, batch_size: int, rows: int
) -> LrFindResult:
    """The losses up to the first that is not finite, with fastai's suggestions.

    Raises TrainingError where there are too few losses for its rules.
    """
    finite = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    used = slice(FIRST_STEPS, finite - LAST_STEPS)
    used_rates = torch.tensor(list(rates)[used], dtype=torch.float64)
    used_losses = torch.tensor(list(losses)[used], dtype=torch.float64)
    if len(used_rates) < FEWEST_STEPS:
        reason = " or was not a finite number" if finite < len(losses) else ""
        raise TrainingError(
            "lr_find found no learning rate.",
            expected=f"a finite loss for {FIRST_STEPS + FEWEST_STEPS + LAST_STEPS} steps of rising learning rate",
            found=f"{finite} steps until the loss diverged{reason}",
            fix="`learning_rate` as a number, `gradient_clip = 1.0` or a smaller `muon_rate`, in the recipe",
        )
    suggestions = {name: float(rule(used_rates, used_losses, finite)[0]) for name, rule in RULES.items()}
    return LrFindResult(tuple(rates[:finite]), tuple(losses[:finite]), suggestions, seconds, batch_size, rows)


def _rate(share: float) -> float:
    return LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** share


def _scheduled_rates(recipe: Recipe, share: float, *, groups: int) -> np.ndarray:
    """Learning rate of each list of parameters when `share` of the steps is done."""
    rates = list_rates(recipe, _rate(share), groups=groups)
    if recipe.optimiser == "muon":
        # Muon's filters have their own rate, muon_rate: they would change the loss from the first step.
        rates[::KINDS] = 0.0
    return rates
