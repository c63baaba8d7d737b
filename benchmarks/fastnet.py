"""The gain from each part of fastnet's method: the recipe of cifar10-scratch, with one part removed at a time.

    python benchmarks/fastnet.py [--rows 20000] [--epochs 6] [--seeds 2] [--only WORD ...]

Every network learns from the same part of the 40,000 training rows of cifar10-scratch and is judged on 4,000 others of
them: the validation rows are not looked at, so that choosing by this table costs no honesty. As many networks train
side by side as there are cores, each on one thread. Differences are paired: the same rows, the same seeds.
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from podium.config.keys import Augment, FastNet, Recipe
from podium.config.recipe import read_recipe
from podium.data.cache import open_images
from podium.metrics import log_loss, softmax
from podium.training.batches.stores import FitData, PixelStore
from podium.training.inference import logits_of
from podium.training.learner import fit_network
from podium.training.networks import fastnet
from podium.training.progress import Listener, ProgressRecorder
from podium.workspace import open_workspace

COMPETITION, JUDGED_PER_CLASS = "cifar10-scratch", 400

# What is taken away -> the keys of the recipe that do it, or the name of a change to the network.
VARIANTS: dict[str, dict[str, Any] | str] = {
    "nothing": {},
    "rest for the easy images: all of them, as many steps": "all_images",
    "whitening: the first layer is drawn and learns": "learned_first_layer",
    "identity start: convolutions are drawn": "drawn_convolutions",
    "Muon: SGD moves the filters": {"optimiser": "sgd"},
    "a rate of their own for biases": {"bias_ratio": 1.0},
    "alternating flips: drawn anew": {"flip": "horizontal"},
    "shifts": {"shift_pixels": 0},
    "label smoothing": {"label_smoothing": 0.0},
    "small images first": {"progressive_pixels": ()},
    "the triangular schedule: one-cycle": {"schedule": "one-cycle"},
    "nothing, but with averaged parameters": {"ema_decay": 0.99},
    "views: one view of a test image": {"test_time_augmentation": "none"},
}


def changed(recipe: Recipe, keys: dict[str, Any]) -> Recipe:
    """The recipe with some keys changed, those of its tables among them."""
    tables = {"augment": Augment, "fastnet": FastNet}
    for name, kind in tables.items():
        inside = {key: value for key, value in keys.items() if key in {field.name for field in fields(kind)}}
        recipe = replace(recipe, **{name: replace(getattr(recipe, name), **inside)})
        keys = {key: value for key, value in keys.items() if key not in inside}
    return replace(recipe, **keys)


def variant(recipe: Recipe, change: dict[str, Any] | str) -> Recipe:
    """The recipe of a variant; changes to the network are `network_change`'s."""
    if change == "all_images":
        return replace(recipe, hard_share=1.0, epochs=round(recipe.epochs * recipe.hard_share))
    return recipe if isinstance(change, str) else changed(recipe, change)


@contextmanager
def network_change(name: str) -> Iterator[None]:
    """Build fastnets without one of the parts that no key switches off."""

    def drawn(channels: int, width: int) -> nn.Conv2d:
        return nn.Conv2d(channels, width, 3, padding="same", bias=False)

    def learned(filters: int) -> nn.Conv2d:
        return nn.Conv2d(3, filters, fastnet.PATCH_PIXELS)

    with ExitStack() as stack:
        if name == "drawn_convolutions":
            stack.enter_context(patch.object(fastnet, "_convolution", drawn))
        if name == "learned_first_layer":
            stack.enter_context(patch.object(fastnet, "_Whitening", learned))
            stack.enter_context(patch.object(fastnet.FastNetBody, "whiten", lambda body, images: None))
        yield


def split(labels: np.ndarray, folds: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to judge on, both from those that always train."""
    training = np.flatnonzero(folds == -1)
    judged = np.concatenate([training[labels[training] == label][:JUDGED_PER_CLASS] for label in np.unique(labels)])
    others = np.setdiff1d(training, judged)
    return others[np.linspace(0, len(others) - 1, min(rows, len(others))).astype(int)], np.sort(judged)


def judge(task: tuple[str, int], *, recipe: Recipe, rows: int) -> tuple[np.ndarray, float, float]:
    """Train one variant with one seed: hits (4000,), log loss, seconds of CPU."""
    name, seed = task
    torch.set_num_threads(1)
    change = VARIANTS[name]
    recipe = variant(recipe, change)
    workspace = open_workspace(COMPETITION, Path(__file__).parents[1])
    lock = workspace.lock
    dataset = open_images(workspace.paths, lock, pixels=recipe.stored_pixels, shape=recipe.shape)
    training, judged = split(lock.train_labels, lock.folds, rows)
    store = PixelStore(dataset.train_images, torch.device("cpu"))
    data = FitData(store, lock.train_labels, len(lock.classes), training, judged[:0], seed=seed)
    images, started = recipe.images_per_epoch(len(training)) * recipe.epochs, time.process_time()
    with network_change(change if isinstance(change, str) else ""):
        progress = ProgressRecorder(Listener(), images=images)
        network = fit_network(recipe, data, root=workspace.paths.root, progress=progress)
    seconds = time.process_time() - started
    logits = logits_of(network, store, judged)
    labels = lock.train_labels[judged]
    return logits.argmax(axis=1) == labels, log_loss(softmax(logits), labels), seconds


def print_table(names: list[str], seeds: int, results: list[tuple[np.ndarray, float, float]]) -> None:
    """Print the table; the standard error of a difference is that of the mean over rows, of the seeds' mean hits."""
    by_name = {name: results[place * seeds : (place + 1) * seeds] for place, name in enumerate(names)}
    base = np.mean([hits for hits, _, _ in by_name["nothing"]], axis=0)
    print("\n| without | accuracy | difference, points | log loss | CPU seconds |\n| --- | --- | --- | --- | --- |")
    for name, found in by_name.items():
        hits = np.mean([hits for hits, _, _ in found], axis=0)
        change, error = 100 * (hits - base).mean(), 100 * (hits - base).std() / len(hits) ** 0.5
        loss, seconds = np.mean([loss for _, loss, _ in found]), np.mean([seconds for *_, seconds in found])
        difference = "" if name == "nothing" else f"{change:+.2f} ± {error:.2f}"
        print(f"| {name} | {hits.mean():.4f} | {difference} | {loss:.4f} | {seconds:.0f} |")


def main() -> None:
    """Train every variant with every seed and print the gain from each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recipe", default="fastnet")
    parser.add_argument("--only", nargs="*", help="variants whose names contain one of these words")
    arguments = parser.parse_args()
    folder = Path(__file__).parents[1] / "competitions" / COMPETITION
    recipe = replace(read_recipe(folder / f"{arguments.recipe}.toml"), epochs=arguments.epochs)
    names = [
        name
        for name in VARIANTS
        if name == "nothing" or not arguments.only or any(word in name for word in arguments.only)
    ]
    tasks = [(name, seed) for name in names for seed in range(1, arguments.seeds + 1)]
    print(f"{len(tasks)} fits of {arguments.epochs} epochs of {arguments.rows:,} rows", flush=True)
    work, results = partial(judge, recipe=recipe, rows=arguments.rows), []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for task, result in zip(tasks, pool.map(work, tasks), strict=True):
            print(f"{task[0]}, seed {task[1]}: {result[0].mean():.4f}", flush=True)
            results.append(result)
    print_table(names, arguments.seeds, results)


if __name__ == "__main__":
    main()
