"""lr_find: train for a hundred steps at rising learning rates, and read a good rate from the losses."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat, takewhile
from pathlib import Path

import numpy as np
import torch
from fastai.callback.schedule import minimum, slide, steep, valley

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.plan.runs import PlannedRun
from podium.training.batches.stores import FitData, first_fold, open_recipe_images
from podium.training.device import computing
from podium.training.drawing import LrFindResult
from podium.training.learner import Learner, prepare_network, seeded_dropout
from podium.training.optimisers import KINDS, constant, list_rates, set_rates
from podium.training.progress import Listener
from podium.workspace import Workspace

RULES = {"valley": valley, "slide": slide, "steep": steep, "minimum": minimum}
# fastai's defaults.
STEPS, LOWEST_RATE, HIGHEST_RATE = 100, 1e-7, 10.0
# As in fastai, the loss is a moving average, and has diverged at four times its minimum.
SMOOTHING, DIVERGED = 0.98, 4
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
    with computing(run.recipe_name, paths.recipe_file(run.recipe_name), recipe):
        if not recipe.epochs:
            raise TrainingError("No layer is trained.", expected="epochs of 1 or more", found=f'head = "{recipe.head}"')
        data = first_fold(workspace.lock, run, dataset)
        return find_learning_rate(recipe, data, root=paths.root, listener=listener)


def find_learning_rate(recipe: Recipe, data: FitData, *, root: Path, listener: Listener | None = None) -> LrFindResult:
    """Train as fastai's lr_find does, with a network and random streams of its own, until the loss diverges.

    Every list of parameters has the rate that training would give it: biases times `bias_ratio`, early layers lower.
    Filters that Muon trains keep still. Raises TrainingError where the loss diverges at once.
    """
    started, listener, losses, smooth = time.perf_counter(), listener or Listener(), [], torch.tensor(0.0)
    data = replace(data, name="lr-find", parts=data.parts * recipe.processes)  # one process has the batch of all
    network = prepare_network(recipe, data, root=root)
    rates = partial(_scheduled_rates, recipe, groups=len(network.layer_groups())), constant(recipe.momentum)
    with seeded_dropout(data):
        learner = Learner(network, data)
        batches = chain.from_iterable(repeat(learner.loader))
        for step, (images, targets) in zip(range(1, STEPS + 1), batches, strict=False):
            set_rates(learner.optimiser, rates, (step - 1) / STEPS)
            smooth = torch.lerp(learner.step(images, targets).cpu(), smooth, SMOOTHING)
            losses.append(float(smooth / (1 - SMOOTHING**step)))
            listener.step(step / STEPS, step * len(images) / max(time.perf_counter() - started, 1e-9))
            if losses[-1] > DIVERGED * min(losses):
                break
    return result_of_losses(losses)


def result_of_losses(losses: Sequence[float]) -> LrFindResult:
    """The losses of the steps up to the first that is not finite, with fastai's suggestions.

    Raises TrainingError where there are too few losses for its rules.
    """
    finite = list(takewhile(math.isfinite, losses))
    rates, used = [_rate(step / STEPS) for step in range(len(finite))], slice(FIRST_STEPS, -LAST_STEPS)
    used_rates, used_losses = (torch.tensor(values[used], dtype=torch.float64) for values in (rates, finite))
    if len(used_rates) < FEWEST_STEPS:
        reason = " or was not a finite number" if len(finite) < len(losses) else ""
        raise TrainingError(
            "lr_find found no learning rate.",
            expected=f"a finite loss for {FIRST_STEPS + FEWEST_STEPS + LAST_STEPS} steps of rising learning rate",
            found=f"{len(finite)} steps until the loss diverged{reason}",
            fix="`learning_rate` as a number, `gradient_clip = 1.0` or a smaller `muon_rate`, in the recipe",
        )
    suggestions = {name: float(rule(used_rates, used_losses, len(finite))[0]) for name, rule in RULES.items()}
    return LrFindResult(tuple(rates), tuple(finite), suggestions)


def _rate(share: float) -> float:
    return LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** share


def _scheduled_rates(recipe: Recipe, share_done: float, *, groups: int) -> np.ndarray:
    """Learning rate of each list of parameters when `share_done` of the steps are done."""
    rates = list_rates(recipe, _rate(share_done), groups=groups)
    if recipe.optimiser == "muon":
        # Muon's filters have their own rate, muon_rate: they would change the loss from the first step.
        rates[::KINDS] = 0.0
    return rates
