"""Train one run: every fold, the refit, and the files that it leaves."""

import json
import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from podium.data.cache import Dataset
from podium.data.folds import ALWAYS_TRAINS
from podium.errors import DataError, DivergedError
from podium.files import atomic_write, os_error_as
from podium.plan.runs import PlannedRun
from podium.plan.stamp import TRAINING_VERSION, git_commit, is_stale, weights_sha256
from podium.predictions.artefact import Predictions, load_predictions, save_predictions
from podium.predictions.pseudo import PseudoLabels, read_pseudo_labels
from podium.training.batches.stores import ExtendedStore, FitData, open_recipe_images, open_stores
from podium.training.device import claim_cores, claim_run, computing, device_name, pick_device
from podium.training.drawing import write_lr_curve
from podium.training.inference import logits_of
from podium.training.learner import count_images, fit_network
from podium.training.lr_find import find_learning_rate
from podium.training.networks.architectures import Network
from podium.training.progress import Listener, ProgressRecorder
from podium.training.trackers import open_trackers
from podium.workspace import Workspace


def train_if_stale(workspace: Workspace, run: PlannedRun, *, listener: Listener) -> Predictions:
    """Train one run, or load its predictions where another process trained it at the same time; see `train_run`."""
    paths = workspace.paths
    file, weights = paths.predictions_file(run.run), weights_sha256(run.recipe, paths.root)
    on_wait = partial(listener.note, "waits for another process that trains it")
    with claim_run(paths.cache / f"{run.run}.lock", on_wait=on_wait):
        if is_stale(file, stamp=run.stamp, weights=weights):
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
    Raises TrainingError and DataError.
    """
    listener, recipe, paths, lock = listener or Listener(), run.recipe, workspace.paths, workspace.lock
    dataset, pseudo = open_recipe_images(workspace, recipe), read_pseudo_labels(paths.root, recipe.pseudo_labels, lock)
    pseudo = pseudo if rows is None else PseudoLabels(*(values[: len(rows)] for values in pseudo))  # in a rehearsal
    rows = np.arange(len(lock.train_ids)) if rows is None else rows
    cores = "core" if recipe.threads == 1 else "cores"
    with (
        claim_cores(recipe.threads, on_wait=lambda: listener.note(f"waits for {recipe.threads} free {cores}")),
        computing(run.run, paths.recipe_file(run.recipe_name), recipe),
        open_trackers(workspace, run, note=listener.note) as trackers,
    ):
        dataset.verify()
        images = count_images(recipe, pseudo.added_to(lock.folds[rows], ALWAYS_TRAINS))
        progress = ProgressRecorder(listener, images=images, trackers=trackers)
        predictions, networks = _fit_folds(
            workspace, run, dataset, rows=rows, pseudo=pseudo, test_rows=test_rows, progress=progress
        )
        predictions.about.update(_about(workspace, run, predictions, networks, progress))
        if recipe.pseudo_labels:
            predictions.about["pseudo_labels"] = len(pseudo.rows)
        # The predictions are first, as they are small and a full disk must not lose them. All files are saved before
        # the trackers close, which may wait for a network.
        save_predictions(paths.predictions_file(run.run), predictions)
        what = f"{run.run} is trained and its predictions are saved, but a file beside them could not be written."
        with os_error_as(DataError, what, fix="free space on the disk of this folder before the next run is trained"):
            progress.write_history(paths.history_file(run.run))
            _save_parameters(paths.parameters_file(run.run), networks, about=predictions.about)
    return predictions


def _fit_folds(
    workspace: Workspace,
    run: PlannedRun,
    dataset: Dataset,
    *,
    rows: np.ndarray,
    pseudo: PseudoLabels,
    test_rows: int | None,
    progress: ProgressRecorder,
) -> tuple[Predictions, dict[str, Network]]:
    """Return the predictions, and the networks that made the test logits."""
    lock = workspace.lock
    folds_of_rows, outputs = lock.folds[rows], lock.target.outputs
    labels, added = lock.train_labels, len(lock.folds) + np.arange(len(pseudo.rows))
    labels = np.concatenate([labels, pseudo.labels]) if len(added) else labels
    keeps_features = len(rows) == len(lock.folds) and test_rows is None
    train_store, test_store = open_stores(dataset, keeps_features=keeps_features)
    store = ExtendedStore(train_store, test_store, pseudo.rows) if len(added) else train_store
    test_indices = np.arange(len(lock.test_ids))[:test_rows]
    folds = np.unique(folds_of_rows[folds_of_rows >= 0]).tolist()
    oof_logits = np.zeros((len(lock.train_ids), outputs), dtype=np.float32)
    test_logits: list[np.ndarray] = []
    networks: dict[str, Network] = {}
    fits = [
        (f"fold{fold}", f" fold {fold + 1}/{len(folds)}" if len(folds) > 1 else "", folds_of_rows == fold)
        for fold in folds
    ]
    if run.recipe.refit:
        fits.append(("refit", " refit", np.zeros(len(rows), dtype=bool)))
    for name, stage, validates in fits:
        data = FitData(store, labels, outputs, np.append(rows[~validates], added), rows[validates], lock.target)
        network = _fit(workspace, run, data, purpose=f"/{name}", progress=progress, stage=stage)
        if name != "refit":
            oof_logits[rows[validates]] = check_finite(logits_of(network, train_store, rows[validates]))
        if name == "refit" or not run.recipe.refit:
            networks[name] = network
            test_logits.append(check_finite(logits_of(network, test_store, test_indices)))
    oof_rows = rows[folds_of_rows >= 0]
    predictions = Predictions(
        oof_ids=lock.train_ids[oof_rows],
        oof_logits=oof_logits[oof_rows],
        oof_labels=labels[oof_rows],
        test_ids=lock.test_ids[test_indices],
        test_logits=np.mean(test_logits, axis=0, dtype=np.float64).astype(np.float32),
        classes=np.array(lock.classes),
        about={},
    )
    return predictions, networks


def _fit(
    workspace: Workspace, run: PlannedRun, data: FitData, *, purpose: str, progress: ProgressRecorder, stage: str
) -> Network:
    """Train one network, with lr_find before it where the recipe asks for it."""
    recipe, paths = run.recipe, workspace.paths
    if recipe.learning_rate == "find":
        result = find_learning_rate(recipe, data, seed=run.seed, root=paths.root)
        write_lr_curve(paths.lr_find_folder, run.run, result)
        progress.listener.note(f"lr_find suggests learning_rate = {result.rate:.2g}")
        recipe = replace(recipe, learning_rate=result.rate)
    return fit_network(recipe, data, seed=run.seed, purpose=purpose, root=paths.root, progress=progress, stage=stage)


def check_finite(logits: np.ndarray) -> np.ndarray:
    """Return the logits (n, classes); raises DivergedError if one is not finite, which only the last step can cause."""
    rows = int((~np.isfinite(logits)).any(axis=1).sum())
    if rows:
        raise DivergedError(
            "Training diverged.",
            expected="finite logits",
            found=f"NaN or infinity in {rows:,} of {len(logits):,} rows after the last epoch",
            fix="a smaller `learning_rate`, or `gradient_clip = 1.0`, in the recipe",
        )
    return logits


def _about(
    workspace: Workspace,
    run: PlannedRun,
    predictions: Predictions,
    networks: dict[str, Network],
    progress: ProgressRecorder,
) -> dict[str, Any]:
    """The JSON description of the predictions."""
    lock, root, device = workspace.lock, workspace.paths.root, pick_device()
    scores = lock.target.scores_of(predictions.oof_logits, predictions.oof_labels)
    *_, network = networks.values()
    fold_models = "this model" if len(networks) == 1 else f"average of {len(networks)} fold models"
    packages = ("torch", "torchvision", "fastai", "timm", "numpy")
    return {
        "run": run.run,
        "recipe_name": run.recipe_name,
        "architecture": run.recipe.architecture_and_size,
        "recipe": asdict(run.recipe),
        "seed": run.seed,
        "stamp": run.stamp,
        "weights_sha256": weights_sha256(run.recipe, root),
        "fold_sha256": lock.fold_sha256,
        "fingerprint": lock.fingerprint,
        "training_version": TRAINING_VERSION,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "device": device_name(device),
        "threads": run.recipe.threads,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "precision": str(network.precision).removeprefix("torch."),
        "learning_rate": network.recipe.learning_rate,
        "normalisation": asdict(network.normalisation),
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(progress.images_per_second, 1),
        "scores": {name: round(score, 6) for name, score in scores.items()},
        "target": lock.target.name,
        "scored": f"validation rows{', before refit' if run.recipe.refit else ''}",
        "test_logits_from": "refit on all labelled rows" if run.recipe.refit else fold_models,
        "git_commit": git_commit(root),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _save_parameters(file: Path, networks: dict[str, Network], *, about: dict[str, Any]) -> None:
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    metadata = {
        "about": about,
        "normalisations": {name: asdict(network.normalisation) for name, network in networks.items()},
        "scales": {name: network.scale for name, network in networks.items()},
    }
    with atomic_write(file) as stream:
        stream.write(save(tensors, {key: json.dumps(value) for key, value in metadata.items()}))
