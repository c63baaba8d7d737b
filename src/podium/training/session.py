"""A run, or one fit of it, opened for training: its cores, images, checkpoint and trackers."""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from podium.data.cache import Dataset
from podium.data.metadata import read_metadata
from podium.errors import ConfigError
from podium.plan import stamp
from podium.plan.runs import PlannedRun, fit_names
from podium.predictions.pseudo import PseudoLabels, read_pseudo_labels
from podium.training.batches import stores
from podium.training.batches.stores import FitData, PixelStore
from podium.training.checkpoint import open_checkpoint
from podium.training.device import check_machine, claim_cores, computing, device_name, pick_device
from podium.training.learner import count_images
from podium.training.progress import Listener, ProgressRecorder
from podium.training.trackers import open_trackers
from podium.workspace import Workspace


@dataclass(frozen=True)
class Training:
    """A run, or one fit of it, that is being trained."""

    workspace: Workspace
    run: PlannedRun
    progress: ProgressRecorder
    fits: Sequence[FitData]
    test_store: PixelStore
    test_rows: np.ndarray  # the test images that are predicted
    rows: np.ndarray | None  # the labelled images that are used; None: all
    gpus: Sequence[int]  # of each process of the run; none on a CPU, and where there is one
    verify_data: Callable[[], None]  # raises ChangedDataError where they are no longer those that it began with


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
    """Open the images, the checkpoint and the trackers of a run, or of the fit `only`, with the cores that it needs.

    Raises TrainingError where this machine has fewer cores.
    """
    recipe, paths, lock = run.recipe, workspace.paths, workspace.lock
    checkpoint_file = paths.checkpoint_file(run.run, only) if rows is None and test_rows is None else None
    minutes, recipe_file = workspace.competition.checkpoint_minutes, paths.recipe_file(run.recipe_name)
    check_machine(recipe, recipe_file)
    dataset = stores.open_recipe_images(workspace, recipe)
    cores = f"{recipe.cores} free {'core' if recipe.cores == 1 else 'cores'}"
    name = ".".join(filter(None, (run.run, only)))
    with (
        claim_cores(recipe.cores, on_wait=lambda: listener.note(f"waits for {cores}")),
        computing(name, recipe_file, recipe, processes=recipe.processes) as gpus,
        open_checkpoint(checkpoint_file, origin_of(workspace, run), minutes=minutes, note=listener.note) as checkpoint,
    ):
        dataset.verify()
        verify = partial(dataset.verify_trained, paths.lock_file, stamp.lock_sha256(paths.lock_file))
        fits, test_store = open_fits(workspace, run, dataset, rows, keeps_features=checkpoint_file is not None)
        names = [data.name for data in fits]
        if only and only not in names:
            raise ConfigError(f"{run.run} has no fit '{only}'.", expected=f"one of {', '.join(names)}")
        stages = {data.name: data.stage for data in fits}
        fits = [data for data in fits if only in ("", data.name)]
        files = {data.name: paths.checkpoint_file(run.run, data.name) for data in fits}
        joined = checkpoint.take_fits(files) if checkpoint_file and not only else {}
        predicted = np.arange(len(lock.test_ids))[:test_rows]
        to_train = files.keys() - checkpoint.fits
        tracked = replace(run, run=name) if to_train else None
        others = [stages[name] for name in stages.keys() - to_train]
        with open_trackers(workspace, tracked, checkpoint, other_stages=others, note=listener.note) as trackers:
            images = count_images(recipe, fits)
            progress = ProgressRecorder(listener, images=images, trackers=trackers, checkpoint=checkpoint)
            progress.join(joined)
            yield Training(workspace, run, progress, fits, test_store, predicted, rows, gpus, verify)


def open_fits(
    workspace: Workspace, run: PlannedRun, dataset: Dataset, rows: np.ndarray | None, *, keeps_features: bool
) -> tuple[list[FitData], PixelStore]:
    """The data of the fits of a run on the device, from some `rows` or all, and the test images."""
    recipe, paths, lock = run.recipe, workspace.paths, workspace.lock
    pseudo = read_pseudo_labels(paths.root, recipe.pseudo_labels, lock)
    pseudo = pseudo if rows is None else PseudoLabels(*(values[: len(rows)] for values in pseudo))  # in a rehearsal
    rows = np.arange(len(lock.train_ids)) if rows is None else rows
    train_store, test_store = stores.open_stores(dataset, keeps_features=keeps_features)
    train_store.metadata, test_store.metadata = read_metadata(paths, lock, recipe.metadata_columns)
    store = stores.ExtendedStore(train_store, test_store, pseudo.rows) if len(pseudo.rows) else train_store
    return stores.data_of_fits(lock, run, store, rows, pseudo), test_store


def unfinished_fits(workspace: Workspace, run: PlannedRun) -> list[str]:
    """The names of the fits of a run that are still to be trained: neither it nor `train_fit` has finished them."""
    paths, names = workspace.paths, fit_names(workspace.competition, run.recipe)
    with open_checkpoint(paths.checkpoint_file(run.run), origin_of(workspace, run)) as checkpoint:
        checkpoint.take_fits({name: paths.checkpoint_file(run.run, name) for name in names})
        return [name for name in names if name not in checkpoint.fits]


def origin_of(workspace: Workspace, run: PlannedRun) -> dict[str, Any]:
    """What decides the bits of a run's predictions; a checkpoint with another origin does not count."""
    packages = ("torch", "torchvision", "fastai", "timm", "numpy")
    return {
        "recipe": asdict(run.recipe),
        "seed": run.seed,
        "stamp": run.stamp,
        "training_version": stamp.TRAINING_VERSION,
        "weights_sha256": stamp.weights_sha256(run.recipe, workspace.paths.root),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "device": device_name(pick_device()),
        "threads": run.recipe.threads,
    }
