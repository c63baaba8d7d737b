"""Features of a pretrained body, computed once for all images and kept in the cache; heads that are fitted to them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from podium.config.keys import Recipe
from podium.config.recipe import WITHOUT_EPOCHS
from podium.errors import TrainingError
from podium.files import atomic_write, cache_lock, require_free_space
from podium.plan.runs import PlannedRun
from podium.plan.stamp import DamagedFileError, open_archive
from podium.predictions.artefact import read_array
from podium.training.batches.loader import EvaluationLoader, FitData
from podium.training.batches.stores import ExtendedStore, PixelStore
from podium.training.device import cpu_threads, pick_device, pick_precision, repeatable, spread_over_gpus
from podium.training.errors import name_run_in_errors
from podium.training.logistic import linear_layer
from podium.training.logits import predict_logits
from podium.training.networks.architectures import Network, build_network
from podium.training.networks.trees import fit_trees
from podium.training.rows import open_recipe_images, open_stores
from podium.workspace import Workspace

# Increased when a change of the code changes the features.
FEATURES_VERSION = 1
# Of the keys that have an effect where no layer is trained, those that do not change the features of given weights.
OTHER_KEYS = ("seeds", "pretrained", "head", "precision", "refit", "pseudo_labels")


def embed(workspace: Workspace, run: PlannedRun) -> Iterator[tuple[str, tuple[int, int]]]:
    """Compute or read the features of a recipe's pretrained body; yields `train` and `test`, each with their shape.

    Raises TrainingError where the recipe has no pretrained weights, and DataError.
    """
    recipe, paths = replace(run.recipe, head="logistic", epochs=0), workspace.paths
    with (
        name_run_in_errors(run.recipe_name, paths.recipe_file(run.recipe_name)),
        cpu_threads(recipe.threads),
        spread_over_gpus(),
        repeatable(recipe.deterministic, pick_device()),
    ):
        if not recipe.pretrained:
            raise TrainingError(
                "Features of a network that is not trained are of no use.",
                expected="pretrained weights",
                found="a recipe without `pretrained`",
            )
        device = pick_device()
        network = build_network(recipe, workspace.lock.target.outputs, root=paths.root, seed=0).to(device)
        network.precision = pick_precision(recipe, network, device)
        stores = open_stores(open_recipe_images(workspace, recipe))
        for store in filter(len, stores):  # there may be no test images
            yield store.origin[1], pooled_features(network, recipe, store, np.arange(len(store))).shape


def fit_head(network: Network, recipe: Recipe, data: FitData) -> None:
    """Replace the network's last layer by one that is fitted to the features of the training rows."""
    rows = data.training_rows
    features, targets = pooled_features(network, recipe, data.store, rows), data.targets[rows]
    with threadpool_limits(recipe.threads):
        if recipe.head == "logistic":
            layer = linear_layer(network, features, targets, data.classes, data.target)
        else:
            layer = fit_trees(features, targets, data.classes)
    network.head[-1] = layer.to(data.store.device)


def pooled_features(
    network: Network, recipe: Recipe, store: PixelStore | ExtendedStore, rows: np.ndarray
) -> np.ndarray:
    """Features (n, channels) of rows of a store, averaged over the views; the body must be the pretrained one.

    A store with an origin has the features of all its images, which are kept in the cache. Others are computed once
    for each image and kept in the store.
    """
    if isinstance(store, ExtendedStore):
        parts = store.split(torch.as_tensor(rows, device=store.device))  # training rows are in this order
        return np.concatenate([pooled_features(network, recipe, part, own.cpu().numpy()) for part, _, own in parts])
    if store.features is None and store.origin:
        store.features = _cached_features(network, recipe, store)
    missing = rows if store.features is None else rows[np.isnan(store.features[rows, 0])]
    if len(missing):
        features = _compute(network, recipe, store, missing)
        if store.features is None:
            store.features = np.full((len(store), features.shape[1]), np.nan, np.float32)
        store.features[missing] = features
    return store.features[rows]


def _compute(network: Network, recipe: Recipe, store: PixelStore, rows: np.ndarray) -> np.ndarray:
    body = Network(network.body, nn.Sequential(*network.head[:2]), network.normalisation)
    body.precision = network.precision
    loader = EvaluationLoader(store, rows, recipe, normalisation=network.normalisation)
    return predict_logits(body, loader, views=recipe.test_time_augmentation)


def _cached_features(network: Network, recipe: Recipe, store: PixelStore) -> np.ndarray:
    """The features (n, channels) of all images of a store's dataset, from the cache or computed and then kept there.

    A process that needs features which another one computes waits for them. Raises DataError for damaged images.
    """
    dataset, part = store.origin
    stem = dataset.features_stem(part)
    file = stem.with_name(f"{stem.name}-{_body_sha256(network, recipe, store)[:16]}.npz")
    with cache_lock(file.with_suffix(".lock")):
        try:
            with open_archive(file) as archive:
                return read_array(archive, "features")
        except (FileNotFoundError, DamagedFileError):
            pass
        features = _compute(network, recipe, store, np.arange(len(store)))
        dataset.verify_rows(part, range(len(store)))
        require_free_space(file.parent, features.nbytes, what="The features")
        with atomic_write(file) as stream:
            np.savez(stream, features=features)
    return features


def _body_sha256(network: Network, recipe: Recipe, store: PixelStore) -> str:
    """A hash of all that the features of an image depend on: the body, its weights, and how they are computed."""
    keys = {name: getattr(recipe, name) for name in WITHOUT_EPOCHS if name not in OTHER_KEYS}
    computed = [str(network.precision), store.device.type]  # they, and the threads, change the last bits
    content = [FEATURES_VERSION, keys, asdict(network.normalisation), computed]
    digest = hashlib.sha256(json.dumps(content).encode())
    for name, value in network.body.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
