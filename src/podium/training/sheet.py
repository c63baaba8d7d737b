"""Labelled images as they are stored, and as training augments them: `make show`."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from matplotlib.figure import Figure

from podium.config.keys import Recipe
from podium.config.pixels import pixels_text
from podium.config.schema import changed_keys
from podium.plan.runs import PlannedRun
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, Normalisation, first_fold, open_recipe_images
from podium.training.device import name_run_in_errors
from podium.training.drawing import PNG_STYLE
from podium.training.learner import size_of_epoch
from podium.training.networks.architectures import build_network
from podium.workspace import Workspace

IMAGES, DRAWS = 10, 8
# Inches: a cell of the grid, the column of names, the rows of titles.
CELL, NAMES, TITLES = 1.2, 2.5, 1.5
NAME_CHARACTERS, TITLE_CHARACTERS = 18, 140


@dataclass(frozen=True)
class Sheet:
    """n labelled images, each as stored and in d draws: one epoch per draw, small sides first."""

    title: str
    description: str  # of the augmentation
    ids: list[str]
    labels: list[str]
    stored: np.ndarray  # (n, height, width, 3) uint8
    draws: list[np.ndarray]  # d of (n, height and width of the epoch, 3) uint8


def make_sheet(workspace: Workspace, run: PlannedRun) -> Sheet:
    """Draw about ten images as the first fold's training loader augments them, with a random stream of its own.

    Uses as many epochs as there are draws instead of the recipe's. Raises TrainingError and DataError.
    """
    recipe, paths, lock = run.recipe, workspace.paths, workspace.lock
    dataset = open_recipe_images(workspace, recipe)
    data = first_fold(lock, run, dataset)
    with name_run_in_errors(run.run, paths.recipe_file(run.recipe_name)):
        network = build_network(recipe, data.classes, root=paths.root, seed=0, weights=False)
    rows = spread_rows(lock.target.strata(data.labels, least=1, most=len(data.labels)), data.training_rows)
    dataset.verify_rows("train", rows)
    return Sheet(
        title=f"{workspace.name}: training images of {run.run}",
        description=describe_augmentation(recipe),
        ids=lock.train_ids[rows].tolist(),
        labels=[lock.target.label_text(label, lock.classes) for label in data.labels[rows]],
        stored=np.asarray(data.store.array[rows]),
        draws=list(_draw_rows(run, data, rows, network.normalisation or data.normalisation)),
    )


def spread_rows(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """About ten of the rows, evenly spaced over the classes and within each class."""
    classes = _evenly_spaced(np.unique(labels[rows]), IMAGES)
    per_class = IMAGES // len(classes)
    return np.concatenate([_evenly_spaced(rows[labels[rows] == label], per_class) for label in classes])


def _evenly_spaced(values: np.ndarray, most: int) -> np.ndarray:
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


def describe_augmentation(recipe: Recipe) -> str:
    """One line: the recipe's keys that change its training images, and their sizes."""
    mixing = {name: getattr(recipe, name) for name in ("mixup", "cutmix") if getattr(recipe, name)}
    keys = [f"{name} = {json.dumps(value)}" for name, value in (changed_keys(recipe.augment) | mixing).items()]
    stored, trained = pixels_text(recipe.stored_pixels), ", then ".join(map(pixels_text, recipe.stage_pixels))
    return f"{', '.join(keys) or 'no augmentation'}. Stored at {stored} px, trained at {trained} px."


def _draw_rows(run: PlannedRun, data: FitData, rows: np.ndarray, normalisation: Normalisation) -> Iterator[np.ndarray]:
    """Yield the images (n, height, width, 3) uint8 of each draw, in the order of `rows`."""
    recipe = replace(run.recipe, hard_share=1.0, sampling="all")  # every draw has every row
    loader = TrainingLoader(recipe, replace(data, training_rows=rows, name="show"), normalisation=normalisation)
    epochs = max(DRAWS, len(recipe.stage_pixels))
    for epoch in range(epochs):
        loader.pixels = size_of_epoch(recipe.stage_pixels, epoch, epochs)
        batches = zip(*[(images, loader.last_rows) for images, _ in loader], strict=True)
        images, order = (torch.cat(parts).cpu() for parts in batches)
        places = [order.tolist().index(row) for row in rows.tolist()]
        levels = images[places].permute(0, 2, 3, 1).double().numpy() * normalisation.deviation + normalisation.mean
        yield np.rint(levels * 255).clip(0, 255).astype(np.uint8)


@PNG_STYLE
def draw_sheet(sheet: Sheet) -> Figure:
    """One row per image: its class and id, the stored pixels, and each draw of the training loader."""
    columns = [sheet.stored, *sheet.draws]
    height = TITLES + len(sheet.ids) * CELL
    width = NAMES + len(columns) * CELL
    figure = Figure(figsize=(width, height))
    figure.text(0.2 / width, 1 - 0.2 / height, _fill(sheet.title, 70, lines=1), size=15, weight="bold", va="top")
    figure.text(0.2 / width, 1 - 0.55 / height, _fill(sheet.description, TITLE_CHARACTERS), size=10, va="top")
    grid = figure.subplots(len(sheet.ids), len(columns), squeeze=False)
    figure.subplots_adjust(NAMES / width, 0.1 / height, 1 - 0.1 / width, 1 - TITLES / height, 0.06, 0.06)
    for row, (name, image_id) in enumerate(zip(sheet.labels, sheet.ids, strict=True)):
        label = f"{_fill(name, NAME_CHARACTERS)}\n{image_id if len(image_id) < 25 else f'…{image_id[-24:]}'}"
        grid[row, 0].text(-0.1, 0.5, label, size=9, ha="right", va="center", transform=grid[row, 0].transAxes)
        for column, images in enumerate(columns):
            title = f"{f'draw {column}' if column else 'stored'}\n{pixels_text(images.shape[1:3])} px"
            axes = grid[row, column]
            axes.set_title("" if row else title, size=7.5, pad=2)
            axes.set_axis_off()
            axes.imshow(images[row])
    return figure


def _fill(text: str, characters: int, *, lines: int = 2) -> str:
    """The text in at most so many lines of so many characters."""
    return textwrap.fill(text, characters, max_lines=lines, placeholder="…")
