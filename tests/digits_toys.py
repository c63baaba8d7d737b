"""A competition of digits with one small recipe, for tests that really train."""

from numpy.lib.format import open_memmap

from podium.data.prepare import prepare
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
    settings = folder / "competitions" / "digits"
    settings.mkdir(parents=True)
    (settings / "competition.toml").write_text(SETTINGS + validation)
    (settings / "tiny.toml").write_text(recipe)
    prepare(open_workspace("digits", folder))
    return open_workspace("digits", folder)


def damage_images(workspace: Workspace) -> None:
    """Invert the pixels of the decoded images."""
    (file,) = workspace.paths.cache.rglob("images-16-crop.npy")
    images = open_memmap(file, mode="r+")
    images ^= 255
    images.flush()
