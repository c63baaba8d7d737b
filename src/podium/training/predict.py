"""Predict the classes of new images with the saved parameters of a run."""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from podium.config.keys import Recipe
from podium.config.recipe import recipe_of
from podium.data.images import decode, is_image
from podium.errors import DataError, PodiumError, TrainingError
from podium.files import DAMAGE
from podium.predictions.artefact import load_predictions
from podium.training.batches.stores import Normalisation, PixelStore
from podium.training.device import cpu_threads, is_memory_error, name_run_in_errors, pick_device
from podium.training.inference import logits_of
from podium.training.networks.architectures import Network, build_network
from podium.workspace import Workspace


def predict_folder(workspace: Workspace, run: str, folder: Path) -> list[tuple[str, dict[str, str | float]]]:
    """The file name of every image below `folder` with its prediction, the columns of a table; by file name.

    Averages the logits of a run's fold models. Raises TrainingError and DataError.
    """
    file, predictions_file = workspace.paths.parameters_file(run), workspace.paths.predictions_file(run)
    if not file.is_file():
        found = "predictions without parameters, which are not committed"
        raise TrainingError(
            f"{run} has no trained parameters here.",
            file=file,
            found=found if predictions_file.is_file() else "neither parameters nor predictions",
            fix=_training_command(workspace, run),
        )
    predictions = load_predictions(predictions_file)
    target, names = predictions.target, _image_names(folder)
    if columns := predictions.about.get("recipe", {}).get("metadata_columns"):
        raise TrainingError(
            f"{run} cannot predict images alone.",
            expected=f"metadata beside each image, its {', '.join(columns)}",
            found=f"a folder of {len(names):,} images",
            fix="a run of a recipe without metadata_columns; or add the images to the test, then make all",
        )
    with name_run_in_errors(run, file, more_memory="end other programs, or predict fewer images at once"):
        networks = _read_networks(workspace, run, target.outputs, stamp=predictions.about.get("stamp"))
        images = np.stack([_read_image(folder / name, networks[0].recipe) for name in names])
        store = PixelStore(images, pick_device())
        with cpu_threads(networks[0].recipe.threads):
            logits = [logits_of(network, store, np.arange(len(images))) for network in networks]
    if not np.isfinite(logits).all():
        raise TrainingError(
            "The trained parameters give logits that are not finite.",
            file=file,
            expected="finite logits",
            found=f"NaN or infinity for {int((~np.isfinite(logits).all(axis=(0, 2))).sum())} of {len(names)} images",
            fix=_training_command(workspace, run),
        )
    probabilities = target.probabilities(np.mean(logits, axis=0))
    return [(name, target.prediction(row, predictions.classes)) for name, row in zip(names, probabilities, strict=True)]


def _training_command(workspace: Workspace, run: str) -> str:
    """The command that trains the run; for an unknown run, the names of those that have parameters."""
    if run in [planned.run for planned in workspace.runs]:
        return f"podium train {run} --again --competition {workspace.name}"
    files = workspace.paths.parameters_file(run).parent.glob("*.safetensors")
    others = sorted(file.stem for file in files if file.stem != run)
    return f"one of {', '.join(others)}" if others else f"podium train --competition {workspace.name}"


def _image_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError("There is no such folder.", file=folder, expected="a folder of images", found=found)
    images = [file for file in folder.rglob("*") if is_image(file.name) and file.is_file()]
    if not images:
        raise DataError("There are no images in the folder.", file=folder, expected="a folder of images")
    return sorted(file.relative_to(folder).as_posix() for file in images)


def _read_image(file: Path, recipe: Recipe) -> np.ndarray:
    try:
        return decode(file.read_bytes(), recipe.stored_pixels, shape=recipe.shape)
    except DataError as error:
        raise DataError(error.what, file=file, found=error.found) from None


def _read_networks(workspace: Workspace, run: str, classes: int, *, stamp: str | None) -> list[Network]:
    """The networks of a run's parameters file; raises TrainingError if `stamp`, the predictions' own, is another."""
    file, networks = workspace.paths.parameters_file(run), []
    try:
        with safe_open(file, framework="pt") as parameters:
            about, normalisations = (json.loads(parameters.metadata()[key]) for key in ("about", "normalisations"))
            scales = json.loads(parameters.metadata().get("scales", "{}"))  # older files have none
            if about["stamp"] != stamp:
                raise TrainingError(
                    "The parameters and the predictions are of different trainings.",
                    file=file,
                    expected=f"stamp {str(stamp)[:12]}, as in the predictions",
                    found=f"stamp {about['stamp'][:12]}",
                    fix=_training_command(workspace, run),
                )
            recipe = recipe_of(about["recipe"], file)
            for name, values in normalisations.items():
                network = build_network(recipe, classes, root=Path(), seed=0, weights=False, device=pick_device())
                keys = network.state_dict().keys()
                network.load_state_dict({key: parameters.get_tensor(f"{name}.{key}") for key in keys})
                network.normalisation = Normalisation(**values)
                network.scale = tuple(scales.get(name, (0.0, 1.0)))
                networks.append(network)
    except PodiumError:
        raise
    except (*DAMAGE, SafetensorError) as error:
        if is_memory_error(error):
            raise
        raise TrainingError(
            "The parameters file is damaged.",
            file=file,
            expected="a .safetensors file that podium train wrote",
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix=_training_command(workspace, run),
        ) from None
    return networks
