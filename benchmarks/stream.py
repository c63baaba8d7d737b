"""Decoded images beyond the memory: batches and a training from the disk, beside the mapped file and other loaders.

    python benchmarks/stream.py [--images 132860] [--side 224] [--turns 3] [--folder FOLDER] [--only NAME ...]
        [--photos FOLDER]

Makes photos of 224 pixels (132,860 are 20 GB of pixels, and 1 GB of JPEG files) and decodes them by `podium prepare`,
unless FOLDER has them. Each contender makes batches of 64 flipped, shifted and normalised images, or trains a small
network on them, in a process of its own, in turn. The images of 0.54 GB are not in images/s: shuffled blocks fill
their window with them; those of the next 0.48 GB are. In a training it is half of 0.48 GB each. `warm`: the process
has used the same pixels before, as where all fit into memory; `cold`: the system has none in its cache when it starts.
CPU is of all its processes, memory the largest resident set of one. `--side 64` takes the same bytes as 1.6 million
images of 64 pixels. The JPEGs are those of `stored_format = "jpeg"`. With `--photos`, the images are random boxes of
the photos below FOLDER, whose JPEGs are as large as those of a competition. `--quality` prints how well both orders mix
the rows of a file sorted by class, `--accuracy SEEDS` what that costs on CIFAR-10, and `--compare` how the predictions
of two runs differ.
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
from itertools import islice, product
from pathlib import Path

import load
import numpy as np

BATCH, MADE_SIDE = 64, 224
SKIPPED_BYTES, MEASURED_BYTES = 540_000_000, 480_000_000
JPEGS = "images-224-crop-jpeg"
CONTENDERS = {  # name -> the function of this file, its argument, and whether the pixels are warm
    "mapped, warm": ("podium_batches", "mapped", True),
    "mapped, cold": ("podium_batches", "mapped", False),
    "read, warm": ("podium_batches", "rows", True),
    "read, cold": ("podium_batches", "rows", False),
    "read in blocks, cold": ("podium_batches", "blocks", False),
    "np.memmap, PyTorch's loader, 2 workers, cold": ("memmap_batches", "2", False),
    "JPEGs, warm": ("podium_batches", "jpegs", True),
    "JPEGs, cold": ("podium_batches", "jpegs", False),
    "JPEG files, PyTorch's loader, 2 workers": ("jpeg_batches", "2", False),
    "mapped, warm, training": ("podium_steps", "mapped", True),
    "read, cold, training": ("podium_steps", "rows", False),
    "JPEGs, cold, training": ("podium_steps", "jpegs", False),
    "read in blocks, cold, training": ("podium_steps", "blocks", False),
}


def stored_file(name: str = "images-224-crop") -> Path:
    return next(Path(".cache", load.NAME).glob(f"*/{name}.npy"))


def map_pixels(side: int) -> np.memmap:
    """The mapped file, as images (n, side, side, 3)."""
    images = np.load(stored_file(), mmap_mode="r")
    shape = (images.nbytes // (3 * side**2), side, side, 3)
    return np.memmap(stored_file(), np.uint8, "r", images.offset, shape)


# What a process of its own runs, in the folder of the project.
def podium_batches(kind: str, side: int) -> Iterable:
    """Podium's loader: of the mapped file, or reading it with all rows or blocks shuffled."""
    from podium.training.batches.loader import TrainingLoader
    from podium.training.batches.stores import Normalisation

    return TrainingLoader(*podium_data(kind, side), normalisation=Normalisation((0.5,) * 3, (0.5,) * 3))


