"""The images and labels of a fit: decoded images on the device, memory-mapped or read ahead, batch by batch."""

import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from podium.config.keys import Recipe
from podium.data.cache import ROWS_PER_BLOCK, Dataset, open_images
from podium.data.image_file import ImageFile
from podium.data.jpeg_file import JpegFile
from podium.data.labels import KnownLabels
from podium.lock import Lock
from podium.plan.runs import PlannedRun
from podium.seeding import stream_seed
from podium.targets.target import CLASS, Target
from podium.training.device import pick_device
from podium.workspace import Workspace

# Images may use this share of the free GPU memory; the network needs the rest.
RESIDENT_SHARE = 0.4
# On a CPU, decoded images of so many bytes are mapped, and stay in memory while it has space; larger ones are read.
MAPPED_BYTES = 2 << 30
# Batches that are read before they are used.
PARTS_AHEAD = 3


@dataclass(frozen=True)
class Batch:
    """The images of `rows` (k,), of images (n, height, width, 3) uint8 on the device, before they are gathered."""

    images: Tensor
    rows: Tensor

    def __getitem__(self, places: Tensor | slice) -> "Batch":
        return Batch(self.images, self.rows[places])

    def gather(self, positions: Tensor | None = None) -> Tensor:
        """The images (k, height, width, 3); `positions` (k, height, width): which pixel comes from where."""
        if positions is None:
            return self.images.index_select(0, self.rows)
        pixels = self.images.shape[1:3]
        positions = (self.rows[:, None, None] * math.prod(pixels) + positions).flatten()
        return self.images.view(-1, 3).index_select(0, positions).view(len(self.rows), *pixels, 3)


class PixelStore:
    """All train images, or all test images, (n, height, width, 3) uint8, from which batches are gathered.

    An ImageFile is read batch by batch, unless it fits into a GPU's memory. `origin` is the dataset and the part of
    which these are all images; their features are then kept in the cache.
    """

    def __init__(
        self, images: np.ndarray | ImageFile, device: torch.device, *, origin: tuple[Dataset, str] | None = None
    ):
        self.array, self.device, self.pixels, self.origin = images, device, images.shape[1:3], origin
        self.images = _on_device(images, device)  # None: each batch is read
        self.features: np.ndarray | None = None  # (n, channels) of a frozen body, with an origin
        self.metadata: np.ndarray | None = None  # (n, columns) of numbers and texts, which a head on features gets too

    def __len__(self) -> int:
        return len(self.array)

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the images of each of the parts of rows (k,); a thread reads those that are not on the device ahead."""
        if self.images is not None:
            yield from (Batch(self.images, rows) for rows in parts)
            return
        rows, ahead = [part.cpu().numpy() for part in parts], deque()
        read_part = self.array.reader(rows)

        def read(part: int) -> Tensor:
            shape = (len(rows[part]), *self.pixels, 3)
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            read_part(part, images.numpy())
            return images

        with ThreadPoolExecutor(1) as thread:
            for part in range(len(parts) + PARTS_AHEAD):
                if part < len(parts):
                    ahead.append(thread.submit(read, part))
                if part >= PARTS_AHEAD:
                    images = ahead.popleft().result().to(self.device, non_blocking=True)
                    yield Batch(images, torch.arange(len(images), device=self.device))


def _on_device(images: np.ndarray | ImageFile, device: torch.device) -> Tensor | None:
    """All images on the device, mapped ones where they are; None for an ImageFile that does not fit into its memory."""
    if isinstance(images, np.ndarray):
        with warnings.catch_warnings():  # the cache is mapped read-only on purpose
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(np.asarray(images)).to(device)
    if device.type == "cpu" or images.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    tensor = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for first in range(0, len(images), ROWS_PER_BLOCK):
        rows = slice(first, first + ROWS_PER_BLOCK)
        tensor[rows] = torch.from_numpy(np.asarray(images[rows]))
    return tensor


class ExtendedStore:
    """The images of a store, then some rows of another: test images with pseudo-labels."""

    def __init__(self, labelled: PixelStore, others: PixelStore, other_rows: np.ndarray):
        self.labelled, self.others = labelled, others
        self.array, self.device, self.pixels = labelled.array, labelled.device, labelled.pixels
        self.other_rows = torch.as_tensor(other_rows, device=self.device)
        has_metadata = labelled.metadata is not None
        self.metadata = np.concatenate([labelled.metadata, others.metadata[other_rows]]) if has_metadata else None

    def __len__(self) -> int:
        return len(self.labelled) + len(self.other_rows)

    def batches(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the images of each of the parts of rows, as a store's `batches` does."""
        splits = [list(self.split(part)) for part in parts]
        labelled = self.labelled.batches([rows for (_, _, rows), _ in splits])
        others = self.others.batches([rows for _, (_, _, rows) in splits])
        for ((_, is_labelled, _), _), own, other in zip(splits, labelled, others, strict=True):
            images = torch.empty((len(is_labelled), *self.pixels, 3), dtype=torch.uint8, device=self.device)
            images[is_labelled], images[~is_labelled] = own.gather(), other.gather()
            yield Batch(images, torch.arange(len(images), device=self.device))

    def split(self, rows: Tensor) -> Iterator[tuple[PixelStore, Tensor, Tensor]]:
        """Each of both stores, which of the `rows` (n,) are in it, (n,) bool, and their rows in it."""
        is_labelled = rows < len(self.labelled)
        yield self.labelled, is_labelled, rows[is_labelled]
        yield self.others, ~is_labelled, self.other_rows[rows[~is_labelled] - len(self.labelled)]


