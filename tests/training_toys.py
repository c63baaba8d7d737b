"""Small recipes and easy images, for tests that train a network."""

from dataclasses import replace

import numpy as np
import timm
import torch
from safetensors.torch import save_file

from podium.config.keys import Augment, FastNet, Recipe
from podium.training.batches.stores import FitData, PixelStore
from podium.training.learner import help_to_fit

TINY = Recipe(
    architecture="timm:test_resnet",
    epochs=3,
    learning_rate=0.02,
    batch_size=20,
    stored_pixels=16,
    augment=Augment(flip="horizontal", shift_pixels=1),
)
FAST = replace(
    TINY,
    architecture="fastnet",
    fastnet=FastNet(widths=(16, 16), depth=3),
    optimiser="muon",
    muon_rate=0.1,
    bias_ratio=2.0,
    augment=Augment(flip="alternating"),
)


def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    """Dark and bright noise: 120 images that are easy to classify."""
    draws = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = draws.integers(0, 120, (120, 16, 16, 3)) + labels[:, None, None, None] * 110
    return images.astype(np.uint8), labels


def save_weights(folder) -> str:
    """The name of a file with random weights of TINY's architecture."""
    save_file(timm.create_model("test_resnet").state_dict(), folder / "weights.safetensors")
    return "weights.safetensors"


def data_of() -> FitData:
    images, labels = two_kinds()
    rows = np.arange(120)
    return FitData(PixelStore(images, torch.device("cpu")), labels, 2, rows[:80], rows[80:])


def help_with_toys(ranks, *recipes):
    """What a process beside rank 0 does: it trains the recipes, one after the other, on the images of `data_of`."""
    torch.set_num_threads(1)
    for recipe in recipes:
        help_to_fit(ranks, recipe, data_of())
