"""Loaders that make whole batches on the device, without worker processes or work per image.

All decoded images are one uint8 array: in a GPU's memory where they fit, on a CPU the memory-mapped file. A batch is
one gather of pixels (which also shifts and flips), one conversion to float, and the recipe's augmentation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from podium.config.keys import Recipe
from podium.config.pixels import Pixels, height_and_width
from podium.seeding import stream_seed
from podium.targets.target import CLASS, Target
from podium.training.batches.augment import (
    apply_in_parts,
    change_light,
    cut_out,
    mixing_transform,
    pixel_transform,
    random_crop,
    resize,
    rotate_and_zoom,
    shifted_positions,
    torchvision_draws,
)
from podium.training.batches.stores import ExtendedStore, PixelStore

# At most so many images are predicted at once; on a CPU, whose caches are small, at most so many of their pixels too.
EVALUATION_BATCH, EVALUATION_PIXELS = 256, 32 * 128**2


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each colour, where 255 is 1."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


def measure_normalisation(images: np.ndarray, rows: np.ndarray, *, most: int = 10_000) -> Normalisation:
    """Mean and deviation over at most `most` of the `rows`, evenly spaced, of (n, h, w, 3) uint8 images."""
    rows = rows[:: max(1, -(-len(rows) // most))]
    counts = np.zeros((3, 256))
    for part in np.array_split(rows, max(1, len(rows) // 500)):
        pixels = images[part].reshape(-1, 3)
        counts += [np.bincount(pixels[:, colour], minlength=256) for colour in range(3)]
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    deviation = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 1e-6))
    return Normalisation(tuple(mean.tolist()), tuple(deviation.tolist()))


@dataclass(frozen=True)
class FitData:
    """The images and labels of one fit, and which rows train and which validate."""

    store: PixelStore | ExtendedStore
    labels: np.ndarray  # (n,) int64, or as the target has them
    classes: int  # outputs of the network
    training_rows: np.ndarray
    validation_rows: np.ndarray  # empty for a refit
    target: Target = CLASS

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


class _Loader:
    """Base class of both loaders, with the attributes that fastai needs."""

    def __init__(self, store: PixelStore | ExtendedStore, rows: np.ndarray, labels: np.ndarray | None, batch_size: int):
        self.store, self.device = store, store.device
        self.rows = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
        self.labels = None if labels is None else torch.as_tensor(labels, device=self.device)
        self.batches = max(1, -(-len(rows) // batch_size))

    def __len__(self) -> int:
        return self.batches

    @property
    def dataset(self) -> Tensor:
        """The rows of this loader; fastai only needs their number."""
        return self.rows


def evaluation_batch(pixels: Pixels, device: torch.device) -> int:
    """How many images of `pixels` are predicted at once."""
    most = EVALUATION_PIXELS // math.prod(height_and_width(pixels))
    return min(EVALUATION_BATCH, max(1, most)) if device.type == "cpu" else EVALUATION_BATCH


class EvaluationLoader(_Loader):
    """Rows in order, resized and normalised: batches of (images, labels), or (images,) without `labels`."""

    def __init__(
        self,
        store: PixelStore | ExtendedStore,
        rows: np.ndarray,
        recipe: Recipe,
        *,
        normalisation: Normalisation,
        labels: np.ndarray | None = None,
        batch_size: int = EVALUATION_BATCH,
    ):
        self.pixels, self.interpolation = recipe.network_pixels, recipe.interpolation
        super().__init__(store, rows, labels, min(batch_size, evaluation_batch(self.pixels, store.device)))
        self.normalise = _Normaliser(normalisation, store.pixels[1], self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield each batch once, in order."""
        for part in torch.arange(len(self.rows), device=self.device).tensor_split(self.batches):
            rows = self.rows[part]
            images = resize(self.normalise(self.store.gather(rows)), self.pixels, self.interpolation)
            yield (images,) if self.labels is None else (images, self.labels[rows])


