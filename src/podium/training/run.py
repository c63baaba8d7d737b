"""One run, from its recipe to its predictions: every fold, the refit, the logits, the parameters."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from podium.config.keys import COMPETITION_FILE, read_competition
from podium.data.cache import Dataset
from podium.errors import DivergedError
from podium.files import atomic_write
from podium.lock import Lock, read_lock
from podium.metrics import accuracy, log_loss, softmax
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun
from podium.plan.stamp import TRAINING_VERSION, git_commit, weights_sha256
from podium.predictions.artefact import Predictions, save_predictions
from podium.training.batches.loader import PixelStore
from podium.training.cores import claim_cores
from podium.training.device import cpu_threads, device_name, pick_device, repeatable
from podium.training.faults import naming
from podium.training.learner import Fitted, evaluation_loader, fit_network
from podium.training.logits import predict_logits
from podium.training.lr_curve import write_finding
from podium.training.progress import Listener, Watch
from podium.training.rows import Material, count_images, recipe_images
from podium.training.trackers import open_trackers


@dataclass(frozen=True)
class _Outcome:
    """What the fits of a run gave."""

    oof_rows: np.ndarray
    oof_logits: np.ndarray
    test_logits: np.ndarray
    test_logits_from: str
    networks: dict[str, Fitted]


def train_run(
    project: Project,
    competition_name: str,
    run: PlannedRun,
    *,
    listener: Listener | None = None,
    rows: np.ndarray | None = None,
) -> Predictions:
    """Train one run, write its predictions, its parameters and its history, and return the predictions.

    `rows` (n,) restricts the labelled rows, for a rehearsal. Raises TrainingError and DataError.
    """
    listener = listener or Listener()
    recipe, device = run.recipe, pick_device()
    home = project.competition_folder(competition_name)
    lock = read_lock(project.lock_file(competition_name))
    dataset = recipe_images(project.paths(competition_name), recipe, lock=lock)
    rows = np.arange(len(lock.train_ids)) if rows is None else rows
    waiting = f"waits for {recipe.threads} free core{'s' if recipe.threads > 1 else ''}"
    history = project.history_file(competition_name, run.run)
    config = asdict(recipe) | {"seed": run.seed, "competition": competition_name}
    with (
        naming(run.run, home / f"{run.recipe_name}.toml"),
        claim_cores(recipe.threads, waiting=lambda: listener.note(waiting)),
        cpu_threads(recipe.threads),
        repeatable(recipe.deterministic, device),
        open_trackers(
            read_competition(home).trackers,
            history.parents[1],
            run.run,
            settings_file=home / COMPETITION_FILE,
            about=config,
        ) as trackers,
    ):
        images = count_images(recipe, lock.folds[rows])
        found = partial(write_finding, project.finder_folder(competition_name), run.recipe_name)
        watch = Watch(listener, history, images=images, found=found, trackers=trackers)
        outcome = _fit_folds(project, run, dataset, lock=lock, rows=rows, watch=watch, device=device)
        about = _about(project, run, lock=lock, outcome=outcome, watch=watch, device=device)
        predictions = Predictions(
            oof_ids=lock.train_ids[outcome.oof_rows],
            oof_logits=outcome.oof_logits,
            oof_labels=lock.train_labels[outcome.oof_rows],
            test_ids=lock.test_ids,
            test_logits=outcome.test_logits,
            classes=np.array(lock.classes),
            about=about,
        )
        # The predictions last: they alone decide whether the run is up to date. `podium predict` compares the stamps.
        # Both before the trackers end, which may wait for a network.
        _save_parameters(project.parameters_file(competition_name, run.run), outcome.networks, about=about)
        save_predictions(project.predictions_file(competition_name, run.run), predictions)
    return predictions


def _fit_folds(
    project: Project,
    run: PlannedRun,
    dataset: Dataset,
    *,
    lock: Lock,
    rows: np.ndarray,
    watch: Watch,
    device: torch.device,
) -> _Outcome:
    recipe = run.recipe
    train_store, test_store = (
        PixelStore(dataset.train_images, device),
        PixelStore(dataset.test_images, device),
    )
    folds = [int(fold) for fold in np.unique(lock.folds[rows]) if fold >= 0]
    oof_rows = rows[lock.folds[rows] >= 0]
    oof_logits = np.zeros((len(lock.train_ids), len(lock.classes)), dtype=np.float32)
    test_logits: list[np.ndarray] = []
    networks: dict[str, Fitted] = {}

    def fit(training_rows: np.ndarray, validation_rows: np.ndarray, *, purpose: str, stage: str) -> Fitted:
        material = Material(
            train_store,
            dataset.train_images,
            lock.train_labels,
            len(lock.classes),
            training_rows,
            validation_rows,
        )
        return fit_network(
            recipe, material, seed=run.seed, purpose=purpose, root=project.root, watch=watch, stage=stage
        )

    def logits(fitted: Fitted, store: PixelStore, wanted: np.ndarray) -> np.ndarray:
        loader = evaluation_loader(store, wanted, recipe=recipe, normalisation=fitted.normalisation)
        views, precision = recipe.test_time_augmentation, fitted.precision
        return checked_logits(predict_logits(fitted.network, loader, views=views, precision=precision))

    for fold in folds:
        inside = lock.folds[rows] == fold
        stage = f" fold {fold + 1}/{len(folds)}" if len(folds) > 1 else ""
        fitted = fit(rows[~inside], rows[inside], purpose=f"/fold{fold}", stage=stage)
        oof_logits[rows[inside]] = logits(fitted, train_store, rows[inside])
        if not recipe.refit:
            test_logits.append(logits(fitted, test_store, np.arange(len(test_store))))
            networks[f"fold{fold}"] = fitted
    if recipe.refit:
        fitted = fit(rows, rows[:0], purpose="/refit", stage=" refit")
        test_logits.append(logits(fitted, test_store, np.arange(len(test_store))))
        networks["refit"] = fitted
    source = "this model" if len(folds) == 1 else f"average of {len(folds)} fold models"
    return _Outcome(
        oof_rows,
        oof_logits[oof_rows],
        np.mean(test_logits, axis=0, dtype=np.float64).astype(np.float32),
        "refit on all labelled rows" if recipe.refit else source,
        networks,
    )


def checked_logits(logits: np.ndarray) -> np.ndarray:
    """The logits (n, classes), if the step after the last loss that was seen did not ruin the network."""
    ruined = int((~np.isfinite(logits)).any(axis=1).sum())
    if ruined:
        raise DivergedError(
            "Training diverged.",
            expected="logits that are numbers",
            found=f"NaN or infinity in {ruined:,} of {len(logits):,} rows after the last epoch",
            fix="a smaller `learning_rate`, or `gradient_clip = 1.0`, in the recipe",
        )
    return logits


def _about(
    project: Project, run: PlannedRun, *, lock: Lock, outcome: _Outcome, watch: Watch, device: torch.device
) -> dict[str, Any]:
    probabilities = softmax(outcome.oof_logits)
    labels = lock.train_labels[outcome.oof_rows]
    fitted = next(reversed(outcome.networks.values()))
    return {
        "run": run.run,
        "recipe_name": run.recipe_name,
        "architecture": run.recipe.architecture_and_size,
        "recipe": asdict(run.recipe),
        "seed": run.seed,
        "stamp": run.stamp,
        "weights_sha256": weights_sha256(run.recipe, project.root),
        "fold_sha256": lock.fold_sha256,
        "fingerprint": lock.fingerprint,
        "training_version": TRAINING_VERSION,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "torchvision", "fastai", "timm", "numpy")},
        "device": device_name(device),
        "threads": run.recipe.threads,
        "deterministic": device.type == "cpu" or torch.are_deterministic_algorithms_enabled(),
        "precision": str(fitted.precision).removeprefix("torch."),
        "learning_rate": fitted.learning_rate,
        "normalisation": asdict(fitted.normalisation),
        "seconds": round(watch.seconds, 1),
        "images_per_second": round(watch.images_per_second, 1),
        "scores": {
            "accuracy": round(accuracy(probabilities, labels), 6),
            "log_loss": round(log_loss(probabilities, labels), 6),
        },
        "scored": f"validation rows{', before refit' if run.recipe.refit else ''}",
        "test_logits_from": outcome.test_logits_from,
        "git_commit": git_commit(project.root),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _save_parameters(file: Path, networks: dict[str, Fitted], *, about: dict[str, Any]) -> None:
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, fitted in networks.items()
        for key, value in fitted.network.state_dict().items()
    }
    views = {name: asdict(fitted.normalisation) for name, fitted in networks.items()}
    metadata = {"about": json.dumps(about), "normalisations": json.dumps(views)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as stream:
        stream.write(save(tensors, metadata))
