"""Classes of new images by a run that was trained here."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from podium.config.keys import Recipe, recipe_of
from podium.data.images import decode, is_image
from podium.errors import DataError, TrainingError
from podium.metrics import softmax
from podium.plan.paths import Project
from podium.plan.runs import list_runs
from podium.predictions.artefact import load_predictions
from podium.training.batches.loader import Normalisation, PixelStore
from podium.training.device import cpu_threads, pick_device, pick_precision
from podium.training.learner import evaluation_loader
from podium.training.logits import predict_logits
from podium.training.networks.architectures import Network, build_network

# What reading a damaged file raises, or one that something else wrote. A ValueError would hide our own errors.
DAMAGE = (OSError, RuntimeError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError)


def predict_folder(project: Project, competition_name: str, run: str, folder: Path) -> list[tuple[str, str, float]]:
    """(file name, class name, probability) for every image below `folder`, sorted by name.

    Where a run has several fold models their logits are averaged. Raises TrainingError and DataError.
    """
    file, known = project.parameters_file(competition_name, run), project.predictions_file(competition_name, run)
    if not file.is_file():
        raise TrainingError(
            f"{run} has no trained parameters here.",
            file=file,
            found="predictions without parameters: they are not committed"
            if known.is_file()
            else "no predictions either",
            fix=_mend(project, competition_name, run),
        )
    predictions = load_predictions(known)
    names = _image_names(folder)
    try:
        recipe, models = _read_parameters(file, len(predictions.classes), stamp=predictions.about.get("stamp"))
    except TrainingError as error:
        fix = _mend(project, competition_name, run)
        raise TrainingError(error.what, file=file, expected=error.expected, found=error.found, fix=fix) from None
    images = np.stack([_image(folder / name, recipe) for name in names])
    with cpu_threads(recipe.threads):
        parts = [_logits(network, images, recipe, normalisation) for network, normalisation in models]
    probabilities = softmax(np.mean(parts, axis=0))
    best = probabilities.argmax(axis=1)
    return [
        (name, predictions.classes[label], float(row[label]))
        for name, label, row in zip(names, best, probabilities, strict=True)
    ]


def _mend(project: Project, competition_name: str, run: str) -> str:
    """The command that trains a run, or for one that no recipe has, the runs that have parameters here."""
    if run in [one.run for one in list_runs(project, competition_name)]:
        return f"podium train {run} --again --competition {competition_name}"
    files = project.parameters_file(competition_name, run).parent.glob("*.safetensors")
    others = sorted(file.stem for file in files if file.stem != run)
    return f"one of {', '.join(others)}" if others else f"podium train --competition {competition_name}"


def _image_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError("There is no such folder.", file=folder, expected="a folder of images", found=found)
    images = [one for one in folder.rglob("*") if is_image(one.name) and one.is_file()]
    if not images:
        raise DataError("There are no images.", file=folder, expected="a folder of images")
    return sorted(one.relative_to(folder).as_posix() for one in images)


def _image(file: Path, recipe: Recipe) -> np.ndarray:
    try:
        return decode(file.read_bytes(), recipe.stored_pixels, shape=recipe.shape)
    except DataError as error:
        raise DataError(error.what, file=file, found=error.found) from None


def _read_parameters(
    file: Path, classes: int, *, stamp: str | None
) -> tuple[Recipe, list[tuple[Network, Normalisation]]]:
    """The recipe and the networks of a file, each with how it looks at images; `stamp` is the predictions' own."""
    try:
        with safe_open(file, framework="pt") as stored:
            about, looks = (json.loads(stored.metadata()[name]) for name in ("about", "normalisations"))
            if about["stamp"] != stamp:
                raise TrainingError(
                    "The parameters are not those that made the run's predictions.",
                    expected=f"stamp {str(stamp)[:12]}",
                    found=f"stamp {about['stamp'][:12]}",
                )
            recipe = recipe_of(about["recipe"], file)
            return recipe, [
                (_network(stored, model, recipe, classes), Normalisation(**look)) for model, look in looks.items()
            ]
    except DAMAGE as error:
        raise TrainingError(
            "Not the whole parameters of a run.",
            expected="a .safetensors file that podium train wrote",
            found=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
        ) from None


def _network(stored: safe_open, model: str, recipe: Recipe, classes: int) -> Network:
    prefix = f"{model}."
    blank = build_network(recipe, classes, root=Path(), seed=0, weights=False)
    state = {
        name.removeprefix(prefix): stored.get_tensor(name)
        for name in stored.keys()  # noqa: SIM118 - no mapping
        if name.startswith(prefix)
    }
    blank.load_state_dict(state)
    return blank


def _logits(network: Network, images: np.ndarray, recipe: Recipe, normalisation: Normalisation) -> np.ndarray:
    store = PixelStore(images, pick_device())
    loader = evaluation_loader(store, np.arange(len(images)), recipe=recipe, normalisation=normalisation)
    network.to(store.device)
    precision: torch.dtype = pick_precision(recipe, network, store.device)
    return predict_logits(network, loader, views=recipe.test_time_augmentation, precision=precision)
