"""Where batches are gathered from: decoded images on the device, or memory-mapped."""

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from podium.data.cache import Dataset

# Images may use this share of the free GPU memory; the network needs the rest.
RESIDENT_SHARE = 0.4


class PixelStore:
    """All train images, or all test images, (n, height, width, 3) uint8, from which batches are gathered.

    Images that do not fit into a GPU's memory stay memory-mapped, and each batch is copied to the GPU. `origin` is the
    dataset and the part of which these are all images; their features are then kept in the cache.
    """

    def __init__(self, images: np.ndarray, device: torch.device, *, origin: tuple[Dataset, str] | None = None):
        self.array, self.device, self.pixels, self.origin = images, device, images.shape[1:3], origin
        tensor = _as_tensor(images)
        self.resident = device.type == "cpu" or _fits(images.nbytes, device)
        self.images = tensor.to(device) if self.resident else tensor
        self.features: np.ndarray | None = None  # (n, channels) of a frozen body; NaN where not computed yet

    def __len__(self) -> int:
        return len(self.images)

    def gather(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        """Images (n, height, width, 3) of `rows` (n,); `positions` (n, height, width): which pixel comes from where."""
        if not self.resident:
            images = self.images[rows.cpu()].to(self.device, non_blocking=True)
            rows = torch.arange(len(rows), device=self.device)
        else:
            images = self.images
        if positions is None:
            return images.index_select(0, rows)
        positions = (rows[:, None, None] * math.prod(self.pixels) + positions).flatten()
        return images.view(-1, 3).index_select(0, positions).view(len(rows), *self.pixels, 3)


class ExtendedStore:
    """The images of a store, then some rows of another: test images with pseudo-labels."""

    def __init__(self, labelled: PixelStore, others: PixelStore, other_rows: np.ndarray):
        self.labelled, self.others = labelled, others
        self.array, self.device, self.pixels = labelled.array, labelled.device, labelled.pixels
        self.other_rows = torch.as_tensor(other_rows, device=self.device)

    def __len__(self) -> int:
        return len(self.labelled) + len(self.other_rows)

    def gather(self, rows: Tensor, positions: Tensor | None = None) -> Tensor:
        """Images of `rows`, as a store's `gather` gives them."""
        images = torch.empty((len(rows), *self.pixels, 3), dtype=torch.uint8, device=self.device)
        for store, places, rows_in_store in self.split(rows):
            images[places] = store.gather(rows_in_store, None if positions is None else positions[places])
        return images

    def split(self, rows: Tensor) -> Iterator[tuple[PixelStore, Tensor, Tensor]]:
        """Each of both stores, which of the `rows` (n,) are in it, (n,) bool, and their rows in it."""
        is_labelled = rows < len(self.labelled)
        yield self.labelled, is_labelled, rows[is_labelled]
        yield self.others, ~is_labelled, self.other_rows[rows[~is_labelled] - len(self.labelled)]


def _as_tensor(images: np.ndarray) -> Tensor:
    # torch warns that the cache is mapped read-only, which it is on purpose.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(images))


def _fits(size_bytes: int, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return size_bytes < free * RESIDENT_SHARE