Store = PixelStore | ExtendedStore


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each colour, where 255 is 1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


class Normaliser:
    """(n, height, width, 3) uint8 -> normalised (n, 3, height, width) float32, channels last in memory."""

    def __init__(self, normalisation: Normalisation, store: Store):
        mean = torch.tensor(normalisation.mean, dtype=torch.float64)
        deviation = torch.tensor(normalisation.deviation, dtype=torch.float64)
        # The constants are repeated for a whole line of pixels: several times faster than broadcasting three.
        self.scale = (1 / (255 * deviation)).float().repeat(store.pixels[1]).to(store.device)
        self.offset = (-mean / deviation).float().repeat(store.pixels[1]).to(store.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images of the store's width."""
        lines = images.reshape(-1, len(self.scale)).float()
        return lines.mul_(self.scale).add_(self.offset).view(images.shape).permute(0, 3, 1, 2)


def measure_normalisation(images: np.ndarray, rows: np.ndarray, *, most: int = 10_000) -> Normalisation:
    """Mean and deviation over at most `most` of the `rows`, evenly spaced, of (n, h, w, 3) uint8 images."""
    rows = every_nth(rows, most)
    counts = np.zeros((3, 256))
    for part in np.array_split(rows, max(1, len(rows) // 500)):
        pixels = images[part].reshape(-1, 3)
        counts += [np.bincount(pixels[:, colour], minlength=256) for colour in range(3)]
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    deviation = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 1e-6))
    return Normalisation(tuple(mean.tolist()), tuple(deviation.tolist()))


def every_nth(rows: np.ndarray, most: int) -> np.ndarray:
    """Every n-th of the rows, with the smallest n that gives at most `most` of them."""
    return rows[:: max(1, -(-len(rows) // most))]


@dataclass(frozen=True)
class FitData:
    """The images and labels of one fit, which rows train and which validate, and the seeds of its random streams."""

    store: Store
    labels: np.ndarray  # (n,) int64, or as the target has them
    classes: int  # outputs of the network
    training_rows: np.ndarray
    validation_rows: np.ndarray  # empty for a refit
    target: Target = CLASS
    seed: int = 0  # of the run
    name: str = ""  # which of the run's fits it is, such as fold0
    stage: str = ""  # the same for people, such as " fold 1/5"; empty where there is one fold
    parts: int = 1  # in which each batch is trained, where the memory is small

    def stream(self, purpose: str) -> int:
        """The seed of a random stream, which no other purpose and no other fit of the run has."""
        return stream_seed(self.seed, f"{purpose}/{self.name}")

    @cached_property
    def scale(self) -> tuple[float, float]:
        """What the network's outputs are multiplied by, second, and added to, first, to give logits."""
        return self.target.scale(self.labels[self.training_rows])

    @cached_property
    def targets(self) -> np.ndarray:
        """What the network is trained on, of all rows."""
        return self.target.training_targets(self.labels, self.scale)

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and deviation of the training rows without pseudo-labels, measured once."""
        return measure_normalisation(self.store.array, self.training_rows[self.training_rows < len(self.store.array)])


def open_recipe_images(workspace: Workspace, recipe: Recipe) -> Dataset:
    """The images of the lock, decoded as the recipe stores them; raises DataError where they are not in the cache."""
    pixels, shape, stored_format = recipe.storage
    dataset = open_images(workspace.paths, workspace.lock, pixels=pixels, shape=shape, stored_format=stored_format)
    is_small = pick_device().type == "cpu" and dataset.images.nbytes <= MAPPED_BYTES
    stays = is_small or isinstance(dataset.images, JpegFile)
    return dataset if stays else replace(dataset, images=ImageFile(dataset.images))


def open_stores(dataset: Dataset, *, keeps_features: bool = True) -> tuple[PixelStore, PixelStore]:
    """The labelled and the test images on the device; their features are kept in the cache with `keeps_features`."""
    return tuple(
        PixelStore(array, pick_device(), origin=(dataset, part) if keeps_features else None)
        for part, array in dataset.arrays.items()
    )


def data_of_fits(
    lock: Lock, run: PlannedRun, store: Store | None, rows: np.ndarray, pseudo: KnownLabels | None = None
) -> list[FitData]:
    """The data of the fit of each fold, then of the refit, from some `rows` (n,) of the lock.

    Rows with pseudo-labels, which the store has after those of the lock, train in every fit.
    """
    folds, labels, added = lock.folds[rows], lock.train_labels, np.arange(len(pseudo.rows) if pseudo else 0)
    labels = np.concatenate([labels, pseudo.labels]) if len(added) else labels
    numbers = np.unique(folds[folds >= 0]).tolist()
    fits = [(f"fold{k}", f" fold {k + 1}/{len(numbers)}" if len(numbers) > 1 else "", folds == k) for k in numbers]
    if run.recipe.refit:
        fits.append(("refit", " refit", np.zeros(len(rows), dtype=bool)))
    make = partial(FitData, store, labels, lock.target.outputs, target=lock.target, seed=run.seed)
    return [
        make(np.append(rows[~validates], len(lock.folds) + added), rows[validates], name=name, stage=stage)
        for name, stage, validates in fits
    ]


def first_fold(lock: Lock, run: PlannedRun, dataset: Dataset) -> FitData:
    """The data of a run's first fit, without pseudo-labels."""
    store = PixelStore(dataset.train_images, pick_device(), origin=(dataset, "train"))
    return data_of_fits(lock, run, store, np.arange(len(lock.folds)))[0]
