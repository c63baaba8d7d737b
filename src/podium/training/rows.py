"""What a network learns from: images, labels, and which rows it may see."""

from dataclasses import dataclass

import numpy as np

from podium.config.keys import Recipe
from podium.data.cache import Dataset, open_dataset
from podium.errors import DataError
from podium.lock import Lock, read_lock
from podium.plan.paths import Project
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


def first_fold(
    project: Project, competition_name: str, recipe: Recipe, *, data: str | None = None
) -> tuple[Material, Lock]:
    """What the first network of a run learns from and is judged on, and the lock of it; raises DataError."""
    lock = read_lock(project.lock_file(competition_name))
    dataset = checked_dataset(project, competition_name, recipe, lock=lock, data=data)
    inside = lock.folds == lock.folds[lock.folds >= 0].min()
    store, images = PixelStore(dataset.train_images, pick_device()), dataset.train_images
    rows = np.flatnonzero
    return Material(store, images, lock.train_labels, len(lock.classes), rows(~inside), rows(inside)), lock


def balanced_part(labels: np.ndarray, folds: np.ndarray, *, rows: int) -> np.ndarray:
    """About `rows` of the labelled rows, (n,): the first of each class in each fold, in equal numbers."""
    groups = [(label, fold) for label in np.unique(labels) for fold in np.unique(folds)]
    each = max(1, rows // len(groups))
    picked = [np.flatnonzero((labels == label) & (folds == fold))[:each] for label, fold in groups]
    return np.sort(np.concatenate(picked))


def checked_dataset(
    project: Project, competition_name: str, recipe: Recipe, *, lock: Lock, data: str | None
) -> Dataset:
    """The images as the recipe wants them decoded; raises DataError where they are not the lock's."""
    dataset = open_dataset(project, competition_name, pixels=recipe.stored_pixels, shape=recipe.shape, data=data)
    if dataset.fingerprint != lock.fingerprint:
        raise DataError(
            "The images are not those that data.lock speaks of.",
            file=project.lock_file(competition_name),
            expected=f"fingerprint {lock.fingerprint}",
            found=f"fingerprint {dataset.fingerprint}",
            fix=f"podium prepare --competition {competition_name}",
        )
    return dataset


def count_images(recipe: Recipe, folds: np.ndarray) -> int:
    """Training images that pass through all fits of a run."""
    epochs = recipe.freeze_epochs + recipe.epochs
    fits = [int((folds != fold).sum()) for fold in np.unique(folds[folds >= 0])]
    if recipe.refit:
        fits.append(len(folds))
    return epochs * sum(recipe.images_an_epoch(rows) for rows in fits)
