"""Predict new images with the saved parameters of runs: of one run, or of the members of an ensemble."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from podium.config.keys import Recipe
from podium.config.pixels import count_pixels, height_and_width
from podium.config.recipe import recipe_of
from podium.data.images import decode, is_image
from podium.data.jpeg_file import in_format
from podium.data.listing import find_new_images, ids_of
from podium.errors import DataError, PodiumError, TrainingError
from podium.files import DAMAGE
from podium.plan.runs import check_parameters, training_command
from podium.plan.stamp import read_about
from podium.training.batches.stores import Normalisation, PixelStore
from podium.training.device import count_gpus, cpu_threads, is_memory_error, name_run_in_errors, pick_device
from podium.training.inference import logits_of
from podium.training.networks.architectures import Network, build_network
from podium.workspace import Workspace

# Images, and bytes of their pixels, that are read and predicted at a time.
IMAGES_AT_A_TIME, BYTES_AT_A_TIME = 1024, 1 << 28
LESS_AT_ONCE = "end other programs, or predict fewer images at once"

Networks = Mapping[str, Sequence[Network]]
"""Run -> its networks, one per fold, all on one device."""
Blend = Callable[[np.ndarray], np.ndarray]
"""Makes probabilities (n, outputs) of the logits (runs, n, outputs) of runs."""


@dataclass(frozen=True, eq=False)
class Predictor:
    """The networks of runs, once for each device, and the blend of their logits."""

    workspace: Workspace
    networks: Sequence[Networks]
    blend: Blend

    def predict(self, files: Sequence[Path], *, otherwise: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield the probabilities (n, outputs) of the first image files, of the next ones, and so on.

        An image that is damaged, or whose logits are not finite, gets the probabilities `otherwise` (outputs,); without
        them DataError or TrainingError is raised.
        """
        recipes = [fits[0].recipe for fits in self.networks[0].values()]
        largest = max(3 * count_pixels(recipe.stored_pixels) for recipe in recipes)
        size = max(1, min(IMAGES_AT_A_TIME, BYTES_AT_A_TIME // largest))
        # On a GPU two threads share the networks: one reads images while those of the other are predicted.
        count, readers = len(self.networks), ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        workers = ThreadPoolExecutor(2 * count if pick_device().type == "cuda" else count)

        def predict_block(block: int) -> np.ndarray:
            block_files = files[block * size : (block + 1) * size]
            return self._predict_block(self.networks[block % count], block_files, readers, otherwise)

        with readers, workers, cpu_threads(max(recipe.threads for recipe in recipes)):
            yield from workers.map(predict_block, range(-(-len(files) // size)))

    def _predict_block(
        self, networks: Networks, files: Sequence[Path], readers: Executor, otherwise: np.ndarray | None
    ) -> np.ndarray:
        logits, images = [], {}
        for run, fits in networks.items():
            recipe = fits[0].recipe
            with _name_run_in_errors(self.workspace, run):
                if recipe.storage not in images:
                    read = partial(_read_image, recipe=recipe, may_be_damaged=otherwise is not None)
                    images[recipe.storage] = list(readers.map(read, files))
                logits.append(mean_logits(fits, images[recipe.storage]))
                wrong = (~np.isfinite(logits[-1]).all(axis=1)).sum()
                if wrong and otherwise is None:
                    found = f"NaN or infinity for {wrong} of {len(files)} images"
                    raise TrainingError("The trained parameters give logits that are not finite.", found=found)
        finite = np.isfinite(logits).all(axis=(0, 2))
        probabilities = self.blend(np.where(finite[:, None], logits, 0))
        return probabilities if otherwise is None else np.where(finite[:, None], probabilities, otherwise)


def mean_logits(fits: Sequence[Network], images: Sequence[np.ndarray | None]) -> np.ndarray:
    """Logits (n, outputs) float32 of images, averaged over networks; NaN where an image could not be read."""
    blank = np.zeros((*height_and_width(fits[0].recipe.stored_pixels), 3), np.uint8)
    pixels = np.stack([blank if image is None else image for image in images])
    store = PixelStore(pixels, next(fits[0].parameters()).device)
    logits = [logits_of(network, store, np.arange(len(store))) for network in fits]
    mean = np.mean(logits, axis=0, dtype=np.float64).astype(np.float32)
    mean[[image is None for image in images]] = np.nan
    return mean


def open_predictor(workspace: Workspace, runs: Sequence[str], blend: Blend | None = None) -> Predictor:
    """The predictor of runs of the data of `data.lock`, on every GPU, unless PODIUM_DEVICE names one.

    Without a `blend` it gives the probabilities of the first run. Raises TrainingError.
    """
    check_parameters(workspace, runs)
    count, target = count_gpus(), workspace.lock.target
    devices = [torch.device("cuda", number) for number in range(count)] if count > 1 else [pick_device()]
    networks = [{run: _read_networks(workspace, run, device=device) for run in runs} for device in devices]
    return Predictor(workspace, networks, blend or (lambda logits: target.probabilities(logits[0])))


def open_networks(workspace: Workspace, run: str, *, device: torch.device) -> list[Network]:
    """The networks of one run, of the data of `data.lock`, in float32 on a device; raises TrainingError."""
    check_parameters(workspace, [run])
    networks = _read_networks(workspace, run, device=device)
    for network in networks:
        network.precision = torch.float32
    return networks


def predict_images(
    predictor: Predictor, place: Path, *, probabilities: bool = False
) -> list[tuple[str, dict[str, str | float]]]:
    """The id of each image in a place (see `find_new_images`) with its prediction, the columns of a table.

    With `probabilities`, these are a column for each class. Raises TrainingError, and DataError for a place without
    images, for images that are missing or damaged, and for probabilities of numbers.
    """
    lock = predictor.workspace.lock
    target, classes = lock.target, lock.classes
    if probabilities and not target.has_probabilities:
        raise DataError(f"There are no probabilities of a target that is a number ({target.name}).", fix="omit them")
    images = find_new_images(place)
    rows = np.concatenate(list(predictor.predict(list(images.values()))))
    have_suffix = any(is_image(str(ids[0])) for ids in (lock.train_ids, lock.test_ids) if len(ids))  # as 1.jpg has one
    ids = ids_of(images, with_suffix=have_suffix)
    columns = (lambda row: dict(zip(classes, row.tolist(), strict=True))) if probabilities else None
    predict = columns or (lambda row: target.prediction(row, classes))
    return [(id_, predict(row)) for id_, row in zip(ids, rows, strict=True)]


def _read_image(file: Path, *, recipe: Recipe, may_be_damaged: bool) -> np.ndarray | None:
    """Pixels as the recipe stores them; None for an image that cannot be read and `may_be_damaged`."""
    try:
        return in_format(decode(file.read_bytes(), recipe.stored_pixels, shape=recipe.shape), recipe.stored_format)
    except (DataError, OSError) as error:
        if may_be_damaged:
            return None
        if isinstance(error, OSError):
            raise
        raise DataError(error.what, file=file, found=error.found) from None


def _name_run_in_errors(workspace: Workspace, run: str) -> AbstractContextManager[None]:
    """Add the run, its parameters file and the command that trains it to every TrainingError."""
    file, fix = workspace.paths.parameters_file(run), training_command(workspace, run)
    return name_run_in_errors(run, file, fix=fix, more_memory=LESS_AT_ONCE)


def _read_networks(workspace: Workspace, run: str, *, device: torch.device) -> list[Network]:
    """The networks of a run's parameters file; raises TrainingError if its predictions or data are others."""
    file, outputs = workspace.paths.parameters_file(run), workspace.lock.target.outputs
    with _name_run_in_errors(workspace, run):
        try:
            with safe_open(file, framework="pt") as parameters:
                metadata = {key: json.loads(value) for key, value in parameters.metadata().items()}
                about, scales = metadata["about"], metadata.get("scales", {})  # older files have no scales
                _check_about(workspace, run, about)
                recipe, networks = recipe_of(about["recipe"], file), []
                for name, values in metadata["normalisations"].items():
                    network = build_network(recipe, outputs, root=Path(), seed=0, weights=False, device=device)
                    keys = network.state_dict().keys()
                    network.load_state_dict({key: parameters.get_tensor(f"{name}.{key}") for key in keys})
                    network.normalisation = Normalisation(**values)
                    network.scale = tuple(scales.get(name, (0.0, 1.0)))
                    networks.append(network)
            return networks
        except PodiumError:
            raise
        except (*DAMAGE, SafetensorError) as error:
            if is_memory_error(error):
                raise
            found = f"{type(error).__name__}: {str(error)[:200]}"
            what, expected = "The parameters file is damaged.", "a .safetensors file that podium train wrote"
            raise TrainingError(what, expected=expected, found=found) from None


def _check_about(workspace: Workspace, run: str, about: dict) -> None:
    """Raise TrainingError unless parameters belong to the run's predictions, and to the data of `data.lock`.

    Where there are no predictions, as in a notebook at Kaggle, only the data are compared.
    """
    stamp = (read_about(workspace.paths.predictions_file(run)) or about).get("stamp")
    faults = {
        "The parameters and the predictions are of different trainings.": ("stamp", stamp),
        "The parameters were trained on other data than those of data.lock.": (
            "fingerprint",
            workspace.lock.fingerprint,
        ),
    }
    for what, (key, expected) in faults.items():
        if about[key] != expected:
            raise TrainingError(what, expected=f"{key} {str(expected)[:12]}", found=f"{key} {about[key][:12]}")
    if columns := about["recipe"].get("metadata_columns"):
        raise TrainingError(
            f"{run} cannot predict images alone.",
            expected=f"metadata beside each image, its {', '.join(columns)}",
            found="images alone",
            fix="a run of a recipe without metadata_columns; or add the images to the test, then make all",
        )
