"""Train one run: every fold, the refit, and the files that it leaves."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from podium.errors import DataError
from podium.files import atomic_write, file_lock, os_error_as
from podium.plan import stamp
from podium.plan.paths import Paths
from podium.plan.runs import PlannedRun
from podium.predictions.artefact import Predictions, load_predictions, save_predictions
from podium.training.batches.stores import FitData, Store, open_recipe_images
from podium.training.checkpoint import Checkpoint, FinishedFit
from podium.training.device import StepMemoryError, cpu_threads, device_name, pick_device, repeatable
from podium.training.drawing import write_lr_curve
from podium.training.inference import logits_of
from podium.training.learner import fit_network, help_to_fit
from podium.training.lr_find import find_learning_rate
from podium.training.networks.architectures import Network
from podium.training.progress import Listener, diverged, write_history
from podium.training.ranks import Ranks, open_ranks
from podium.training.session import Training, fit_title, open_fits, open_training
from podium.training.trackers import open_trackers
from podium.workspace import Workspace

FIRST_FIT = "fold0"  # whose lr_find is drawn


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
    A run of all rows that was killed goes on from its checkpoint, and takes the fits that `train_fit` has trained.
    Raises TrainingError and DataError.
    """
    with open_training(workspace, run, listener or Listener(), rows=rows, test_rows=test_rows) as training:
        _train_fits(training)
        predictions = _join_fits(training)
        training.verify_data()
        predictions.about.update(_about(training, predictions))
        _save(workspace.paths, run.run, training.checkpoints, predictions)
        training.remove_checkpoints()
    return predictions


def train_fit(workspace: Workspace, run: PlannedRun, name: str, *, listener: Listener) -> None:
    """Train one fit of a run, such as fold0 or refit, and keep it for `train_run`.

    Fits can be trained side by side. Raises ConfigError for an unknown name, TrainingError and DataError.
    """
    with open_training(workspace, run, listener, only=name) as training:
        _train_fits(training)
        training.verify_data()
        checkpoint = training.checkpoints[name]
        if not checkpoint.saves:
            what, fix = f"{run.run}: a trained fit could not be written.", "free space, and repeat the command"
            raise DataError(what, file=checkpoint.file, fix=fix)


def _save(paths: Paths, run: str, checkpoints: Mapping[str, Checkpoint], predictions: Predictions) -> None:
    """Write all files of a run: the predictions, which make it up to date, last. A full disk must not lose them."""
    what = f"{run} is trained and its predictions are saved, but a file beside them could not be written."
    try:
        with os_error_as(DataError, what, fix="free space on the disk of this folder before the next run is trained"):
            epochs = chain.from_iterable(kept.state["progress"]["epochs"] for kept in checkpoints.values())
            write_history(paths.history_file(run), list(epochs))
            fits = {name: kept.finished for name, kept in checkpoints.items()}
            _save_parameters(paths.parameters_file(run), fits, about=predictions.about)
    except DataError:
        save_predictions(paths.predictions_file(run), predictions)
        raise
    save_predictions(paths.predictions_file(run), predictions)


def _train_fits(training: Training) -> None:
    """Train the fits of which nothing is kept yet, one after the other."""
    run, progress = training.run, training.progress
    for data in training.fits:
        with training.open_checkpoint(data) as checkpoint:
            if checkpoint.finished:
                progress.add(checkpoint.state["progress"])
                progress.listener.note(f"{data.name} is trained")
                continue
            name = data.name if len(training.stages) > 1 else ""
            others = [stage for stage in training.stages if stage != data.stage]
            with open_trackers(
                training.workspace, run, fit_title(run, name), checkpoint, other_stages=others
            ) as trackers:
                progress.begin_fit(checkpoint, trackers)
                network = _fit(training, data)
                is_final = data.name == "refit" or not run.recipe.refit
                fit = _finished(network, data, training.test_store, training.test_rows if is_final else None)
                checkpoint.finish(fit, progress.state_dict())


def _join_fits(training: Training) -> Predictions:
    """The predictions of all fits."""
    lock, test_rows = training.workspace.lock, training.test_rows
    finished = {name: checkpoint.finished for name, checkpoint in training.checkpoints.items()}
    oof_logits = np.zeros((len(lock.train_ids), lock.target.outputs), dtype=np.float32)
    for data in training.fits:
        oof_logits[data.validation_rows] = finished[data.name].oof_logits.numpy()
    test_logits = [fit.test_logits.numpy() for fit in finished.values() if fit.test_logits is not None]
    oof_rows = np.sort(np.concatenate([data.validation_rows for data in training.fits]))
    return Predictions(
        oof_ids=lock.train_ids[oof_rows],
        oof_logits=oof_logits[oof_rows],
        oof_labels=lock.train_labels[oof_rows],
        test_ids=lock.test_ids[test_rows],
        test_logits=np.mean(test_logits, axis=0, dtype=np.float64).astype(np.float32),
        classes=np.array(lock.classes),
        about={},
    )


