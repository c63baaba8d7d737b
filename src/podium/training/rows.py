"""What a network learns from: images, labels, and which rows it may see."""

from dataclasses import dataclass

import numpy as np

from podium.config.keys import Recipe
from podium.data.cache import Dataset, open_images
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.training.batches.loader import PixelStore
from podium.training.device import pick_device


@dataclass(frozen=True)
class Material:
    """What a network learns from: images, labels, and which rows it may see."""

    store: PixelStore
    images: np.ndarray
    labels: np.ndarray
    classes: int
    training_rows: np.ndarray
    validation_rows: np.ndarray  # empty for a refit


def first_fold(paths: Paths, recipe: Recipe, *, lock: Lock) -> Material:
    """What the first network of a run learns from and is judged on; raises DataError."""
    images = recipe_images(paths, recipe, lock=lock).train_images
    is_validation = lock.folds == lock.folds[lock.folds >= 0].min()
    return Material(
        store=PixelStore(images, pick_device()),
        images=images,
        labels=lock.train_labels,
        classes=len(lock.classes),
        training_rows=np.flatnonzero(~is_validation),
        validation_rows=np.flatnonzero(is_validation),
    )


def recipe_images(paths: Paths, recipe: Recipe, *, lock: Lock) -> Dataset:
    """The decoded images of the lock at the recipe's size; raises DataError where they are not decoded."""
    return open_images(paths, lock, pixels=recipe.stored_pixels, shape=recipe.shape)


def balanced_part(labels: np.ndarray, folds: np.ndarray, *, rows: int) -> np.ndarray:
    """About `rows` of the labelled rows, (n,): the first of each class in each fold, in equal numbers."""
    groups = [(label, fold) for label in np.unique(labels) for fold in np.unique(folds)]
    each = max(1, rows // len(groups))
    picked = [np.flatnonzero((labels == label) & (folds == fold))[:each] for label, fold in groups]
    return np.sort(np.concatenate(picked))


def count_images(recipe: Recipe, folds: np.ndarray) -> int:
    """Training images that pass through all fits of a run."""
    epochs = recipe.freeze_epochs + recipe.epochs
    fits = [int((folds != fold).sum()) for fold in np.unique(folds[folds >= 0])]
    if recipe.refit:
        fits.append(len(folds))
    return epochs * sum(recipe.images_an_epoch(rows) for rows in fits)
