"""A project of digits with one small recipe, for tests that really train."""

from podium.data.prepare import prepare
from podium.plan.paths import Project

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


def digits_project(folder, *, validation: str = "rows = 297", recipe: str = RECIPE) -> Project:
    """The project, prepared."""
    house = folder / "competitions" / "digits"
    house.mkdir(parents=True)
    (house / "competition.toml").write_text(SETTINGS + validation)
    (house / "tiny.toml").write_text(recipe)
    project = Project.at(folder)
    prepare(project, "digits")
    return project