def podium_data(kind: str, side: int) -> tuple:
    """A recipe, and the data of its fit."""
    import torch

    from podium.config.keys import Augment, Recipe
    from podium.data.cache import load_dataset
    from podium.data.image_file import ImageFile
    from podium.training.batches.stores import FitData, PixelStore

    torch.set_num_threads(1)
    images = load_dataset(stored_file(JPEGS)).images if kind == "jpegs" else map_pixels(side)
    keys = {"augment": Augment(flip="horizontal", shift_pixels=4), "shuffle": "blocks" if kind == "blocks" else "rows"}
    recipe = Recipe(architecture="resnet34", epochs=1, batch_size=BATCH, stored_pixels=side, **keys)
    images, rows = ImageFile(images) if kind in ("rows", "blocks") else images, np.arange(len(images))
    store = PixelStore(images, torch.device("cpu"))
    return recipe, FitData(store, rows % 10, 10, rows, np.arange(0), seed=1)


def memmap_batches(workers: str, side: int) -> Iterable:
    """PyTorch's loader with torchvision's flip, shift and normalisation, of a mapped file."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset):
        def __init__(self):
            self.images, self.change = map_pixels(side), _transform(side)

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, row: int) -> tuple:
            return self.change(torch.from_numpy(self.images[row].copy()).permute(2, 0, 1)), row % 10

    return DataLoader(Rows(), batch_size=BATCH, shuffle=True, num_workers=int(workers))


def jpeg_batches(workers: str, side: int) -> Iterable:
    """PyTorch's loader with torchvision's folder, flip, shift and normalisation."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    images = ImageFolder(Path("data", load.NAME, "train"), v2.Compose([v2.ToImage(), _transform(side)]))
    return DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=int(workers))


def _transform(side: int) -> Callable:
    import torch
    from torchvision.transforms import v2

    shift = v2.RandomCrop(side, padding=4, padding_mode="reflect")
    scaled = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    return v2.Compose([v2.RandomHorizontalFlip(), shift, *scaled])


def podium_steps(kind: str, side: int) -> Iterator:
    """The images of each step of a training by Podium's learner: ResNet-10-T at 64 pixels, one thread."""
    from podium.training.learner import Learner, prepare_network

    recipe, data = podium_data(kind, side)
    keys = {"architecture": "timm:resnet10t", "training_pixels": 64, "learning_rate": 0.01, "optimiser": "sgd"}
    recipe = replace(recipe, **keys)
    learner = Learner(prepare_network(recipe, data, root=Path()), data)
    learner.network.train()
    for images, targets in learner.loader:
        learner.step(images, targets)
        yield images, targets


