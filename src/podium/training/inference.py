"""What a trained network computes of images: logits, and features, which are kept in the cache for heads on them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from podium.config.pixels import Pixels, count_pixels
from podium.config.recipe import WITHOUT_EPOCHS
from podium.errors import TrainingError
from podium.files import atomic_write, cache_lock, require_free_space
from podium.plan.runs import PlannedRun
from podium.predictions.artefact import read_features
from podium.training.batches.augment import resize
from podium.training.batches.stores import ExtendedStore, FitData, Normaliser, Store, open_recipe_images, open_stores
from podium.training.device import computing
from podium.training.networks.architectures import Network, build_network
from podium.training.networks.heads import fit_linear, fit_trees, metadata_encoder
from podium.workspace import Workspace

# `test_time_augmentation` -> views of each image.
VIEWS = {"none": 1, "flip": 2, "flip-and-shift": 6}
# At most so many images are predicted at once; on a CPU, whose caches are small, at most so many of their pixels too.
EVALUATION_BATCH, EVALUATION_PIXELS = 256, 32 * 128**2
# Increased when a change of the code changes the features.
FEATURES_VERSION = 1
# Of the keys that have an effect where no layer is trained, those that do not change the features of given weights.
OTHER_KEYS = ("seeds", "pretrained", "head", "precision", "refit", "pseudo_labels", "metadata_columns")


def logits_of(network: Network, store: Store, rows: np.ndarray, *, views: str = "") -> np.ndarray:
    """Logits (n, outputs) float32 of rows of a store, averaged over the views of the recipe, or over other `views`."""
    layer, recipe, (mean, deviation) = network.head[-1], network.recipe, network.scale
    if not len(rows):  # a competition without test images
        return np.empty((0, layer.out_features), np.float32)
    if recipe.epochs:
        batches = evaluation_batches(network, store, rows)
        outputs = predict_logits(network, batches, views=views or recipe.test_time_augmentation)
    else:  # the features of the store were computed by the same body
        inputs = torch.from_numpy(_head_inputs(network, store, rows))
        with torch.inference_mode():
            outputs = layer(inputs.to(store.device)).cpu().numpy()
    return outputs if network.scale == (0.0, 1.0) else (outputs * deviation + mean).astype(np.float32)


def evaluation_batch(pixels: Pixels, device: torch.device) -> int:
    """How many images of `pixels` are predicted at once."""
    most = EVALUATION_PIXELS // count_pixels(pixels)
    return min(EVALUATION_BATCH, max(1, most)) if device.type == "cpu" else EVALUATION_BATCH


def evaluation_batches(network: Network, store: Store, rows: np.ndarray) -> Iterator[Tensor]:
    """Yield the images (n, 3, h, w) of the rows in their order, resized and normalised as the network needs them."""
    recipe, normalise = network.recipe, Normaliser(network.normalisation, store)
    batch_size = evaluation_batch(recipe.network_pixels, store.device)
    rows = torch.as_tensor(rows, dtype=torch.int64, device=store.device)
    for batch in store.batches(rows.tensor_split(max(1, -(-len(rows) // batch_size)))):
        yield resize(normalise(batch.gather()), recipe.network_pixels, recipe.interpolation)


def predict_logits(network: nn.Module, batches: Iterable[Tensor], *, views: str) -> np.ndarray:
    """Logits (n, classes) float32 of batches of images in their order, averaged over the `views` of each image."""
    network.eval()
    logits = []
    with torch.inference_mode():
        for images in batches:
            logits.append(sum(weight * network(view) for weight, view in views_of(images, views)).cpu())
    return torch.cat(logits).numpy()


def views_of(images: Tensor, views: str) -> list[tuple[float, Tensor]]:
    """Views of (n, 3, h, w) images with their weights, which sum to 1."""
    if views == "none":
        return [(1.0, images)]
    mirrored = [(0.5, images), (0.5, images.flip(3))]
    if views == "flip":
        return mirrored
    # airbench's six views: not shifted, shifted by a pixel up-left and down-right; each of them mirrored too.
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect" if min(height, width) > 1 else "replicate")
    shifted = [padded[:, :, :height, :width], padded[:, :, 2:, 2:]]
    return [(0.5 * weight, view) for weight, view in mirrored] + [
        (0.125, view) for images in shifted for view in (images, images.flip(3))
    ]


def embed(workspace: Workspace, run: PlannedRun) -> Iterator[tuple[str, tuple[int, int]]]:
    """Compute or read the features of a recipe's pretrained body; yields `train` and `test`, each with their shape.

    Raises TrainingError where the recipe has no pretrained weights, and DataError.
    """
    recipe, paths = replace(run.recipe, head="logistic", epochs=0), workspace.paths
    with computing(run.recipe_name, paths.recipe_file(run.recipe_name), recipe):
        if not recipe.pretrained:
            what = "Features of a network that is not trained are of no use."
            raise TrainingError(what, expected="pretrained weights, in the key `pretrained`")
        outputs, stores = workspace.lock.target.outputs, open_stores(open_recipe_images(workspace, recipe))
        network = build_network(recipe, outputs, root=paths.root, seed=0, device=stores[0].device)
        for store in filter(len, stores):  # there may be no test images
            yield store.origin[1], pooled_features(network, store, np.arange(len(store))).shape


def fit_head(network: Network, data: FitData) -> None:
    """Fit the last layer to the features of the training rows, and to their metadata if the store has any."""
    store, rows, layer = data.store, data.training_rows, network.head[-1]
    network.encoder = None if store.metadata is None else metadata_encoder(store.metadata[rows])
    inputs, targets = _head_inputs(network, store, rows), data.targets[rows]
    with threadpool_limits(network.recipe.threads):
        if network.recipe.head == "logistic":
            fit_linear(layer, inputs, targets, target=data.target, published=network.published)
        else:
            network.head[-1] = fit_trees(inputs, targets, data.classes, target=data.target).to(store.device)


def _head_inputs(network: Network, store: Store, rows: np.ndarray) -> np.ndarray:
    """What the last layer gets of rows, float32: the pooled features, then the columns that metadata is encoded in."""
    features = pooled_features(network, store, rows)
    if not network.encoder:
        return features
    return np.hstack([features, network.encoder.transform(store.metadata[rows])]).astype(np.float32)


def pooled_features(network: Network, store: Store, rows: np.ndarray) -> np.ndarray:
    """Features (n, channels) of rows of a store, averaged over the views; the body must be the pretrained one.

    A store with an origin has the features of all its images, which are kept in the cache.
    """
    if isinstance(store, ExtendedStore):
        parts = store.split(torch.as_tensor(rows, device=store.device))  # training rows are in this order
        return np.concatenate([pooled_features(network, part, own.cpu().numpy()) for part, _, own in parts])
    if not store.origin:
        return _compute(network, store, rows)
    if store.features is None:
        store.features = _cached_features(network, store)
    return store.features[rows]


def _compute(network: Network, store: Store, rows: np.ndarray) -> np.ndarray:
    body = Network(network.body, nn.Sequential(*network.head[:2]), network.recipe, network.normalisation)
    body.precision = network.precision
    return predict_logits(body, evaluation_batches(body, store, rows), views=body.recipe.test_time_augmentation)


def _cached_features(network: Network, store: Store) -> np.ndarray:
    """The features (n, channels) of all images of a store's dataset, from the cache or computed and then kept there.

    A process that needs features which another one computes waits for them. Raises DataError for damaged images.
    """
    dataset, part = store.origin
    stem = dataset.derived("features", part)
    file = stem.with_name(f"{stem.name}-{_body_sha256(network, store)[:16]}.npz")
    with cache_lock(file.with_suffix(".lock")):
        if (features := read_features(file)) is not None:
            return features
        features = _compute(network, store, np.arange(len(store)))
        dataset.verify_rows(part, range(len(store)))
        require_free_space(file.parent, features.nbytes, what="The features")
        with atomic_write(file) as stream:
            np.savez(stream, features=features)
    return features


def _body_sha256(network: Network, store: Store) -> str:
    """A hash of all that the features of an image depend on: the body, its weights, and how they are computed."""
    keys = {name: getattr(network.recipe, name) for name in WITHOUT_EPOCHS if name not in OTHER_KEYS}
    computed = [str(network.precision), store.device.type]  # they, and the threads, change the last bits
    content = [FEATURES_VERSION, keys, asdict(network.normalisation), computed]
    digest = hashlib.sha256(json.dumps(content).encode())
    for name, value in network.body.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
