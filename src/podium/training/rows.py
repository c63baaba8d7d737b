"""The images of a run, the rows of its first fit, and how many images all its fits process."""

import numpy as np

from podium.config.keys import Recipe
from podium.data.cache import Dataset, open_images
from podium.lock import Lock
from podium.training.batches.loader import FitData
from podium.training.batches.stores import PixelStore
from podium.training.device import pick_device
from podium.workspace import Workspace


def open_recipe_images(workspace: Workspace, recipe: Recipe) -> Dataset:
    """The images of the lock, decoded as the recipe stores them; raises DataError where they are not in the cache."""
    return open_images(workspace.paths, workspace.lock, pixels=recipe.stored_pixels, shape=recipe.shape)


def open_stores(dataset: Dataset, *, keeps_features: bool = True) -> tuple[PixelStore, PixelStore]:
    """The labelled and the test images on the device; their features are kept in the cache with `keeps_features`."""
    train, test = (
        PixelStore(array, pick_device(), origin=(dataset, part) if keeps_features else None)
        for part, array in dataset.arrays.items()
    )
    return train, test


def first_fold(lock: Lock, dataset: Dataset) -> FitData:
    """The data of a run's first fit, without pseudo-labels."""
    store = PixelStore(dataset.train_images, pick_device(), origin=(dataset, "train"))
    validates = lock.folds == lock.folds[lock.folds >= 0].min()
    rows = np.flatnonzero(~validates), np.flatnonzero(validates)
    return FitData(store, lock.train_labels, lock.target.outputs, *rows, lock.target)


def balanced_rows(labels: np.ndarray, folds: np.ndarray, *, rows: int) -> np.ndarray:
    """Indices of about `rows` labelled rows, sorted: equally many of each class in each fold, evenly spaced.

    Neighbours are often alike, as in names sorted by subject: the first rows would not represent the others.
    """
    groups = [
        np.flatnonzero((labels == label) & (folds == fold)) for label in np.unique(labels) for fold in np.unique(folds)
    ]
    most = max(1, rows // len(groups))
    spaced = [group[np.linspace(0, len(group) - 1, min(most, len(group))).astype(int)] for group in groups]
    return np.sort(np.concatenate(spaced))


def count_images(recipe: Recipe, folds: np.ndarray) -> int:
    """How many training images all fits of a run process, over all epochs."""
    epochs = recipe.freeze_epochs + recipe.epochs
    training_rows = [int((folds != fold).sum()) for fold in np.unique(folds[folds >= 0])]
    if recipe.refit:
        training_rows.append(len(folds))
    return epochs * sum(recipe.images_per_epoch(rows) for rows in training_rows)
