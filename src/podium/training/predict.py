"""Classes of new images by a run that was trained here."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from podium.config import Recipe, recipe_of
from podium.data.images import decode, is_image
from podium.data.loader import Normalisation, PixelStore
from podium.errors import DataError, TrainingError
from podium.metrics import softmax
from podium.predictions import load_predictions
from podium.project import Project
from podium.training.architectures import Network, build_network
from podium.training.device import cpu_threads, pick_device, pick_precision
from podium.training.learner import evaluation_loader
from podium.training.logits import predict_logits


def predict_folder(project: Project, competition_name: str, run: str, folder: Path) -> list[tuple[str, str, float]]:
    """(file name, class name, probability) for every image below `folder`, sorted by name.

    Where a run has several fold models their logits are averaged. Raises TrainingError and DataError.
    """
    file = project.parameters_file(competition_name, run)
    if not file.is_file():
        raise TrainingError(
            f"{run} has no trained parameters here.",
            file=file,
            found="predictions without parameters: they are not committed"
            if project.predictions_file(competition_name, run).is_file()
            else "no such run",
            mend=f"podium train {run} --again --competition {competition_name}",
        )
    classes = load_predictions(project.predictions_file(competition_name, run)).classes
    names = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if is_image(one.name))
    if not names:
        raise DataError("There are no images.", file=folder, expected="a folder of images")
    with safe_open(file, framework="pt") as stored:
        recipe = recipe_of(json.loads(stored.metadata()["about"])["recipe"], file)
        looks = json.loads(stored.metadata()["normalisations"])
        images = np.stack([_image(folder / name, recipe) for name in names])
        with cpu_threads(recipe.threads):
            parts = [
                _logits(_network(stored, model, recipe, len(classes)), images, recipe, Normalisation(**look))
                for model, look in looks.items()
            ]
    probabilities = softmax(np.mean(parts, axis=0))
    best = probabilities.argmax(axis=1)
    return [
        (name, str(classes[label]), float(row[label]))
        for name, label, row in zip(names, best, probabilities, strict=True)
    ]


def _image(file: Path, recipe: Recipe) -> np.ndarray:
    try:
        return decode(file.read_bytes(), recipe.stored_pixels, shape=recipe.shape)
    except DataError as error:
        raise DataError(error.what, file=file, found=error.found) from None


def _network(stored: safe_open, model: str, recipe: Recipe, classes: int) -> Network:
    prefix = f"{model}."
    blank = build_network(recipe, classes, root=Path(), seed=0, weights=False)
    state = {
        name.removeprefix(prefix): stored.get_tensor(name)
        for name in stored.keys()  # noqa: SIM118 - no mapping
        if name.startswith(prefix)
    }
    blank.load_state_dict(state)
    return blank.to(pick_device())


def _logits(network: Network, images: np.ndarray, recipe: Recipe, normalisation: Normalisation) -> np.ndarray:
    store = PixelStore(images, pick_device())
    loader = evaluation_loader(store, np.arange(len(images)), recipe=recipe, normalisation=normalisation)
    precision: torch.dtype = pick_precision(recipe, network, store.device)
    return predict_logits(network, loader, views=recipe.test_time_augmentation, precision=precision)
