"""Decoded images beyond the memory: batches and a training from the disk, beside the mapped file and other loaders.

    python benchmarks/stream.py [--images 132860] [--seconds 15] [--turns 3] [--folder FOLDER] [--only NAME ...]

Makes photos of 224 pixels (132,860 are 20 GB of pixels, and 1 GB of JPEG files) and decodes them by `podium prepare`,
unless FOLDER has them. Each contender makes batches of 64 flipped, shifted and normalised images, or trains a small
network on them, in a process of its own, in turn. The first 7,168 images, or half of a minute, are not in images/s:
shuffled blocks fill their window in this time. `warm`: the pixels are in the system's cache, as where all fit into
memory; `cold`: none are when it starts. CPU is of all its processes, memory the largest resident set of one.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import load
import numpy as np

BATCH, SIDE = 64, 224
CONTENDERS = {  # name -> the function of this file, its argument, and whether the pixels are warm
    "mapped, warm": ("podium_batches", "mapped", True),
    "mapped, cold": ("podium_batches", "mapped", False),
    "read, warm": ("podium_batches", "rows", True),
    "read, cold": ("podium_batches", "rows", False),
    "read in blocks, cold": ("podium_batches", "blocks", False),
    "np.memmap, PyTorch's loader, 2 workers, cold": ("memmap_batches", "2", False),
    "JPEG files, PyTorch's loader, 2 workers": ("jpeg_batches", "2", False),
    "mapped, warm, training": ("podium_steps", "mapped", True),
    "read, cold, training": ("podium_steps", "rows", False),
    "read in blocks, cold, training": ("podium_steps", "blocks", False),
}
SKIPPED_IMAGES, SKIPPED_SECONDS = 7168, 30


def pixels_file() -> Path:
    return next(Path(".cache", load.NAME).glob("*/images-*.npy"))


# What a process of its own runs, in the folder of the project.
def podium_batches(kind: str) -> Iterable:
    """Podium's loader: of the mapped file, or reading it with all rows or blocks shuffled."""
    from podium.training.batches.loader import TrainingLoader
    from podium.training.batches.stores import Normalisation

    return TrainingLoader(*podium_data(kind), normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))


def podium_data(kind: str) -> tuple:
    """A recipe, and the data of its fit."""
    import torch

    from podium.config.keys import Augment, Recipe
    from podium.data.image_file import ImageFile
    from podium.training.batches.stores import FitData, PixelStore

    torch.set_num_threads(1)
    images = np.load(pixels_file(), mmap_mode="r")
    keys = {"augment": Augment(flip="horizontal", shift_pixels=4), "shuffle": "blocks" if kind == "blocks" else "rows"}
    recipe = Recipe(architecture="resnet34", epochs=1, batch_size=BATCH, stored_pixels=SIDE, **keys)
    store, rows = PixelStore(images if kind == "mapped" else ImageFile(images), torch.device("cpu")), len(images)
    return recipe, FitData(store, np.arange(rows) % 10, 10, np.arange(rows), np.arange(0), seed=1)


def memmap_batches(workers: str) -> Iterable:
    """PyTorch's loader with torchvision's flip, shift and normalisation, of a mapped file."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset):
        def __init__(self):
            self.images, self.change = np.load(pixels_file(), mmap_mode="r"), _transform()

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, row: int) -> tuple:
            return self.change(torch.from_numpy(self.images[row].copy()).permute(2, 0, 1)), row % 10

    return DataLoader(Rows(), batch_size=BATCH, shuffle=True, num_workers=int(workers))


def jpeg_batches(workers: str) -> Iterable:
    """PyTorch's loader with torchvision's folder, flip, shift and normalisation."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    images = ImageFolder(Path("data", load.NAME, "train"), v2.Compose([v2.ToImage(), _transform()]))
    return DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=int(workers))


def _transform() -> Callable:
    import torch
    from torchvision.transforms import v2

    shift = v2.RandomCrop(SIDE, padding=4, padding_mode="reflect")
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    return v2.Compose([v2.RandomHorizontalFlip(), shift, *scaled])


def podium_steps(kind: str) -> Iterator:
    """The images of each step of a training by Podium's learner: ResNet-10-T at 64 pixels, one thread."""
    from podium.training.learner import Learner, prepare_network

    recipe, data = podium_data(kind)
    keys = {"architecture": "timm:resnet10t", "training_pixels": 64, "learning_rate": 0.01, "optimiser": "sgd"}
    recipe = replace(recipe, **keys)
    learner = Learner(prepare_network(recipe, data, root=Path()), data)
    learner.network.train()
    for images, targets in learner.loader:
        learner.step(images, targets)
        yield images, targets


def measure_batches(function: str, argument: str, seconds: str, is_warm: str) -> None:
    """Print images/s, CPU milliseconds an image, and MB of the largest process."""
    if is_warm == "True":  # the same order, by a loader of the same seed
        consume(globals()["podium_batches"](argument), float(seconds) + SKIPPED_SECONDS)
    else:
        with pixels_file().open() as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    iterator, cpu = iter(globals()[function](argument)), sum(os.times()[:4])
    skipped = consume(iterator, SKIPPED_SECONDS, most=SKIPPED_IMAGES)
    started = time.perf_counter()
    images = consume(iterator, float(seconds))
    speed = images / (time.perf_counter() - started)
    del iterator  # ends its processes, so that their CPU time is known
    usages = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        speed, 1000 * (sum(os.times()[:4]) - cpu) / (skipped + images), max(usage.ru_maxrss for usage in usages) / 1000
    )


def consume(batches: Iterable, seconds: float, *, most: int = sys.maxsize) -> int:
    """The number of images in the batches of so many seconds."""
    images, end = 0, time.perf_counter() + seconds
    for part in batches:
        images += len(part[0])
        if images >= most or time.perf_counter() > end:
            break
    return images


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--images", type=int, default=load.SIZES["pixels"])
    arguments.add_argument("--seconds", type=float, default=15)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        measure_batches(*options.child)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / ".cache").is_dir():
            load.make(folder, "make_pixels", options.images)
            assert load.measure(load.podium("prepare"), folder).status == 0
        found: dict[str, list[list[float]]] = {name: [] for name in options.only}
        for turn, name in product(range(options.turns), options.only):
            function, argument, is_warm = CONTENDERS[name]
            command = [*load.child("", "")[:3], __file__, "--child", function, argument, options.seconds, is_warm]
            done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=True)
            found[name].append([float(value) for value in done.stdout.split()])
            print(turn, name, *found[name][-1], f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print("| batches | images/s | of the first | CPU ms an image | resident MB |\n|" + " --- |" * 5)
    for name, values in found.items():
        speed, cpu, memory = (statistics.median(column) for column in zip(*values, strict=True))
        ratios = [own[0] / first[0] for own, first in zip(values, found[options.only[0]], strict=True)]
        print(f"| {name} | {speed:,.0f} | {statistics.median(ratios):.2f} | {cpu:.2f} | {memory:,.0f} |")


if __name__ == "__main__":
    main()
