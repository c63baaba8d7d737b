"""What a network would see: labelled images as they are stored, beside what training makes of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from podium.config.keys import Recipe
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun
from podium.training.batches.loader import Normalisation, measure_normalisation
from podium.training.callbacks import side_of_epoch
from podium.training.faults import naming
from podium.training.learner import training_loader
from podium.training.networks.architectures import build_network
from podium.training.rows import Material, first_fold

IMAGES, DRAWS = 10, 8
# The share of a class below which a mixed label is not worth a word.
SMALLEST_SHARE = 0.005

Mixture = list[tuple[str, float]]
"""Class names and their shares of a label, the largest first."""


@dataclass(frozen=True)
class Sheet:
    """n labelled images, and d draws of each: one epoch's images each, sides from small to large."""

    competition: str
    run: str
    words: str  # the augmentation
    ids: list[str]
    labels: list[str]
    stored: np.ndarray  # (n, side, side, 3) uint8
    draws: list[np.ndarray]  # d of (n, side of that epoch, the same, 3) uint8
    mixtures: list[list[Mixture]]  # d of n
    mixed: bool


def make_sheet(project: Project, competition_name: str, run: PlannedRun) -> Sheet:
    """Draw a few images as the first fold's training would feed them: its own loader, from streams of its own.

    As many epochs as there are draws stand for all of the recipe's. Raises TrainingError and DataError.
    """
    recipe_file = project.competition_folder(competition_name) / f"{run.recipe_name}.toml"
    lock = read_lock(project.lock_file(competition_name))
    material = first_fold(project.paths(competition_name), run.recipe, lock=lock)
    with naming(run.run, recipe_file):
        network = build_network(run.recipe, material.classes, root=project.root, seed=0, weights=False)
    normalisation = network.normalisation or measure_normalisation(material.images, material.training_rows)
    rows = spread_rows(material.labels, material.training_rows)
    draws, shares = _draw(run, material, rows, normalisation)
    classes = [lock.classes[label] for label in material.labels[rows]]
    return Sheet(
        competition=competition_name,
        run=run.run,
        words=augmentation_words(run.recipe),
        ids=lock.train_ids[rows].tolist(),
        labels=classes,
        stored=np.asarray(material.images[rows]),
        draws=draws,
        mixtures=[[_mixture(one, classes) for one in part] for part in shares],
        mixed=bool(run.recipe.mixup or run.recipe.cutmix),
    )


def spread_rows(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """About ten of the rows, spread over the classes and inside each of them."""
    classes = _evenly(np.unique(labels[rows]), IMAGES)
    each = IMAGES // len(classes)
    return np.concatenate([_evenly(rows[labels[rows] == label], each) for label in classes])


def augmentation_words(recipe: Recipe) -> str:
    """What a recipe does to its training images, as a sentence would say it."""
    augment, sides = recipe.augment, [*recipe.progressive_pixels, recipe.network_pixels]
    flips = {"horizontal": "half of them mirrored", "alternating": "mirrored in turns, every second epoch"}
    words = [
        flips.get(augment.flip),
        augment.shift_pixels and f"shifted by up to {augment.shift_pixels} stored px",
        augment.rotate_degrees and f"turned by up to {augment.rotate_degrees:g}°",
        augment.zoom > 1 and f"zoomed by up to {augment.zoom:g}",
        augment.brightness and f"brightness ± {augment.brightness:g}",
        augment.contrast and f"contrast ± {augment.contrast:.0%}",
        augment.cutout_pixels and f"a square of {augment.cutout_pixels} px cut out",
        recipe.mixup and f"mixup {recipe.mixup:g}",
        recipe.cutmix and f"cutmix {recipe.cutmix:g}",
    ]
    told = "; ".join(word for word in words if word) or "no augmentation"
    return f"{told}. Stored at {recipe.stored_pixels} px, seen at {', then '.join(map(str, sides))} px."


def _draw(
    run: PlannedRun, material: Material, rows: np.ndarray, normalisation: Normalisation
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and label shares (n, n) of each draw, in the order of `rows`.

    The rows' places stand for labels on the way: a batch then says by itself which images it is made of.
    """
    places = np.zeros(len(material.images), dtype=np.int64)
    places[rows] = np.arange(len(rows))
    nobody = replace(material, labels=places, classes=len(rows), training_rows=rows, validation_rows=rows[:0])
    loader = training_loader(run.recipe, nobody, normalisation=normalisation, seed=run.seed, purpose="/show")
    sides = [*run.recipe.progressive_pixels, run.recipe.network_pixels]
    draws, shares = [], []
    count = max(DRAWS, len(sides))
    for epoch in range(count):
        loader.pixels = side_of_epoch(sides, epoch, count)
        batches = [(_pixels(images, normalisation), _shares(targets, len(rows))) for images, targets in loader]
        images, made_of = (np.concatenate(part) for part in zip(*batches, strict=True))
        # Each image of a mixed batch has the same share, so it may be the smaller one: one image a row all the same.
        order = linear_sum_assignment(made_of.T, maximize=True)[1]
        draws.append(images[order])
        shares.append(made_of[order])
    return draws, shares


def _pixels(images: torch.Tensor, normalisation: Normalisation) -> np.ndarray:
    """(n, 3, side, side) normalised -> (n, side, side, 3) uint8."""
    levels = images.permute(0, 2, 3, 1).cpu().double().numpy() * normalisation.deviation + normalisation.mean
    return np.rint(levels * 255).clip(0, 255).astype(np.uint8)


def _shares(targets: torch.Tensor, count: int) -> np.ndarray:
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, count)
    return targets.cpu().double().numpy()


def _mixture(shares: np.ndarray, classes: list[str]) -> Mixture:
    """The shares (n,) of images as those of their classes."""
    total: dict[str, float] = {}
    for share, name in zip(shares.tolist(), classes, strict=True):
        if share >= SMALLEST_SHARE:
            total[name] = total.get(name, 0.0) + share
    return sorted(total.items(), key=lambda pair: -pair[1])


def _evenly(values: np.ndarray, most: int) -> np.ndarray:
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]
