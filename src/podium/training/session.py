"""A run, or one fit of it, opened for training: its cores, images and checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from podium.data.cache import Dataset
from podium.data.labels import KnownLabels, read_pseudo_labels
from podium.data.metadata import read_metadata
from podium.errors import ChangedDataError, ConfigError, DivergedError
from podium.files import file_lock
from podium.plan import stamp
from podium.plan.packages import training_versions
from podium.plan.runs import PlannedRun, fit_names
from podium.training.batches import stores
from podium.training.batches.stores import FitData, PixelStore
from podium.training.checkpoint import Checkpoint
from podium.training.device import check_machine, claim_cores, computing, device_name, pick_device
from podium.training.learner import count_images
from podium.training.progress import Listener, ProgressRecorder
from podium.workspace import Workspace


class Training:
    """A run, or the fit `only` of it, that is being trained: its images, its progress, and what is kept of its fits."""

    def __init__(
        self,
        workspace: Workspace,
        run: PlannedRun,
        dataset: Dataset,
        listener: Listener,
        *,
        gpus: Sequence[int],
        only: str,
        rows: np.ndarray | None,
        test_rows: int | None,
    ):
        self.workspace, self.run, self.origin = workspace, run, origin_of(workspace, run)
        self.gpus, self.rows = gpus, rows  # as `spread_over_gpus` gives them; the labelled images that are used
        self.is_kept = rows is None and test_rows is None  # whether there are checkpoints
        lock_file = workspace.paths.lock_file
        dataset.verify()
        self.verify_data = partial(dataset.verify_trained, lock_file, stamp.lock_sha256(lock_file))
        fits, self.test_store = open_fits(workspace, run, dataset, rows, keeps_features=self.is_kept)
        self.stages, self.fits = [data.stage for data in fits], [data for data in fits if only in ("", data.name)]
        self.test_rows = np.arange(len(workspace.lock.test_ids))[:test_rows]
        self.progress = ProgressRecorder(listener, images=count_images(run.recipe, self.fits))
        self.checkpoints: dict[str, Checkpoint] = {}  # of the fits that are trained, or in training

    @contextmanager
    def open_checkpoint(self, data: FitData) -> Iterator[Checkpoint]:
        """The checkpoint of a fit, while no other process trains it."""
        paths, note, lock, file = self.workspace.paths, self.progress.listener.note, nullcontext(), None
        if self.is_kept:
            file, title = paths.checkpoint_file(self.run.run, data.name), fit_title(self.run, data.name)
            on_wait = partial(note, f"waits for another process that trains {data.name}")
            lock = file_lock(paths.cache / f"{title}.lock", on_wait=on_wait)
        with lock:
            minutes = self.workspace.competition.checkpoint_minutes
            self.checkpoints[data.name] = Checkpoint(file, self.origin, minutes=minutes, note=note)
            yield self.checkpoints[data.name]

    def remove_checkpoints(self) -> None:
        """Remove those of the fits, once all results are written, or where they are of no use."""
        for checkpoint in self.checkpoints.values():
            checkpoint.remove()


@contextmanager
def open_training(
    workspace: Workspace,
    run: PlannedRun,
    listener: Listener,
    *,
    only: str = "",
    rows: np.ndarray | None = None,
    test_rows: int | None = None,
) -> Iterator[Training]:
    """Open a run, or the fit `only`, with the cores that it needs.

    Checkpoints are removed where the training diverged, which it would do again, or the data changed. Raises
    TrainingError where this machine has fewer cores, and ConfigError for an unknown fit.
    """
    recipe, recipe_file = run.recipe, workspace.paths.recipe_file(run.recipe_name)
    names = fit_names(workspace.competition, recipe)
    if only and only not in names:
        raise ConfigError(f"{run.run} has no fit '{only}'.", expected=f"one of {', '.join(names)}")
    check_machine(recipe, recipe_file)
    dataset = stores.open_recipe_images(workspace, recipe)
    cores = f"{recipe.cores} free {'core' if recipe.cores == 1 else 'cores'}"
    with (
        claim_cores(recipe.cores, on_wait=lambda: listener.note(f"waits for {cores}")),
        computing(fit_title(run, only), recipe_file, recipe, processes=recipe.processes) as gpus,
    ):
        training = Training(workspace, run, dataset, listener, gpus=gpus, only=only, rows=rows, test_rows=test_rows)
        try:
            yield training
        except (DivergedError, ChangedDataError):
            training.remove_checkpoints()
            raise


def fit_title(run: PlannedRun, name: str) -> str:
    """`resnet34.s1`, or of one of its fits `resnet34.s1.fold0`."""
    return ".".join(filter(None, (run.run, name)))


def open_fits(
    workspace: Workspace, run: PlannedRun, dataset: Dataset, rows: np.ndarray | None, *, keeps_features: bool
) -> tuple[list[FitData], PixelStore]:
    """The data of the fits of a run on the device, from some `rows` or all, and the test images."""
    recipe, paths, lock = run.recipe, workspace.paths, workspace.lock
    pseudo = read_pseudo_labels(paths.root, recipe.pseudo_labels, workspace.competition, lock)
    pseudo = pseudo if rows is None else KnownLabels(*(values[: len(rows)] for values in pseudo))  # in a rehearsal
    rows = np.arange(len(lock.train_ids)) if rows is None else rows
    train_store, test_store = stores.open_stores(dataset, keeps_features=keeps_features)
    train_store.metadata, test_store.metadata = read_metadata(paths, lock, recipe.metadata_columns)
    store = stores.ExtendedStore(train_store, test_store, pseudo.rows) if len(pseudo.rows) else train_store
    return stores.data_of_fits(lock, run, store, rows, pseudo), test_store


def unfinished_fits(workspace: Workspace, run: PlannedRun) -> list[str]:
    """The names of the fits of a run that are still to be trained: nothing is kept of them."""
    names, origin = fit_names(workspace.competition, run.recipe), origin_of(workspace, run)
    return [name for name in names if not Checkpoint(workspace.paths.checkpoint_file(run.run, name), origin).finished]


def origin_of(workspace: Workspace, run: PlannedRun) -> dict[str, Any]:
    """What decides the bits of a run's predictions; a checkpoint with another origin does not count."""
    return {
        "recipe": asdict(run.recipe),
        "seed": run.seed,
        "stamp": run.stamp,
        "training_version": stamp.TRAINING_VERSION,
        "weights_sha256": stamp.weights_sha256(run.recipe, workspace.paths.root),
        "versions": training_versions(),
        "device": device_name(pick_device()),
        "threads": run.recipe.threads,
    }
