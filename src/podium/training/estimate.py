"""Before a training: check all recipes, and estimate how long their runs will take, from a few timed steps."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from podium.config.keys import Competition, Recipe
from podium.config.pixels import count_pixels, height_and_width
from podium.data.labels import read_pseudo_labels
from podium.errors import TrainingError
from podium.plan.runs import PlannedRun, runs_in_fits
from podium.plan.simulate import Machines, Task, simulate
from podium.training.batches.stores import FitData, data_of_fits
from podium.training.device import (
    check_machine,
    computing,
    count_gpus,
    name_run_in_errors,
    pick_device,
)
from podium.training.inference import VIEWS, evaluation_batch
from podium.training.learner import EPOCH_ROWS
from podium.training.networks.architectures import build_network
from podium.training.optimisers import make_optimiser
from podium.workspace import Workspace

# Enough to use the whole device. A `batch_size` that fits into no memory must not fill the memory here.
MOST_TIMED_IMAGES = 1024


def check_recipes(workspace: Workspace, runs: Sequence[PlannedRun], *, here: bool = True) -> None:
    """Build the network of each recipe once, with its pretrained weights; nothing is trained.

    Raises TrainingError with the faults of all recipes: architectures, weights, sizes of images, and where they are
    trained `here`, more threads than cores, and processes without a GPU or a core.
    """
    errors = []
    for name, run in {run.recipe_name: run for run in runs}.items():
        try:
            if here:
                check_machine(run.recipe, workspace.paths.recipe_file(name))
            with name_run_in_errors(name, workspace.paths.recipe_file(name)):
                build_network(run.recipe, workspace.lock.target.outputs, root=workspace.paths.root, seed=run.seed)
        except TrainingError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        faults = [f"{error.what} {error.found or error.file}; fix: {error.fix}" for error in errors]
        folder = workspace.paths.folder
        raise TrainingError("Several recipes cannot be trained.", file=folder, faults=faults, fix="edit these recipes")


def estimate_seconds(workspace: Workspace, runs: Sequence[PlannedRun]) -> dict[str, list[float]]:
    """Recipe name -> seconds of each fit of one of its runs on this machine, if nothing else runs on it.

    Loading, decoding and lr_find are not included: they are short compared with hours of training. Raises
    TrainingError with the name of the recipe that cannot be trained.
    """
    seconds, lock, paths = {}, workspace.lock, workspace.paths
    for name, run in {run.recipe_name: run for run in runs}.items():
        with computing(name, paths.recipe_file(name), run.recipe):
            pseudo = read_pseudo_labels(paths.root, run.recipe.pseudo_labels, workspace.competition, lock)
            fits = data_of_fits(lock, run, None, np.arange(len(lock.folds)), pseudo)
            seconds[name] = _seconds_of_fits(run.recipe, fits, root=paths.root, test_images=len(lock.test_ids))
    return seconds


def total_seconds(
    competition: Competition, runs: Sequence[PlannedRun], seconds: Mapping[str, Sequence[float]], *, start: float = 0
) -> tuple[float, str]:
    """The time until the last of `runs` ends on this machine, and what they share: GPUs, or cores.

    `seconds` are those of `estimate_seconds`, `start` those that a process needs before it trains. As by make, runs, or
    their fits, begin in the order of `runs`, as soon as there are cores for their threads, or GPUs; runs that share a
    GPU take as long as one after the other. A process of its own joins the fits of a run.
    """
    gpus, cores = count_gpus(), len(os.sched_getaffinity(0))
    in_fits = {run.run for run in runs_in_fits(competition, runs)}
    tasks = []
    for run in runs:
        fits = seconds[run.recipe_name] if run.run in in_fits else [sum(seconds[run.recipe_name])]
        tasks += [Task(fit, run.recipe.processes if gpus else run.recipe.cores) for fit in fits]
    total = simulate(tasks, Machines(devices=gpus or cores, start=start)).seconds
    return total + (start if in_fits else 0), f"{gpus} GPU(s)" if gpus else f"{cores} core(s)"


def _seconds_of_fits(recipe: Recipe, fits: Sequence[FitData], *, root: Path, test_images: int) -> list[float]:
    """The seconds of each fit of a run: a smaller training image counts as its share of the pixels."""
    first = fits[0]
    images = min(recipe.batch_size, len(first.training_rows), MOST_TIMED_IMAGES)
    training, evaluation = _seconds_per_image(recipe, first.classes, root=root, images=images)
    areas = [count_pixels(pixels) for pixels in recipe.stage_pixels]
    views, features = VIEWS[recipe.test_time_augmentation], 0
    if recipe.fits_features:  # of all images, computed once
        features = views * (len(first.training_rows) + len(first.validation_rows) + test_images)
    seconds = []
    for fit in fits:
        validated, epochs = len(fit.validation_rows), recipe.epochs * sum(areas) / (len(areas) * areas[-1])
        full_size = recipe.images_per_epoch(len(fit.training_rows)) * (recipe.freeze_epochs + epochs)
        predicted = validated + (test_images if fit.name == "refit" or not recipe.refit else 0)
        evaluated = (recipe.freeze_epochs + recipe.epochs) * min(validated, EPOCH_ROWS) + views * predicted
        evaluated = evaluated if recipe.epochs or not features else 0
        seconds.append(training * full_size / recipe.processes + evaluation * (evaluated + features * (fit is first)))
    return seconds


def _seconds_per_image(recipe: Recipe, classes: int, *, root: Path, images: int) -> tuple[float, float]:
    """Seconds per image of training and of evaluation, on one batch of `images`."""
    device, shape = pick_device(), (images, 3, *height_and_width(recipe.network_pixels))
    network = build_network(recipe, classes, root=root, seed=0, weights=False, device=device)
    optimiser = make_optimiser(recipe, network)
    batch = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)

    def train(part: torch.Tensor) -> None:
        cross_entropy(network(part), torch.zeros(len(part), dtype=torch.int64, device=device)).backward()
        optimiser.step()
        optimiser.zero_grad()

    training = _seconds(train, batch) if recipe.epochs else 0.0
    network.eval()
    with torch.inference_mode():
        part = batch[: evaluation_batch(recipe.network_pixels, device)]
        return training / images, _seconds(network, part) / len(part)


def _seconds(function: Callable[[torch.Tensor], object], batch: torch.Tensor) -> float:
    """Seconds of the last of three calls: a small one loads the kernels, the next allocates the memory."""
    for part in (batch[:2], batch, batch):
        started = time.perf_counter()
        function(part)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        seconds = time.perf_counter() - started
    return seconds
