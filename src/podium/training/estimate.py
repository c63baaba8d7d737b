"""How long runs will take here, from a few timed steps of each recipe."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from podium.config import Recipe
from podium.data.lock import Lock
from podium.plan import PlannedRun
from podium.training.architectures import build_network
from podium.training.device import cpu_threads, pick_device, pick_precision
from podium.training.fit import count_images


def estimate_seconds(runs: Sequence[PlannedRun], lock: Lock, *, root: Path) -> dict[str, float]:
    """Recipe name -> seconds that one of its runs will take on this machine, with nothing beside it.

    Loading, decoding and `learning_rate = "find"` are not counted: they are small beside hours.
    """
    seconds = {}
    for name, recipe in {run.recipe_name: run.recipe for run in runs}.items():
        training, judging = _seconds_an_image(recipe, len(lock.classes), root=root)
        fits = 1 if recipe.refit else len(set(lock.folds[lock.folds >= 0].tolist()))
        judged = int((lock.folds >= 0).sum()) * (recipe.epochs + 1) + len(lock.test_ids) * fits
        seconds[name] = training * count_images(recipe, lock.folds) + judging * judged
    return seconds


def _seconds_an_image(recipe: Recipe, classes: int, *, root: Path) -> tuple[float, float]:
    """Seconds an image of a training step and of a look; the published weights do not change either."""
    device = pick_device()
    with cpu_threads(recipe.threads):
        network = build_network(recipe, classes, root=root, seed=0, weights=False)
        network.to(device)
        precision = pick_precision(recipe, network, device)
        shape = (recipe.batch_size, 3, recipe.network_pixels, recipe.network_pixels)
        images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(recipe.batch_size, dtype=torch.int64, device=device)

        def look() -> torch.Tensor:
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                return network(images)

        def step() -> None:
            cross_entropy(look().float(), labels).backward()

        training = _seconds(step, device)
        network.eval()
        with torch.inference_mode():
            judging = _seconds(look, device)
    return training / recipe.batch_size, judging / recipe.batch_size


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one piece of work; a GPU does it once before, to prepare."""
    times = []
    for _ in range(2 if device.type == "cuda" else 1):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return times[-1]
