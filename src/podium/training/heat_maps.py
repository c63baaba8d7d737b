"""Where a trained network looks in an image: Grad-CAM (arXiv:1610.02391), of convolutions and of transformers."""

import math
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from podium.errors import TrainingError
from podium.training.batches.stores import PixelStore, open_recipe_images
from podium.training.device import computing, pick_device
from podium.training.inference import evaluation_batches
from podium.training.networks.architectures import Network
from podium.training.predict import open_networks
from podium.workspace import Workspace

LEAST_SIDE = 4


def heat_maps(workspace: Workspace, run: str, rows: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Maps (n, h, w) in [0, 1] of what raises the logits `outputs` (n,) of the labelled images `rows` (n,) in a run.

    A row is explained by the network of its fold, which was not trained on it; a refitted network has seen it. Raises
    TrainingError and DataError.
    """
    networks = open_networks(workspace, run, device=pick_device())
    recipe, folds = networks[0].recipe, workspace.lock.folds[rows]
    if recipe.head == "boosting":
        raise TrainingError(f"{run} has no heat maps: trees have no gradients.", expected="another `head`")
    dataset, maps = open_recipe_images(workspace, recipe), []
    dataset.verify_rows("train", rows)
    with computing(run, workspace.paths.parameters_file(run), recipe):
        store = PixelStore(np.asarray(dataset.train_images[rows]), next(networks[0].parameters()).device)
        for place, (fold, output) in enumerate(zip(folds, outputs, strict=True)):
            network = networks[fold if len(networks) > 1 else 0].eval()
            (images,) = evaluation_batches(network, store, np.array([place]))
            seen = grad_cam(network, images, int(output))
            maps.append((seen[0] / seen.amax().clamp(min=1e-12)).cpu().numpy())
    return np.stack(maps)


def grad_cam(network: Network, images: Tensor, output: int) -> Tensor:
    """What raises a logit of (n, 3, h, w) images, (n, h', w'): channels weighted by their mean gradient, if positive.

    The channels are the last features of at least LEAST_SIDE rows and columns, or else of more than one, on which the
    logit depends at several places: before a class token, those that it attends to.
    """
    features: list[Tensor] = []

    def keep(_: nn.Module, __: object, values: object) -> None:
        if isinstance(values, Tensor) and values.requires_grad and _as_maps(values, network.body) is not None:
            features.append(values)

    with ExitStack() as hooks:
        for layer in network.body.modules():
            hooks.callback(layer.register_forward_hook(keep).remove)
        logits = network(images.requires_grad_())
    last: dict[bool, Tensor] = {}
    gradients = torch.autograd.grad(logits[:, output].sum(), [images, *features], allow_unused=True)[1:]
    for values, gradient in zip(features, gradients, strict=True):
        if gradient is not None:
            maps, gradient = _as_maps(values, network.body), _as_maps(gradient, network.body)
            if gradient.abs().sum(dim=(0, 1)).count_nonzero() > 1:
                shown = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).relu().detach()
                last[min(shown.shape[1:]) >= LEAST_SIDE] = shown
    if not last:
        what = "The network has no heat maps: no features of its body have a height and a width."
        raise TrainingError(what, expected="a convolutional network, or larger images")
    return last.get(True, last.get(False))


def _as_maps(features: Tensor, body: nn.Module) -> Tensor | None:
    """Features of a body as (n, channels, h, w); None where they have no height and width."""
    grid, channels = getattr(getattr(body, "patch_embed", None), "grid_size", None), getattr(body, "num_features", 0)
    if grid and hasattr(body, "num_prefix_tokens"):  # a transformer of timm: (n, prefix and patches, channels)
        is_tokens = features.ndim == 3 and features.shape[1:] == (body.num_prefix_tokens + math.prod(grid), channels)
        return features[:, body.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid) if is_tokens else None
    if features.ndim == 4 and features.shape[3] == channels != features.shape[1]:  # Swin's channels come last
        features = features.permute(0, 3, 1, 2)
    return features if features.ndim == 4 and min(features.shape[2:]) > 1 else None
