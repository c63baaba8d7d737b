"""Decode, split and lock the images of a competition, so that every run uses the same data."""

import dataclasses
import hashlib
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np

from podium.config.keys import Competition, Recipe
from podium.config.pixels import Pixels, height_and_width
from podium.config.schema import stamped_keys
from podium.data.cache import Dataset, find_images, load_dataset, size_name
from podium.data.decode import decode_images
from podium.data.duplicates import duplicate_lines, joined, kept_duplicates
from podium.data.folds import ALWAYS_TRAINS, assign_folds, check_training_rows
from podium.data.locate import Progress, Source, download_source, find_source, quiet
from podium.data.metadata import prepare_metadata
from podium.errors import DataError, examples
from podium.files import remove_abandoned_temporaries
from podium.lock import Lock, read_lock, write_lock
from podium.workspace import Workspace

Size = tuple[Pixels, str, str]
"""Size of the stored images, how other shapes get it, and the format, as Recipe.storage has them."""
Note = Callable[[str], object]


def prepare(
    workspace: Workspace,
    *,
    data: str | None = None,
    accept: bool = False,
    progress: Progress = quiet,
    note: Note = lambda text: None,
) -> Lock:
    """Decode the images at every size that the recipes use, assign the folds, and write `data.lock`.

    `data` is the archive or folder to use instead of searching. Without the original images, prepare succeeds if
    they are decoded already. Data that differ from an existing lock are refused, or replace it with `accept`. The
    lock's folds are kept as long as data and [validation] are the same. `note` receives messages for the user.
    Raises DataError.
    """
    competition, paths = workspace.competition, workspace.paths
    known = read_lock(paths.lock_file) if paths.lock_file.is_file() else None
    remove_abandoned_temporaries(paths.cache)
    sizes, source = recipe_sizes(workspace), find_source(competition, paths, data=data)
    if source is None and known and all(find_images(paths, known, size=size_name(*size)) for size in sizes):
        note("the original images were not found; the decoded images in the cache match data.lock and are used")
        dataset = load_dataset(Path(find_images(paths, known).images.filename))  # with the groups that the data have
    else:
        source = source or download_source(competition, paths, progress=progress)
        for pixels, shape, stored_format in sizes:
            options = {"pixels": pixels, "shape": shape, "stored_format": stored_format}
            dataset = decode_images(competition, source, paths, **options, progress=progress, note=note)
    _check_fingerprint(dataset.lock.fingerprint, workspace, known, source, data=data, accept=accept)
    lock = _make_lock(dataset, competition, known, progress=progress, note=note)
    is_kept = source is None or (known and not accept)
    lock = dataclasses.replace(lock, files=known.files if is_kept else source.file_digests())
    if rare := lock.unvalidated_classes:
        counts = lock.target.shares(lock.train_labels) * len(lock.train_labels)
        rows = round(counts[np.isin(lock.classes, rare)].sum())
        note(f"no validation row has the class {examples(map(repr, rare))}: its {rows:,} images only train")
    fewest = min((int((lock.folds != fold).sum()) for fold in np.unique(lock.folds[lock.folds >= 0])), default=0)
    for name, recipe in workspace.recipes.items():
        if recipe.epochs and recipe.batch_size > fewest:
            note(f"{name}: batch_size = {recipe.batch_size}, and {fewest:,} training images: one step per epoch")
    write_lock(paths.lock_file, lock)
    prepare_metadata(workspace, lock, source, accept=accept, note=note)
    return lock


def recipe_sizes(workspace: Workspace) -> list[Size]:
    """Every size at which the recipes store images; the default size where there is no recipe."""
    sizes = {recipe.storage for recipe in workspace.recipes.values() or [Recipe(architecture="")]}
    return sorted(sizes, key=lambda size: (height_and_width(size[0]), *size[1:]))


def _check_fingerprint(
    fingerprint: str, workspace: Workspace, known: Lock | None, source: Source | None, *, data: str | None, accept: bool
) -> None:
    """Refuse images that are not the ones of competition.toml or data.lock; raises DataError."""
    paths, expected = workspace.paths, workspace.competition.data.fingerprint
    found = f"fingerprint {fingerprint}{f', of {source.path}' if source else ''}"
    if expected and fingerprint != expected:
        raise DataError(
            f"These are not the data of '{paths.name}'.",
            file=paths.settings_file,
            expected=f"fingerprint {expected}",
            found=found,
            fix="use the expected images; if they were changed on purpose, change [data] fingerprint",
        )
    if known is not None and fingerprint != known.fingerprint and not accept:
        place = f" --data {shlex.quote(data)}" if data else ""
        raise DataError(
            f"The data of '{paths.name}' are not those that its runs were trained on.",
            file=paths.lock_file,
            expected=f"fingerprint {known.fingerprint}",
            found=found,
            faults=[f"{name} is another file" for name in known.changed_files(source.file_digests() if source else {})],
            fix="restore the old images, or accept the new ones (every run becomes stale): "
            f"podium prepare --competition {paths.name} --accept-data{place}",
        )


def _make_lock(
    dataset: Dataset, competition: Competition, known: Lock | None, *, progress: Progress, note: Note
) -> Lock:
    """The lock of the decoded images with folds and with the settings that decide them."""
    images = dataset.lock
    text = "" if images.groups is None else "\n".join(images.groups.tolist())
    sha256 = hashlib.sha256(text.encode()).hexdigest() if text else ""
    validation = {**stamped_keys(competition.validation), "groups_sha256": sha256}
    # Recorded folds are kept: another version of scikit-learn may assign others, another size other duplicates.
    if known is not None and known.fingerprint == images.fingerprint and known.validation == validation:
        return dataclasses.replace(images, folds=known.folds, groups=known.groups, validation=validation)
    duplicates, rows = kept_duplicates(dataset, progress=progress), np.arange(len(images.train_ids))
    groups = rows if images.groups is None else images.groups
    if competition.validation.groups == "duplicates":
        groups = images.train_ids[joined(groups, rows, duplicates[rows])]
        images = dataclasses.replace(images, groups=groups)
    only_train = np.isin(groups, groups[images.is_extra])  # rows whose group has an external image, which trains
    if competition.validation.kind == "folder":
        folds = images.folds
        check_training_rows(images.train_labels, folds, images.classes)
    else:
        rows, folds = np.flatnonzero(~only_train), np.full(len(images.train_ids), ALWAYS_TRAINS)
        groups = None if images.groups is None else images.groups[rows]
        folds[rows] = assign_folds(
            images.train_labels[rows], groups, competition.validation, classes=images.classes, target=images.target
        )
    lock = dataclasses.replace(images, folds=folds, validation=validation)
    for line in duplicate_lines(lock, duplicates):
        note(line)
    return lock
