"""The images, labels and rows that one fit uses."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from podium.config.keys import Recipe
from podium.data.cache import Dataset, open_images
from podium.training.batches.loader import Normalisation, PixelStore, measure_normalisation
from podium.training.device import pick_device
from podium.workspace import Workspace


@dataclass(frozen=True)
class FitData:
    """The images and labels of one fit, and which rows train and which validate."""

    store: PixelStore
    labels: np.ndarray  # (n,) int64
    classes: int
    training_rows: np.ndarray
    validation_rows: np.ndarray  # empty for a refit

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and deviation of the training rows, measured once."""
        return measure_normalisation(self.store.array, self.training_rows)


def open_recipe_images(workspace: Workspace, recipe: Recipe) -> Dataset:
    """The images of the lock, decoded as the recipe stores them; raises DataError where they are not in the cache."""
    return open_images(workspace.paths, workspace.lock, pixels=recipe.stored_pixels, shape=recipe.shape)


def first_fold(workspace: Workspace, recipe: Recipe) -> FitData:
    """The data of a run's first fit; raises DataError."""
    lock = workspace.lock
    store = PixelStore(open_recipe_images(workspace, recipe).train_images, pick_device())
    validates = lock.folds == lock.folds[lock.folds >= 0].min()
    return FitData(store, lock.train_labels, len(lock.classes), np.flatnonzero(~validates), np.flatnonzero(validates))


def balanced_rows(labels: np.ndarray, folds: np.ndarray, *, rows: int) -> np.ndarray:
    """Indices of about `rows` labelled rows, sorted: equally many of each class in each fold."""
    groups = [(label, fold) for label in np.unique(labels) for fold in np.unique(folds)]
    rows_per_group = max(1, rows // len(groups))
    picked = [np.flatnonzero((labels == label) & (folds == fold))[:rows_per_group] for label, fold in groups]
    return np.sort(np.concatenate(picked))


def count_images(recipe: Recipe, folds: np.ndarray) -> int:
    """How many training images all fits of a run process, over all epochs."""
    epochs = recipe.freeze_epochs + recipe.epochs
    training_rows = [int((folds != fold).sum()) for fold in np.unique(folds[folds >= 0])]
    if recipe.refit:
        training_rows.append(len(folds))
    return epochs * sum(recipe.images_an_epoch(rows) for rows in training_rows)
