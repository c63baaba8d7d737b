"""The loader that makes whole training batches on the device, without worker processes or work per image.

All decoded images are one uint8 array: in a GPU's memory where they fit, on a CPU the memory-mapped file. Of larger
ones, a thread reads each batch ahead. A batch is one gather of pixels (which also shifts and flips), one conversion to
float, and the recipe's augmentation.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from podium.config.keys import Recipe
from podium.data.image_file import block_rows, window_rows
from podium.errors import TrainingError
from podium.seeding import stream_seed
from podium.training.batches import augment
from podium.training.batches.stores import Batch, FitData, Normalisation, Normaliser
from podium.training.ranks import ALONE, Ranks

# The random streams of a loader.
STREAMS = ("order", "draws", "torchvision")


class TrainingLoader:
    """Rows in a new order each epoch, augmented by the recipe: batches of (images, targets), one for each step.

    Batch sizes differ by at most one, so that no row is dropped and no batch is tiny. Targets are labels (n,), or
    shares (n, classes) where images are mixed. Order and augmentation have a random stream each.

    With a `hard_share` below 1, a batch is selected from a longer part of the order: the rows with the largest last
    loss (arXiv:1511.06343); a row that was never trained on comes first. `record_losses` sets the losses. A skipped
    row keeps its last loss, so it is selected again once the other losses drop below it.

    With several `ranks`, each has its part of every batch, and the same streams: what is drawn for an image is the same
    in whichever process it is. Only torchvision, which draws once for many images, gets a stream of its own in each.
    """

    def __init__(self, recipe: Recipe, data: FitData, *, normalisation: Normalisation, ranks: Ranks = ALONE):
        self.recipe, self.pixels, self.store, self.device = recipe, recipe.network_pixels, data.store, data.store.device
        self.rows = torch.as_tensor(data.training_rows, dtype=torch.int64, device=self.device)
        self.labels = torch.as_tensor(data.targets, device=self.device)
        self.images = recipe.images_per_epoch(len(self.rows))
        # Batch norm cannot be trained on one image.
        self.ranks, most = ranks, self.images // (2 * ranks.count)
        if not most and ranks.count > 1:
            expected, fix = f"{2 * ranks.count} or more", "fewer processes in the recipe"
            raise TrainingError("Too few training images.", expected=expected, found=str(self.images), fix=fix)
        self.batches = max(1, min(-(-self.images // recipe.images_per_step), most))

        def stream(name: str, device: torch.device = self.device) -> torch.Generator:
            return torch.Generator(device).manual_seed(data.stream(name))

        # What changes while the loader is used: its random streams, and what is known of each image of the store.
        self.order, self.draws = stream("order"), stream("augment")
        self.torchvision = stream("torchvision", torch.device("cpu"))
        self.losses = torch.full((len(self.store),), float("inf"), device=self.device)  # the last loss
        self.mirrored: Tensor | None = None  # whether it is mirrored next, if flips alternate
        if recipe.augment.flip == "alternating":
            self.mirrored = torch.rand(len(self.store), generator=stream("flip"), device=self.device) < 0.5
        self.last_rows = self.rows[:0]  # of the last batch, in all processes
        self.seed_of_batch = 0  # of what each process draws for itself
        self.epoch_order, self.position = self.rows[:0], 0  # of the present epoch, and its next batch

        self.transform = augment.pixel_transform(recipe.augment, normalisation.mean)
        self.erase = v2.RandomErasing(recipe.augment.erase)
        self.mix = augment.mixing_transform(recipe.mixup, recipe.cutmix, classes=data.classes)
        self.normalise = Normaliser(normalisation, self.store)
        self.raw = Normaliser(Normalisation((0.0,) * 3, (1.0,) * 3), self.store)
        self.mean = torch.tensor(normalisation.mean, device=self.device).view(1, 3, 1, 1)
        self.deviation = torch.tensor(normalisation.deviation, device=self.device).view(1, 3, 1, 1)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, or those that are left of it after `load_state_dict`."""
        if self.position == 0:
            self.epoch_order = self._epoch_order()
        sizes = [len(part) for part in torch.arange(self.images).tensor_split(self.batches)]
        parts = [self.rows[part] for part in self.epoch_order.tensor_split(self.batches)][self.position :]
        selects = self.images < len(self.epoch_order)  # else each process reads its own images only
        read = parts if selects else [rows[self.ranks.own(len(rows))] for rows in parts]
        for images, rows, size in zip(self.store.batches(read), parts, sizes[self.position :], strict=True):
            self.position += 1
            if size < len(rows):
                places = self.losses[rows].topk(size).indices
                if self.mix:  # which pairs neighbours: not those with the nearest losses
                    places = places[torch.randperm(size, generator=self.draws, device=self.device)]
                images, rows = images[places], rows[places]
            self.last_rows, torchvision, own = rows, self._torchvision_of_batch(), self.ranks.own(len(rows))
            batch = self._augmented(images[own] if selects else images, rows, torchvision), self.labels[rows[own]]
            if self.mix:
                with augment.torchvision_draws(torchvision):
                    batch = self.mix(*batch)
            yield batch
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        """What changes while the loader is used."""
        streams = {name: getattr(self, name).get_state() for name in STREAMS}
        return streams | {name: getattr(self, name) for name in ("losses", "mirrored", "epoch_order", "position")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another loader of the same recipe, rows and seed was when `state_dict` was called."""
        for name, value in state.items():
            if name in STREAMS:
                getattr(self, name).set_state(value)
            else:
                setattr(self, name, value.to(self.device) if isinstance(value, Tensor) else value)

    def record_losses(self, losses: Tensor) -> None:
        """Set the loss of each image of the last batch, (n,), also of those of other processes."""
        self.losses[self.last_rows] = losses

    def _epoch_order(self) -> Tensor:
        """Indices of `rows` in a random order: each once, or as many, of which each class has equally many (± 1)."""
        if self.recipe.shuffle == "blocks":
            return self._block_order()
        if self.recipe.sampling == "all":
            return torch.randperm(len(self.rows), generator=self.order, device=self.device)
        labels, draws = self.labels[self.rows].flatten(), {"generator": self.order, "device": self.device}
        classes = labels.unique()
        per_class = -(-len(labels) // len(classes))
        drawn = torch.empty(len(classes), per_class, dtype=torch.int64, device=self.device)
        for number, label in enumerate(classes):
            own = (labels == label).nonzero().flatten()
            passes = torch.rand(-(-per_class // len(own)), len(own), **draws).argsort(dim=1)  # each a permutation
            drawn[number] = own[passes.flatten()[:per_class]]
        order = drawn[torch.randperm(len(classes), **draws)].T.flatten()[: len(labels)]  # one of each class in turn
        return order[torch.randperm(len(labels), **draws)]

    def _block_order(self) -> Tensor:
        """Indices of `rows`, each once: blocks of the file in a random order, in which rows are mixed over a window.

        Row i of this order gets the key i + u * window with u uniform in [0, 1), and the keys are sorted. At each time,
        the rows of one window or less are in use, so that the blocks can be read one after the other.
        """
        draws, row_bytes = {"generator": self.order, "device": self.device}, 3 * math.prod(self.store.pixels)
        blocks = self.rows // block_rows(row_bytes)
        read_order = torch.randperm(int(blocks.max()) + 1, **draws)[blocks].argsort(stable=True)
        shifts = torch.rand(len(read_order), dtype=torch.float64, **draws) * window_rows(row_bytes)
        return read_order[(torch.arange(len(read_order), device=self.device) + shifts).argsort()]

    def _torchvision_of_batch(self) -> torch.Generator:
        """The stream of torchvision; with several processes one of this process for this batch."""
        if self.ranks.count == 1:
            return self.torchvision
        shared = int(torch.randint(1 << 62, (), generator=self.torchvision))
        self.seed_of_batch = stream_seed(shared, f"rank {self.ranks.rank}")
        return torch.Generator().manual_seed(self.seed_of_batch)

    def _augmented(self, batch: Batch, rows: Tensor, torchvision: torch.Generator) -> Tensor:
        """The images of this process's part `batch` of all `rows` of a batch."""
        keys, own = self.recipe.augment, self.ranks.own(len(rows))
        draws = {"augment": keys, "draws": augment.Draws(self.draws, own.start, len(rows) - own.stop)}
        positions = flipped = None
        if self.mirrored is not None:
            flipped = self.mirrored[rows]
            self.mirrored[rows] = ~flipped
            flipped = flipped[own]
        if keys.shift_pixels or keys.flip != "none":
            positions = augment.shifted_positions(len(batch.rows), self.store.pixels, flipped=flipped, **draws)
        images = batch.gather(positions)
        if self.transform:
            images = augment.apply_in_parts(self.transform, images.permute(0, 3, 1, 2), generator=torchvision)
            images = images.permute(0, 2, 3, 1)
        if keys.brightness or keys.contrast:
            images = (augment.change_light(self.raw(images), **draws) - self.mean) / self.deviation
        else:
            images = self.normalise(images)
        if keys.rotate_degrees or keys.zoom > 1:
            images = augment.rotate_and_zoom(images, **draws)
        if keys.crop < 1:
            images = augment.random_crop(images, self.pixels, **draws)
        images = augment.resize(images, self.pixels, self.recipe.interpolation)
        images = augment.cut_out(images, **draws) if keys.cutout_pixels else images
        return augment.apply_in_parts(self.erase, images, generator=torchvision) if keys.erase else images
