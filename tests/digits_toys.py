"""A competition of digits with one small recipe, for tests that really train."""

import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from podium.data.cache import open_images
from podium.data.prepare import prepare
from podium.predictions.artefact import Predictions
from podium.workspace import Workspace, open_workspace

RECIPE = """
architecture = "timm:test_resnet"
epochs = 2
learning_rate = 0.01
batch_size = 64
stored_pixels = 16
"""
SETTINGS = """
title = "digits"
[data]
source = "digits"
[validation]
"""


def digits_workspace(folder, *, validation: str = "rows = 297", recipe: str = RECIPE) -> Workspace:
    """The workspace, prepared."""
    return prepare_digits(folder, "digits", {"competition.toml": SETTINGS + validation, "tiny.toml": recipe})


def prepare_digits(folder, competition: str, files: Mapping[str, str]) -> Workspace:
    """A competition of digits with these files, prepared: once for all tests, of which each gets a copy."""
    template = _template(competition, tuple(files.items()))
    shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("unpacked"))
    return open_workspace(competition, folder)


@cache
def _template(competition: str, files: tuple[tuple[str, str], ...]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="digits-"))
    settings = folder / "competitions" / competition
    settings.mkdir(parents=True)
    for name, text in files:
        (settings / name).write_text(text)
    prepare(open_workspace(competition, folder))
    return folder


def damage_images(workspace: Workspace) -> None:
    """Invert the pixels of the decoded images."""
    (file,) = workspace.paths.cache.rglob("images-16-crop.npy")
    images = open_memmap(file, mode="r+")
    images ^= 255
    images.flush()


def save_test_images(workspace: Workspace, predictions: Predictions, *, pixels=16):
    """Write the first five test images as 0.png to 4.png; returns their folder and the labels that a run predicts."""
    folder = workspace.paths.root / "new"
    folder.mkdir()
    images = open_images(workspace.paths, workspace.lock, pixels=pixels, shape="crop").test_images[:5]
    for i, image in enumerate(images):
        Image.fromarray(np.asarray(image)).save(folder / f"{i}.png")
    return folder, predictions.classes[predictions.test_logits[:5].argmax(axis=1)].tolist()
