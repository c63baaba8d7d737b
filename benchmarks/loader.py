"""How many augmented training images a second: Podium's resident loader beside fastai's DataBlock loader.

    python benchmarks/loader.py [--competition cifar10] [--images 4000] [--pairs 5]

Both serve the same images at 32 pixels, flipped, shifted and normalised, in one process after the other, in
turn; medians are over the pairs. Podium's loader has one thread. fastai reads PNG files, as its documentation
writes it, once with its default worker processes and once without.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from podium.config.keys import Augment, Recipe
from podium.data.cache import Dataset, open_images
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, PixelStore
from podium.workspace import open_workspace

SIDE, BATCH = 32, 128


def podium_epoch(dataset: Dataset, count: int) -> Callable[[], int]:
    recipe = Recipe(
        architecture="resnet34",
        epochs=1,
        learning_rate=0.1,
        batch_size=BATCH,
        augment=Augment(flip="horizontal", shift_pixels=4),
    )
    rows = np.arange(count)
    store = PixelStore(dataset.train_images, torch.device("cpu"))
    data = FitData(store, dataset.lock.train_labels, len(dataset.lock.classes), rows, rows[:0], seed=1)
    loader = TrainingLoader(recipe, data, normalisation=data.normalisation)

    def epoch() -> int:
        torch.set_num_threads(1)
        return sum(len(images) for images, _ in loader)

    return epoch


def fastai_epoch(dataset: Dataset, count: int, folder: Path, *, workers: int | None) -> Callable[[], int]:
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        Flip,
        ImageBlock,
        Normalize,
        RandomCrop,
        RandomSplitter,
        get_image_files,
        imagenet_stats,
        parent_label,
    )

    if not folder.exists():
        for i in range(count):
            file = folder / dataset.lock.classes[dataset.lock.train_labels[i]] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(dataset.train_images[i])).save(file)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=RandomSplitter(valid_pct=0.01, seed=1),
        item_tfms=RandomCrop(SIDE),
        batch_tfms=[Flip(), Normalize.from_stats(*imagenet_stats)],
    )
    options = {} if workers is None else {"num_workers": workers}
    loader = block.dataloaders(folder, bs=BATCH, device=torch.device("cpu"), **options).train

    def epoch() -> int:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        return sum(len(images) for images, _ in loader)

    return epoch


def images_per_second(epoch: Callable[[], int]) -> float:
    started = time.perf_counter()
    return epoch() / (time.perf_counter() - started)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--competition", default="cifar10")
    arguments.add_argument("--images", type=int, default=4000)
    arguments.add_argument("--pairs", type=int, default=5)
    options = arguments.parse_args()
    warnings.filterwarnings("ignore")
    workspace = open_workspace(options.competition)
    dataset = open_images(workspace.paths, workspace.lock, pixels=SIDE, shape="crop")
    count = min(options.images, len(dataset.lock.train_ids))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        epochs = {
            "fastai DataBlock, its default workers": fastai_epoch(dataset, count, folder, workers=None),
            "fastai DataBlock, no workers": fastai_epoch(dataset, count, folder, workers=0),
            "Podium, one thread": podium_epoch(dataset, count),
        }
        speeds: dict[str, list[float]] = {name: [] for name in epochs}
        for turn in range(options.pairs + 1):  # the first turn warms up
            for name, epoch in epochs.items():
                speed = images_per_second(epoch)
                if turn:
                    speeds[name].append(speed)
    load = " ".join(f"{minutes:.2f}" for minutes in os.getloadavg())
    print(f"{count:,} images at {SIDE} px, batches of {BATCH}, {options.pairs} turns, load average {load}")
    ours = statistics.median(speeds["Podium, one thread"])
    for name, found in speeds.items():
        middle = statistics.median(found)
        spread = f"({min(found):,.0f} to {max(found):,.0f})"
        print(f"{name:<40} {middle:10,.0f} images/s  {spread}  Podium is {ours / middle:.1f}x")


if __name__ == "__main__":
    main()
