"""Logits of images by a trained network: used for validation, test and new images."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# `test_time_augmentation` -> views of each image.
VIEWS = {"none": 1, "flip": 2, "flip-and-shift": 6}


def predict_logits(network: nn.Module, loader: Iterable, *, views: str) -> np.ndarray:
    """Logits (n, classes) float32 of the loader's rows in its order, averaged over the `views` of each image."""
    network.eval()
    batches = []
    with torch.inference_mode():
        for images, *_ in loader:
            logits = sum(weight * network(view) for weight, view in _views(images, views))
            batches.append(logits.cpu())
    return torch.cat(batches).numpy()


def _views(images: Tensor, views: str) -> list[tuple[float, Tensor]]:
    """Views of (n, 3, h, w) images with their weights, which sum to 1."""
    if views == "none":
        return [(1.0, images)]
    mirrored = [(0.5, images), (0.5, images.flip(3))]
    if views == "flip":
        return mirrored
    # airbench's six views: not shifted, shifted by a pixel up-left and down-right; each of them mirrored too.
    height, width = images.shape[2:]
    has_neighbours = min(height, width) > 1
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect" if has_neighbours else "replicate")
    shifted = [padded[:, :, :height, :width], padded[:, :, 2:, 2:]]
    return [(0.5 * weight, view) for weight, view in mirrored] + [
        (0.125, view) for images in shifted for view in (images, images.flip(3))
    ]
