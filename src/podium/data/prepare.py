"""From images that lie somewhere to data that every run agrees on: decoded, split, and locked."""

import dataclasses
import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from podium.config.keys import Competition, Recipe, read_competition, read_recipe, recipe_files
from podium.data.cache import Dataset, open_dataset
from podium.data.folds import assign_folds
from podium.data.locate import Progress
from podium.data.scan import quiet
from podium.errors import DataError
from podium.lock import Lock, read_lock, write_lock
from podium.plan.paths import Project

Size = tuple[int, str]
"""Side of the stored images, and how other shapes become square."""


def prepare(
    project: Project,
    name: str,
    *,
    data: str | None = None,
    accept: bool = False,
    sizes: Sequence[Size] | None = None,
    progress: Progress = quiet,
    note: Callable[[str], object] = lambda text: None,
) -> Lock:
    """Decode a competition's images at every size its recipes use, split them, and write its `data.lock`.

    With `accept`, data that differ from the lock replace it. Folds that a lock holds are kept as long as data
    and [validation] are the same. `note` is called with what was left out. Raises DataError for faulty data and
    for other data than expected.
    """
    folder = project.competition_folder(name)
    competition = read_competition(folder)
    first, *others = sizes or recipe_sizes(folder)
    dataset = open_dataset(project, name, pixels=first[0], shape=first[1], data=data, progress=progress)
    for text in dataset.notes:
        note(text)
    lock_file = project.lock_file(name)
    known = read_lock(lock_file) if lock_file.is_file() else None
    _refuse_other_data(dataset, competition, known, name=name, lock_file=lock_file, data=data, accept=accept)
    for pixels, shape in others:
        open_dataset(project, name, pixels=pixels, shape=shape, data=data, progress=progress)
    lock = _lock(dataset, competition, known)
    write_lock(lock_file, lock)
    return lock


def recipe_sizes(folder: Path) -> list[Size]:
    """Every size at which the recipes of a competition's folder store images; without recipes the default."""
    recipes = [read_recipe(file) for file in recipe_files(folder).values()]
    default = (
        Recipe.__dataclass_fields__["stored_pixels"].default,
        Recipe.__dataclass_fields__["shape"].default,
    )
    return sorted({(recipe.stored_pixels, recipe.shape) for recipe in recipes}) or [default]


def _refuse_other_data(
    dataset: Dataset,
    competition: Competition,
    known: Lock | None,
    *,
    name: str,
    lock_file: Path,
    data: str | None,
    accept: bool,
) -> None:
    pinned = competition.data.fingerprint
    if pinned and dataset.fingerprint != pinned:
        raise DataError(
            f"These are not the data of '{name}'.",
            file=lock_file.with_name("competition.toml"),
            expected=f"fingerprint {pinned}",
            found=f"fingerprint {dataset.fingerprint}",
            fix="fetch the right data, or put it in [data] fingerprint if they are meant to change",
        )
    if known is not None and dataset.fingerprint != known.fingerprint and not accept:
        place = f" --data {shlex.quote(data)}" if data else ""
        raise DataError(
            f"The data of '{name}' are not those that its runs were trained on.",
            file=lock_file,
            expected=f"fingerprint {known.fingerprint}",
            found=f"fingerprint {dataset.fingerprint}",
            fix="bring the old data back, or type (every run is then stale): "
            f"podium prepare --competition {name} --accept-data{place}",
        )


def _lock(dataset: Dataset, competition: Competition, known: Lock | None) -> Lock:
    validation = _validation(dataset, competition)
    # A split that is written down outlives the library that drew it.
    if known is not None and known.fingerprint == dataset.fingerprint and known.validation == validation:
        folds = known.folds
    else:
        folds = assign_folds(dataset.train_labels, dataset.groups, competition.validation, classes=dataset.classes)
    return Lock(
        fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        train_ids=np.asarray(dataset.train_ids),
        train_labels=dataset.train_labels,
        folds=folds,
        test_ids=np.asarray(dataset.test_ids),
        validation=validation,
        groups=dataset.groups,
    )


def _validation(dataset: Dataset, competition: Competition) -> dict[str, Any]:
    """What decides the folds: the settings and the groups."""
    groups = "" if dataset.groups is None else "\n".join(dataset.groups.tolist())
    sha256 = hashlib.sha256(groups.encode()).hexdigest() if groups else ""
    return {**dataclasses.asdict(competition.validation), "groups_sha256": sha256}
