"""Labelled images as they are stored, and as training augments them: the content of `make show`."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from podium.config.keys import Recipe
from podium.plan.runs import PlannedRun
from podium.training.batches.loader import Normalisation
from podium.training.callbacks import side_of_epoch
from podium.training.errors import name_run_in_errors
from podium.training.learner import training_loader
from podium.training.networks.architectures import build_network
from podium.training.rows import FitData, first_fold
from podium.workspace import Workspace

IMAGES, DRAWS = 10, 8
# Smaller shares of a mixed label are not shown.
SMALLEST_SHARE = 0.005

Mixture = list[tuple[str, float]]
"""Class names and their shares of a label, largest share first."""


@dataclass(frozen=True)
class Sheet:
    """n labelled images, each as stored and in d draws: one epoch per draw, small sides first."""

    competition: str
    run: str
    description: str  # of the augmentation
    ids: list[str]
    labels: list[str]
    stored: np.ndarray  # (n, side, side, 3) uint8
    draws: list[np.ndarray]  # d of (n, side of the epoch, the same, 3) uint8
    mixtures: list[list[Mixture]]  # d of n
    mixed: bool


def make_sheet(workspace: Workspace, run: PlannedRun) -> Sheet:
    """Draw about ten images as the first fold's training loader augments them, with a random stream of its own.

    Uses as many epochs as there are draws instead of the recipe's. Raises TrainingError and DataError.
    """
    recipe, paths = run.recipe, workspace.paths
    data = first_fold(workspace, recipe)
    with name_run_in_errors(run.run, paths.recipe_file(run.recipe_name)):
        network = build_network(recipe, data.classes, root=paths.root, seed=0, weights=False)
    rows = spread_rows(data.labels, data.training_rows)
    draws, shares = _draw(run, data, rows, network.normalisation or data.normalisation)
    classes = [workspace.lock.classes[label] for label in data.labels[rows]]
    return Sheet(
        competition=workspace.name,
        run=run.run,
        description=describe_augmentation(recipe),
        ids=workspace.lock.train_ids[rows].tolist(),
        labels=classes,
        stored=np.asarray(data.store.array[rows]),
        draws=draws,
        mixtures=[[_mixture(image_shares, classes) for image_shares in draw] for draw in shares],
        mixed=bool(recipe.mixup or recipe.cutmix),
    )


def spread_rows(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """About ten of the rows, evenly spaced over the classes and within each class."""
    classes = _evenly_spaced(np.unique(labels[rows]), IMAGES)
    per_class = IMAGES // len(classes)
    return np.concatenate([_evenly_spaced(rows[labels[rows] == label], per_class) for label in classes])


def _evenly_spaced(values: np.ndarray, most: int) -> np.ndarray:
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


def describe_augmentation(recipe: Recipe) -> str:
    """One line about what the recipe does to its training images."""
    augment, sides = recipe.augment, [*recipe.progressive_pixels, recipe.network_pixels]
    flips = {"horizontal": "half of the images mirrored", "alternating": "mirrored in every second epoch"}
    parts = [
        flips.get(augment.flip),
        augment.shift_pixels and f"shifted by up to {augment.shift_pixels} stored px",
        augment.rotate_degrees and f"rotated by up to {augment.rotate_degrees:g}°",
        augment.zoom > 1 and f"zoomed by up to {augment.zoom:g}",
        augment.brightness and f"brightness ± {augment.brightness:g}",
        augment.contrast and f"contrast ± {augment.contrast:.0%}",
        augment.cutout_pixels and f"a square of {augment.cutout_pixels} px cut out",
        recipe.mixup and f"mixup {recipe.mixup:g}",
        recipe.cutmix and f"cutmix {recipe.cutmix:g}",
    ]
    description = "; ".join(part for part in parts if part) or "no augmentation"
    return f"{description}. Stored at {recipe.stored_pixels} px, trained at {', then '.join(map(str, sides))} px."


def _draw(
    run: PlannedRun, data: FitData, rows: np.ndarray, normalisation: Normalisation
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images (n, side, side, 3) and label shares (n, n) of each draw, in the order of `rows`.

    Each row gets a class of its own, so that the targets of a batch tell which rows an image is mixed from.
    """
    row_classes = np.zeros(len(data.labels), dtype=np.int64)
    row_classes[rows] = np.arange(len(rows))
    sheet_data = replace(data, labels=row_classes, classes=len(rows), training_rows=rows, validation_rows=rows[:0])
    recipe = replace(run.recipe, hard_share=1.0)  # every draw has every row
    loader = training_loader(recipe, sheet_data, normalisation=normalisation, seed=run.seed, purpose="/show")
    sides = [*run.recipe.progressive_pixels, run.recipe.network_pixels]
    draws, shares = [], []
    epochs = max(DRAWS, len(sides))
    for epoch in range(epochs):
        loader.pixels = side_of_epoch(sides, epoch, epochs)
        batches = [(_pixels(images, normalisation), _shares(targets, len(rows))) for images, targets in loader]
        images, image_shares = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        # A row's own share may be the smaller one, so that the largest share does not say which row an image is of.
        order = linear_sum_assignment(image_shares.T, maximize=True)[1]
        draws.append(images[order])
        shares.append(image_shares[order])
    return draws, shares


def _pixels(images: torch.Tensor, normalisation: Normalisation) -> np.ndarray:
    """(n, 3, side, side) normalised -> (n, side, side, 3) uint8."""
    levels = images.permute(0, 2, 3, 1).cpu().double().numpy() * normalisation.deviation + normalisation.mean
    return np.rint(levels * 255).clip(0, 255).astype(np.uint8)


def _shares(targets: torch.Tensor, classes: int) -> np.ndarray:
    """Targets (n,) or (n, classes) -> shares (n, classes)."""
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, classes)
    return targets.cpu().double().numpy()


def _mixture(shares: np.ndarray, classes: list[str]) -> Mixture:
    """Shares (n,) of the images -> shares of their classes."""
    total: dict[str, float] = {}
    for share, name in zip(shares.tolist(), classes, strict=True):
        if share >= SMALLEST_SHARE:
            total[name] = total.get(name, 0.0) + share
    return sorted(total.items(), key=lambda pair: -pair[1])