def measure_batches(function: str, argument: str, side: str, is_warm: str) -> None:
    """Print images/s, CPU milliseconds an image, and MB of the largest process."""
    skipped, images = (size // (3 * int(side) ** 2) // BATCH * BATCH for size in (SKIPPED_BYTES, MEASURED_BYTES))
    if function == "podium_steps":  # the disk has time
        skipped = images = images // BATCH // 2 * BATCH
    if is_warm == "True":  # the same images in the same order, by a loader of the same seed
        consume(iter(podium_batches(argument, int(side))), skipped + images)
    else:
        for name in ("images-224-crop", JPEGS):
            with stored_file(name).open() as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    iterator, cpu = iter(globals()[function](argument, int(side))), sum(os.times()[:4])
    consume(iterator, skipped)
    started = time.perf_counter()
    consume(iterator, images)
    speed = images / (time.perf_counter() - started)
    del iterator  # ends its processes, so that their CPU time is known
    cpu = 1000 * (sum(os.times()[:4]) - cpu) / (skipped + images)
    usages = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(speed, cpu, max(usage.ru_maxrss for usage in usages) / 1000)


def make_images(folder: Path, count: int, photos: Path | None) -> None:
    """Prepare so many images at 224 pixels, as pixels and as JPEGs; random boxes of photos where there are any."""
    from PIL import Image

    load.make(folder, "make_pixels", 100 if photos else count)
    files, draw = sorted(photos.resolve().rglob("*.jpg")) if photos else [], np.random.default_rng(0)
    for row in range(count if photos else 0):  # in place of the hundred
        image = Image.open(files[row % len(files)]).convert("RGB")
        side = int(min(image.size) * draw.uniform(0.7, 1))
        left, top = (int(draw.integers(0, size - side + 1)) for size in image.size)
        target = folder / "data" / load.NAME / "train" / f"class{row % 10}" / f"{row}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.crop((left, top, left + side, top + side)).save(target, quality=95)
    recipe = folder / "competitions" / load.NAME / "net0.toml"
    recipe.with_name("net1.toml").write_text(recipe.read_text() + 'stored_format = "jpeg"\n')
    assert load.measure(load.podium("prepare"), folder).status == 0


def consume(batches: Iterator, images: int) -> None:
    """Take the batches of so many images."""
    for _ in islice(batches, images // BATCH):
        pass


def print_quality(rows: int, side: int, classes: int = 1000) -> None:
    """Both orders of a file of so many rows, sorted by class: means over three epochs."""
    import torch

    from podium.config.keys import Recipe
    from podium.data.image_file import block_rows
    from podium.training.batches.loader import TrainingLoader
    from podium.training.batches.stores import FitData, Normalisation

    store = type("Store", (), {"__len__": lambda _: rows, "pixels": (side, side), "device": torch.device("cpu")})()
    print("| order | correlation with the file | distance / rows | classes in a batch | blocks | variance |")
    for shuffle in ("rows", "blocks"):
        recipe = Recipe(architecture="resnet34", epochs=1, batch_size=BATCH, stored_pixels=side, shuffle=shuffle)
        data = FitData(store, np.arange(rows) * classes // rows, classes, np.arange(rows), np.arange(0), seed=1)
        loader, columns = TrainingLoader(recipe, data, normalisation=Normalisation((0.5,) * 3, (0.5,) * 3)), []
        for _ in range(3):
            order = loader._epoch_order().numpy()
            batches = order[: rows // BATCH * BATCH].reshape(-1, BATCH)
            labels, blocks = data.labels[batches], batches // block_rows(3 * side**2)
            counts = np.stack([np.bincount(batch, minlength=classes) for batch in labels])
            distinct = [np.mean([len(np.unique(batch)) for batch in values]) for values in (labels, blocks)]
            variance = counts.var(axis=0).sum() / (BATCH * (1 - 1 / classes))  # 1 where each image is drawn alone
            place = np.arange(rows)
            columns.append(
                [abs(np.corrcoef(order, place)[0, 1]), abs(order - place).mean() / rows, *distinct, variance]
            )
        print("| " + " | ".join([shuffle, *(f"{value:.3f}" for value in np.mean(columns, axis=0))]) + " |")


def print_accuracy(seeds: int) -> None:
    """Accuracy of a small fastnet on 4,000 of CIFAR-10's training rows, after 8,000 others sorted by class."""
    import torch

    from podium.config.keys import Augment, FastNet, Recipe
    from podium.data import image_file
    from podium.data.cache import open_images
    from podium.training.batches.stores import FitData, PixelStore
    from podium.training.checkpoint import Checkpoint
    from podium.training.inference import logits_of
    from podium.training.learner import fit_network
    from podium.training.progress import Listener, ProgressRecorder
    from podium.workspace import open_workspace

    torch.set_num_threads(1)
    workspace = open_workspace("cifar10", load.ROOT)
    lock, dataset = workspace.lock, open_images(workspace.paths, workspace.lock, pixels=32, shape="crop")
    rows = np.random.default_rng(0).permutation(np.flatnonzero(lock.folds < 0))[:12_000]
    rows[:8000] = rows[:8000][np.argsort(lock.train_labels[rows[:8000]], kind="stable")]
    store, labels = PixelStore(dataset.train_images[rows], torch.device("cpu")), lock.train_labels[rows]
    image_file.BLOCK_BYTES, image_file.WINDOW_BYTES = 4 * 3072, 400 * 3072
    keys = {"epochs": 4, "batch_size": 125, "optimiser": "muon", "muon_rate": 0.04, "learning_rate": 0.05}
    keys |= {"bias_ratio": 8.0, "schedule": "triangular", "label_smoothing": 0.1, "architecture": "fastnet"}
    keys |= {"fastnet": FastNet(widths=(32, 64, 64)), "augment": Augment(flip="alternating", shift_pixels=2)}
    for seed, shuffle in product(range(1, seeds + 1), ("rows", "blocks")):
        data = FitData(store, labels, 10, np.arange(8000), np.arange(8000, 12_000), seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            progress = ProgressRecorder(Listener(), images=32_000, checkpoint=Checkpoint(Path(folder, "c")))
            network = fit_network(Recipe(shuffle=shuffle, **keys), data, root=Path(), progress=progress)
        logits = logits_of(network, store, data.validation_rows)
        print(seed, shuffle, (logits.argmax(axis=1) == labels[8000:]).mean(), flush=True)


def print_difference(files: list[Path]) -> None:
    """How the predictions in the second file differ from those in the first, with 95 % intervals over the rows."""
    from scipy.special import log_softmax

    scores, classes = [], []
    for file in files:
        with np.load(file) as run:
            logits, labels, ids = (run[f"oof_{name}"] for name in ("logits", "labels", "ids"))
        classes.append(logits.argmax(axis=1))
        losses = -log_softmax(logits.astype(float), axis=1)[np.arange(len(labels)), labels]
        scores.append({"ids": ids, "right": (classes[-1] == labels).astype(float), "log loss": losses})
    assert np.array_equal(scores[0].pop("ids"), scores[1].pop("ids"))
    print(f"another class: {(classes[0] != classes[1]).sum()} of {len(classes[0])}")
    for name, values in scores[0].items():
        gaps = scores[1][name] - values
        interval = 1.96 * gaps.std(ddof=1) / len(gaps) ** 0.5
        print(f"{name}: {values.mean():.4f}, {scores[1][name].mean():.4f}; {gaps.mean():+.4f} +- {interval:.4f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--images", type=int, default=load.SIZES["pixels"])
    arguments.add_argument("--side", type=int, default=MADE_SIDE)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--photos", type=Path)
    arguments.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments.add_argument("--quality", action="store_true")
    arguments.add_argument("--accuracy", type=int, metavar="SEEDS")
    arguments.add_argument("--compare", type=Path, nargs=2, metavar="NPZ", help="predictions of two runs")
    arguments.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        measure_batches(*options.child)
        return
    if options.compare:
        print_difference(options.compare)
        return
    if options.accuracy:
        print_accuracy(options.accuracy)
        return
    if options.quality:
        print_quality(options.images, options.side)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / ".cache").is_dir():
            make_images(folder, options.images, options.photos)
        for file in sorted(folder.glob(f".cache/{load.NAME}/*/images-*.npy")):
            print(f"{file.name}: {file.stat().st_size:,} bytes")
        found: dict[str, list[list[float]]] = {name: [] for name in options.only}
        for turn, name in product(range(options.turns), options.only):
            function, argument, is_warm = CONTENDERS[name]
            command = [*load.child("", "")[:3], __file__, "--child", function, argument, options.side, is_warm]
            done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=True)
            found[name].append([float(value) for value in done.stdout.split()])
            print(turn, name, *found[name][-1], f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print("| batches | images/s | of the first | CPU ms an image | resident MB |\n|" + " --- |" * 5)
    for name, values in found.items():
        speed, cpu, memory = (statistics.median(column) for column in zip(*values, strict=True))
        first = next(other for other in found if CONTENDERS[other][0] == "podium_steps" or "training" not in name)
        ratios = [own[0] / other[0] for own, other in zip(values, found[first], strict=True)]
        print(f"| {name} | {speed:,.0f} | {statistics.median(ratios):.2f} | {cpu:.2f} | {memory:,.0f} |")


if __name__ == "__main__":
    main()
