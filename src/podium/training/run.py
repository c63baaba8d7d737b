"""Train one run: every fold, the refit, and the files that it leaves."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from podium.data.metadata import read_metadata
from podium.errors import DataError
from podium.files import atomic_write, file_lock, os_error_as
from podium.plan import stamp
from podium.plan.paths import Paths
from podium.plan.runs import PlannedRun
from podium.predictions.artefact import Predictions, load_predictions, save_predictions
from podium.predictions.pseudo import PseudoLabels, read_pseudo_labels
from podium.training.batches import stores
from podium.training.batches.stores import FitData, PixelStore
from podium.training.checkpoint import FinishedFit, open_checkpoint
from podium.training.device import StepMemoryError, claim_cores, computing, device_name, pick_device
from podium.training.drawing import write_lr_curve
from podium.training.inference import logits_of
from podium.training.learner import count_images, fit_network
from podium.training.lr_find import find_learning_rate
from podium.training.networks.architectures import Network
from podium.training.progress import Listener, ProgressRecorder, diverged
from podium.training.trackers import open_trackers
from podium.workspace import Workspace


def train_if_stale(workspace: Workspace, run: PlannedRun, *, listener: Listener) -> Predictions:
    """Train one run, or load its predictions where another process trained it at the same time; see `train_run`."""
    paths = workspace.paths
    file, weights = paths.predictions_file(run.run), stamp.weights_sha256(run.recipe, paths.root)
    on_wait = partial(listener.note, "waits for another process that trains it")
    with file_lock(paths.cache / f"{run.run}.lock", on_wait=on_wait):
        if stamp.is_stale(stamp.read_about(file), stamp=run.stamp, weights=weights):
            return train_run(workspace, run, listener=listener)
    listener.note("another process has trained it")
    return load_predictions(file)


def train_run(
    workspace: Workspace,
    run: PlannedRun,
    *,
    listener: Listener | None = None,
    rows: np.ndarray | None = None,
    test_rows: int | None = None,
) -> Predictions:
    """Train one run, write its history, parameters and predictions, and return the predictions.

    `rows` (n,): indices of the labelled rows to use; `test_rows`: number of test images to predict; default: all.
    A run of all rows that was killed goes on from its checkpoint. Raises TrainingError and DataError.
    """
    listener, recipe, paths, lock = listener or Listener(), run.recipe, workspace.paths, workspace.lock
    checkpoint_file = paths.checkpoint_file(run.run) if rows is None and test_rows is None else None
    minutes = workspace.competition.checkpoint_minutes
    dataset = stores.open_recipe_images(workspace, recipe)
    pseudo = read_pseudo_labels(paths.root, recipe.pseudo_labels, lock)
    pseudo = pseudo if rows is None else PseudoLabels(*(values[: len(rows)] for values in pseudo))  # in a rehearsal
    rows = np.arange(len(lock.train_ids)) if rows is None else rows
    cores = "core" if recipe.threads == 1 else "cores"
    with (
        claim_cores(recipe.threads, on_wait=lambda: listener.note(f"waits for {recipe.threads} free {cores}")),
        computing(run.run, paths.recipe_file(run.recipe_name), recipe),
        open_checkpoint(checkpoint_file, _origin(workspace, run), minutes=minutes, note=listener.note) as checkpoint,
        open_trackers(workspace, run, checkpoint, note=listener.note) as trackers,
    ):
        dataset.verify()
        lock_sha256 = stamp.file_sha256(paths.lock_file)
        train_store, test_store = stores.open_stores(dataset, keeps_features=checkpoint_file is not None)
        train_store.metadata, test_store.metadata = read_metadata(paths, lock, recipe.metadata_columns)
        store = stores.ExtendedStore(train_store, test_store, pseudo.rows) if len(pseudo.rows) else train_store
        fits = stores.data_of_fits(lock, run, store, rows, pseudo)
        images = count_images(recipe, fits)
        progress = ProgressRecorder(listener, images=images, trackers=trackers, checkpoint=checkpoint)
        predictions = _train_fits(workspace, run, progress, fits, test_store, np.arange(len(lock.test_ids))[:test_rows])
        dataset.verify_trained(paths.lock_file, lock_sha256)
        predictions.about.update(_about(workspace, run, progress, predictions))
        if recipe.pseudo_labels:
            predictions.about["pseudo_labels"] = len(pseudo.rows)
        _save(paths, run.run, progress, predictions)
        checkpoint.remove()
    return predictions


def _save(paths: Paths, run: str, progress: ProgressRecorder, predictions: Predictions) -> None:
    """Write all files of a run: the predictions, which make it up to date, last. A full disk must not lose them."""
    what = f"{run} is trained and its predictions are saved, but a file beside them could not be written."
    try:
        with os_error_as(DataError, what, fix="free space on the disk of this folder before the next run is trained"):
            progress.write_history(paths.history_file(run))
            _save_parameters(paths.parameters_file(run), progress.checkpoint.fits, about=predictions.about)
    except DataError:
        save_predictions(paths.predictions_file(run), predictions)
        raise
    save_predictions(paths.predictions_file(run), predictions)


def _train_fits(
    workspace: Workspace,
    run: PlannedRun,
    progress: ProgressRecorder,
    fits: Sequence[FitData],
    test_store: PixelStore,
    test_rows: np.ndarray,
) -> Predictions:
    """Train the fits that the checkpoint does not have yet; return the predictions of all."""
    lock, checkpoint = workspace.lock, progress.checkpoint
    oof_logits = np.zeros((len(lock.train_ids), lock.target.outputs), dtype=np.float32)
    for data in fits:
        if data.name not in checkpoint.fits:
            network = _fit(workspace, run, progress, data)
            is_final = data.name == "refit" or not run.recipe.refit
            fit = _finished(network, data, test_store, test_rows if is_final else None)
            checkpoint.finish(data.name, fit, progress.state_dict())
        oof_logits[data.validation_rows] = checkpoint.fits[data.name].oof_logits.numpy()
    test_logits = [fit.test_logits.numpy() for fit in checkpoint.fits.values() if fit.test_logits is not None]
    oof_rows = np.sort(np.concatenate([data.validation_rows for data in fits]))
    return Predictions(
        oof_ids=lock.train_ids[oof_rows],
        oof_logits=oof_logits[oof_rows],
        oof_labels=lock.train_labels[oof_rows],
        test_ids=lock.test_ids[test_rows],
        test_logits=np.mean(test_logits, axis=0, dtype=np.float64).astype(np.float32),
        classes=np.array(lock.classes),
        about={},
    )


def _fit(workspace: Workspace, run: PlannedRun, progress: ProgressRecorder, data: FitData) -> Network:
    """Train one network, with lr_find before it where the recipe asks for it.

    Where the memory is too small for a step, both begin again with each batch in twice as many parts.
    """
    recipe, paths, checkpoint, name = run.recipe, workspace.paths, progress.checkpoint, data.name
    while True:
        parts, images = checkpoint.parts.get(name, 1), progress.images_done
        data = replace(data, parts=parts)
        try:
            if recipe.learning_rate == "find" and name not in checkpoint.rates:
                result = find_learning_rate(recipe, data, root=paths.root)
                write_lr_curve(paths.lr_find_folder, run.run, result)
                progress.listener.note(f"lr_find suggests learning_rate = {result.rate:.2g}")
                checkpoint.rates[name] = result.rate
            rated = replace(recipe, learning_rate=checkpoint.rates.get(name, recipe.learning_rate))
            return fit_network(rated, data, root=paths.root, progress=progress)
        except StepMemoryError:
            if 4 * parts * recipe.accumulate > recipe.images_per_step:  # a part has two images or more
                raise
        torch.cuda.empty_cache()
        parts *= 2
        checkpoint.parts[name] = parts
        progress.restart(data.stage, images)
        progress.listener.note(f"the memory is full: starts again with batches in {parts * recipe.accumulate} parts")


def _finished(network: Network, data: FitData, test_store: PixelStore, test_rows: np.ndarray | None) -> FinishedFit:
    """What is kept of a trained network; without `test_rows` only its logits of the validation rows."""
    predicts_test = test_rows is not None
    oof_logits = check_finite(logits_of(network, data.store, data.validation_rows))
    test_logits = check_finite(logits_of(network, test_store, test_rows)) if predicts_test else None
    state = network.state_dict() if predicts_test else {}
    return FinishedFit(
        oof_logits=torch.from_numpy(oof_logits),
        test_logits=torch.from_numpy(test_logits) if predicts_test else None,
        parameters={key: value.detach().cpu().contiguous() for key, value in state.items()},
        normalisation=asdict(network.normalisation),
        scale=network.scale,
        precision=str(network.precision).removeprefix("torch."),
        learning_rate=network.recipe.learning_rate,
    )


def check_finite(logits: np.ndarray) -> np.ndarray:
    """Return the logits (n, classes); raises DivergedError if one is not finite, which only the last step can cause."""
    rows = int((~np.isfinite(logits)).any(axis=1).sum())
    if rows:
        raise diverged("finite logits", f"NaN or infinity in {rows:,} of {len(logits):,} rows after the last epoch")
    return logits


def _about(
    workspace: Workspace, run: PlannedRun, progress: ProgressRecorder, predictions: Predictions
) -> dict[str, Any]:
    """The JSON description of the predictions."""
    lock, device, checkpoint = workspace.lock, pick_device(), progress.checkpoint
    scores = lock.target.scores_of(predictions.oof_logits, predictions.oof_labels)
    fits, (*_, fit) = checkpoint.fits, checkpoint.fits.values()
    parts = run.recipe.accumulate * max(checkpoint.parts.values(), default=1)
    batches = {"batches": f"in {parts} parts, as the memory was full: batch norms had the statistics of a part"}
    fold_models = "this model" if len(fits) == 1 else f"average of {len(fits)} fold models"
    return _origin(workspace, run) | {
        "run": run.run,
        "recipe_name": run.recipe_name,
        "architecture": run.recipe.architecture_and_size,
        "fold_sha256": lock.fold_sha256,
        "fingerprint": lock.fingerprint,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "precision": fit.precision,
        "learning_rate": fit.learning_rate,
        "normalisation": fit.normalisation,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(progress.images_per_second, 1),
        "scores": {name: round(score, 6) for name, score in scores.items()},
        "target": lock.target.name,
        "scored": f"validation rows{', before refit' if run.recipe.refit else ''}",
        "test_logits_from": "refit on all labelled rows" if run.recipe.refit else fold_models,
        "git_commit": stamp.git_commit(workspace.paths.root),
        **(batches if checkpoint.parts else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _origin(workspace: Workspace, run: PlannedRun) -> dict[str, Any]:
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


def _save_parameters(file: Path, fits: dict[str, FinishedFit], *, about: dict[str, Any]) -> None:
    fits = {name: fit for name, fit in fits.items() if fit.parameters}
    tensors = {f"{name}.{key}": value for name, fit in fits.items() for key, value in fit.parameters.items()}
    metadata = {
        "about": about,
        "normalisations": {name: fit.normalisation for name, fit in fits.items()},
        "scales": {name: fit.scale for name, fit in fits.items()},
    }
    with atomic_write(file) as stream:
        stream.write(save(tensors, {key: json.dumps(value) for key, value in metadata.items()}))
