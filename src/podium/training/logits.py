"""Logits of rows by a trained network: the one function that validation, test and new images go through."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How many looks at an image each way of `test_time_augmentation` takes.
VIEWS = {"none": 1, "flip": 2, "flip-and-shift": 6}


def predict_logits(network: nn.Module, loader: Iterable, *, views: str, precision: torch.dtype) -> np.ndarray:
    """Logits (n, classes) float32 for the loader's rows in its order, averaged over `views` of each image."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for images, *_ in loader:
            with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                logits = sum(share * network(view).float() for share, view in _views(images, views))
            parts.append(logits.cpu())
    return torch.cat(parts).numpy()


def _views(images: Tensor, views: str) -> list[tuple[float, Tensor]]:
    """Views of (n, 3, h, w) images with their shares, which sum to 1."""
    if views == "none":
        return [(1.0, images)]
    mirrored = [(0.5, images), (0.5, images.flip(3))]
    if views == "flip":
        return mirrored
    # The six views of airbench: as it is, and a pixel up-left and down-right, each also mirrored.
    size = images.shape[-1]
    wide = F.pad(images, (1, 1, 1, 1), mode="reflect" if size > 1 else "replicate")  # a lone pixel has no neighbour
    shifted = [wide[:, :, :size, :size], wide[:, :, 2:, 2:]]
    return [(0.5 * share, view) for share, view in mirrored] + [
        (0.125, view) for moved in shifted for view in (moved, moved.flip(3))
    ]
