"""How long runs will take here, from a few timed steps of each recipe."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from podium.config.keys import Recipe
from podium.lock import Lock
from podium.plan.runs import PlannedRun
from podium.training.device import cpu_threads, pick_device, pick_precision
from podium.training.faults import naming
from podium.training.learner import EPOCH_ROWS
from podium.training.logits import VIEWS
from podium.training.networks.architectures import build_network
from podium.training.rows import count_images

# Enough to fill any device: a `batch_size` that no memory holds shall not fill the memory here.
MOST_TIMED_IMAGES = 1024


def estimate_seconds(
    runs: Sequence[PlannedRun], lock: Lock, *, root: Path, folder: Path | None = None
) -> dict[str, float]:
    """Recipe name -> seconds that one of its runs will take on this machine, with nothing beside it.

    Loading, decoding and `learning_rate = "find"` are not counted: they are small beside hours. Raises
    TrainingError naming the recipe that cannot be trained, and its file in the competition's `folder`.
    """
    seconds, device = {}, pick_device()
    rows = int((lock.folds != 0).sum())  # that the first fold's network learns from
    for name, recipe in {run.recipe_name: run.recipe for run in runs}.items():
        images = min(recipe.batch_size, rows, MOST_TIMED_IMAGES)
        with naming(name, (folder or Path()) / f"{name}.toml"):
            training, judging = _seconds_an_image(recipe, len(lock.classes), root=root, images=images, device=device)
        fits = 1 if recipe.refit else len(set(lock.folds[lock.folds >= 0].tolist()))
        held_out, views = int((lock.folds >= 0).sum()), VIEWS[recipe.test_time_augmentation]
        looks = (recipe.freeze_epochs + recipe.epochs) * min(held_out, EPOCH_ROWS)
        judged = looks + views * (held_out + len(lock.test_ids) * fits)
        seconds[name] = training * _full_size_images(recipe, lock) + judging * judged
    return seconds


def _full_size_images(recipe: Recipe, lock: Lock) -> float:
    """Training images of a run, where one of a smaller side counts as its share of the pixels."""
    sides = [*recipe.progressive_pixels, recipe.network_pixels]
    share = sum((side / sides[-1]) ** 2 for side in sides) / len(sides)
    frozen = count_images(replace(recipe, epochs=0), lock.folds)
    return frozen + share * (count_images(recipe, lock.folds) - frozen)


def _seconds_an_image(
    recipe: Recipe, classes: int, *, root: Path, images: int, device: torch.device
) -> tuple[float, float]:
    """Seconds an image of a training step and of a look; the published weights do not change either."""
    with cpu_threads(recipe.threads):
        network = build_network(recipe, classes, root=root, seed=0, weights=False)
        network.to(device)
        precision = pick_precision(recipe, network, device)
        shape = (images, 3, recipe.network_pixels, recipe.network_pixels)
        batch = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)

        def look(part: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                return network(part)

        def step(part: torch.Tensor) -> None:
            labels = torch.zeros(len(part), dtype=torch.int64, device=device)
            cross_entropy(look(part).float(), labels).backward()

        training = _seconds(step, batch)
        network.eval()
        with torch.inference_mode():
            judging = _seconds(look, batch)
    return training / images, judging / images


def _seconds(work: Callable[[torch.Tensor], object], batch: torch.Tensor) -> float:
    """Seconds of one piece of work that is done once before, to prepare: a CPU prepares on few images."""
    times = []
    for part in (batch if batch.is_cuda else batch[:2], batch):
        began = time.perf_counter()
        work(part)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        times.append(time.perf_counter() - began)
    return times[-1]