class TrainingLoader(_Loader):
    """Rows in a new order each epoch, augmented by the recipe: batches of (images, targets), one for each step.

    Batch sizes differ by at most one, so that no row is dropped and no batch is tiny. Targets are labels (n,), or
    shares (n, classes) where images are mixed. Order and augmentation have a random stream each.

    With a `hard_share` below 1, a batch is selected from a longer part of the order: the rows with the largest last
    loss (arXiv:1511.06343); a row that was never trained on comes first. `record_losses` sets the losses. A skipped
    row keeps its last loss, so it is selected again once the other losses drop below it.
    """

    def __init__(self, recipe: Recipe, data: FitData, *, normalisation: Normalisation, seed: int, purpose: str = ""):
        store, rows = data.store, data.training_rows
        super().__init__(store, rows, data.targets, recipe.images_per_step)
        self.images = recipe.images_per_epoch(len(rows))
        # Batch norm cannot be trained on one image.
        self.batches = max(1, min(-(-self.images // recipe.images_per_step), self.images // 2))
        self.recipe, self.pixels, self.scale = recipe, recipe.network_pixels, data.scale
        self.order = self._generator(seed, f"order{purpose}")
        self.draws = self._generator(seed, f"augment{purpose}")
        self.torchvision = torch.Generator().manual_seed(stream_seed(seed, f"torchvision{purpose}"))
        self.transform = pixel_transform(recipe.augment, normalisation.mean)
        self.erase = v2.RandomErasing(recipe.augment.erase)
        self.mix = mixing_transform(recipe.mixup, recipe.cutmix, classes=data.classes)
        self.losses = torch.full((len(store),), float("inf"), device=self.device)  # last loss of each image
        self.last_rows = self.rows[:0]  # of the last batch
        self.mirrored: Tensor | None = None  # (len(store),): whether each image is mirrored next, if alternating
        if recipe.augment.flip == "alternating":
            coins = torch.rand(len(store), generator=self._generator(seed, f"flip{purpose}"), device=self.device)
            self.mirrored = coins < 0.5
        self.normalise = _Normaliser(normalisation, store.pixels[1], self.device)
        self.raw = _Normaliser(Normalisation((0.0,) * 3, (1.0,) * 3), store.pixels[1], self.device)
        self.mean = torch.tensor(normalisation.mean, device=self.device).view(1, 3, 1, 1)
        self.deviation = torch.tensor(normalisation.deviation, device=self.device).view(1, 3, 1, 1)

    def _generator(self, seed: int, purpose: str) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(stream_seed(seed, purpose))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch."""
        order = self._epoch_order()
        sizes = [len(part) for part in torch.arange(self.images).tensor_split(self.batches)]
        for part, size in zip(order.tensor_split(self.batches), sizes, strict=True):
            rows = self.rows[part]
            if size < len(rows):
                rows = rows[self.losses[rows].topk(size).indices]
                if self.mix:  # which pairs neighbours: not those with the nearest losses
                    rows = rows[torch.randperm(size, generator=self.draws, device=self.device)]
            self.last_rows = rows
            batch = self._augmented(rows), self.labels[rows]
            if self.mix:
                with torchvision_draws(self.torchvision):
                    batch = self.mix(*batch)
            yield batch

    def _epoch_order(self) -> Tensor:
        """Indices of `rows` in a random order: each once, or as many, of which each class has equally many (± 1)."""
        if self.recipe.sampling == "all":
            return torch.randperm(len(self.rows), generator=self.order, device=self.device)
        labels, draws = self.labels[self.rows], {"generator": self.order, "device": self.device}
        classes = labels.unique()
        per_class = -(-len(labels) // len(classes))
        drawn = torch.empty(len(classes), per_class, dtype=torch.int64, device=self.device)
        for number, label in enumerate(classes):
            own = (labels == label).nonzero().flatten()
            passes = torch.rand(-(-per_class // len(own)), len(own), **draws).argsort(dim=1)  # each a permutation
            drawn[number] = own[passes.flatten()[:per_class]]
        order = drawn[torch.randperm(len(classes), **draws)].T.flatten()[: len(labels)]  # one of each class in turn
        return order[torch.randperm(len(labels), **draws)]

    def record_losses(self, losses: Tensor) -> None:
        """Set the loss of each image of the last batch, (n,)."""
        self.losses[self.last_rows] = losses

    def _augmented(self, rows: Tensor) -> Tensor:
        augment, draws = self.recipe.augment, self.draws
        positions = None
        if augment.shift_pixels or augment.flip != "none":
            flipped = None
            if self.mirrored is not None:
                flipped = self.mirrored[rows]
                self.mirrored[rows] = ~flipped
            positions = shifted_positions(
                len(rows), self.store.pixels, augment=augment, generator=draws, flipped=flipped
            )
        gathered = self.store.gather(rows, positions)
        if self.transform:
            moved = apply_in_parts(self.transform, gathered.permute(0, 3, 1, 2), generator=self.torchvision)
            gathered = moved.permute(0, 2, 3, 1)
        if augment.brightness or augment.contrast:
            images = change_light(self.raw(gathered), augment=augment, generator=draws)
            images = (images - self.mean) / self.deviation
        else:
            images = self.normalise(gathered)
        if augment.rotate_degrees or augment.zoom > 1:
            images = rotate_and_zoom(images, augment=augment, generator=draws)
        if augment.crop < 1:
            images = random_crop(images, self.pixels, augment=augment, generator=draws)
        images = resize(images, self.pixels, self.recipe.interpolation)
        images = cut_out(images, augment=augment, generator=draws) if augment.cutout_pixels else images
        return apply_in_parts(self.erase, images, generator=self.torchvision) if augment.erase else images


class _Normaliser:
    """(n, height, width, 3) uint8 -> normalised (n, 3, height, width) float32, channels last in memory."""

    def __init__(self, normalisation: Normalisation, width: int, device: torch.device):
        mean = torch.tensor(normalisation.mean, dtype=torch.float64)
        deviation = torch.tensor(normalisation.deviation, dtype=torch.float64)
        # The constants are repeated for a whole line of pixels: several times faster than broadcasting three.
        self.scale = (1 / (255 * deviation)).float().repeat(width).to(device)
        self.offset = (-mean / deviation).float().repeat(width).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        lines = images.reshape(-1, len(self.scale)).float()
        return lines.mul_(self.scale).add_(self.offset).view(images.shape).permute(0, 3, 1, 2)