def _fit(training: Training, data: FitData) -> Network:
    """Train one network, with lr_find before it where the recipe asks for it.

    Where the memory is too small for a step, both begin again with each batch in twice as many parts.
    """
    run, paths, progress = training.run, training.workspace.paths, training.progress
    recipe, checkpoint = run.recipe, progress.checkpoint
    while True:
        data = replace(data, parts=checkpoint.parts)
        try:
            if recipe.learning_rate == "find" and checkpoint.rate is None:
                result = find_learning_rate(recipe, data, root=paths.root)
                if data.name == FIRST_FIT:
                    write_lr_curve(paths.lr_find_folder, run.run, result)
                progress.listener.note(f"lr_find suggests learning_rate = {result.rate:.2g}")
                checkpoint.rate = result.rate
            rate = recipe.learning_rate if checkpoint.rate is None else checkpoint.rate
            rated = replace(recipe, learning_rate=rate)
            workspace = training.workspace.with_lock(replace(training.workspace.lock))  # without what cannot be sent
            call = (workspace, replace(run, recipe=rated), training.rows, data.name, data.parts)
            with open_ranks(recipe.processes, training.gpus, _help, *call) as ranks:
                return fit_network(rated, data, root=paths.root, progress=progress, ranks=ranks)
        except StepMemoryError:
            if 4 * data.parts * recipe.accumulate * recipe.processes > recipe.images_per_step:  # two images a part
                raise
        torch.cuda.empty_cache()
        checkpoint.parts *= 2
        progress.restart()
        parts = checkpoint.parts * recipe.accumulate
        progress.listener.note(f"the memory is full: starts again with batches in {parts} parts")


def _help(ranks: Ranks, workspace: Workspace, run: PlannedRun, rows: np.ndarray | None, name: str, parts: int) -> None:
    """In another process: train a part of each batch of a fit."""
    recipe = run.recipe
    with cpu_threads(recipe.threads), repeatable(recipe.deterministic, pick_device()):
        fits, _ = open_fits(workspace, run, open_recipe_images(workspace, recipe), rows, keeps_features=False)
        (data,) = (data for data in fits if data.name == name)
        help_to_fit(ranks, recipe, replace(data, parts=parts))


def _finished(network: Network, data: FitData, test_store: Store, test_rows: np.ndarray | None) -> FinishedFit:
    """What is kept of a trained network; without `test_rows` only its logits of the validation rows."""
    predicts_test = test_rows is not None
    state = network.state_dict() if predicts_test else {}
    return FinishedFit(
        oof_logits=_finite_logits(network, data.store, data.validation_rows),
        test_logits=_finite_logits(network, test_store, test_rows) if predicts_test else None,
        parameters={key: value.detach().cpu().contiguous() for key, value in state.items()},
        normalisation=asdict(network.normalisation),
        scale=network.scale,
        precision=str(network.precision).removeprefix("torch."),
        learning_rate=network.recipe.learning_rate,
        device=device_name(pick_device()),
    )


def _finite_logits(network: Network, store: Store, rows: np.ndarray) -> torch.Tensor:
    """Logits (n, outputs); raises DivergedError if one is not finite, which only the last step can cause."""
    logits = logits_of(network, store, rows)
    if wrong := int((~np.isfinite(logits)).any(axis=1).sum()):
        raise diverged("finite logits", f"NaN or infinity in {wrong:,} of {len(logits):,} rows after the last epoch")
    return torch.from_numpy(logits)


def _about(training: Training, predictions: Predictions) -> dict[str, Any]:
    """The JSON description of the predictions."""
    workspace, run, progress = training.workspace, training.run, training.progress
    lock, checkpoints = workspace.lock, training.checkpoints.values()
    scores = lock.target.scores_of(predictions.oof_logits, predictions.oof_labels)
    fits = [checkpoint.finished for checkpoint in checkpoints]
    devices, fit = sorted({fit.device for fit in fits}), fits[-1]
    most_parts = max(checkpoint.parts for checkpoint in checkpoints)
    parts = run.recipe.accumulate * most_parts
    pseudo_labels = len(training.fits[0].store) - len(lock.train_ids)
    batches = {"batches": f"in {parts} parts, as the memory was full: batch norms had the statistics of a part"}
    fold_models = "this model" if len(fits) == 1 else f"average of {len(fits)} fold models"
    return training.origin | {
        "run": run.run,
        "recipe_name": run.recipe_name,
        "architecture": run.recipe.architecture_and_size,
        "fold_sha256": lock.fold_sha256,
        "fingerprint": lock.fingerprint,
        "device": ", ".join(devices),
        "deterministic": len(devices) == 1 and (run.recipe.deterministic or devices[0].startswith("cpu")),
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
        **(batches if most_parts > 1 else {}),
        **({"pseudo_labels": pseudo_labels} if run.recipe.pseudo_labels else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
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
