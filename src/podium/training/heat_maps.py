"""Where a trained network looks in an image: Grad-CAM of convolutions, attention rollout of transformers."""

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
GRAD_CAM, ROLLOUT = "Grad-CAM (arXiv:1610.02391)", "attention rollout (arXiv:2005.00928)"


def heat_maps(workspace: Workspace, run: str, rows: np.ndarray, outputs: np.ndarray) -> tuple[str, np.ndarray]:
    """The method, and maps (n, h, w) in [0, 1] of the labelled images `rows` (n,), by the saved parameters of a run.

    A row is explained by the network of its fold, which was not trained on it; a refitted network has seen it.
    Grad-CAM is of the logits number `outputs` (n,). Raises TrainingError and DataError.
    """
    networks = open_networks(workspace, run, device=pick_device())
    recipe, folds = networks[0].recipe, workspace.lock.folds[rows]
    if recipe.head == "boosting":
        raise TrainingError(f"{run} has no heat maps: trees have no gradients.", expected="another `head`")
    dataset, maps = open_recipe_images(workspace, recipe), []
    dataset.verify_rows("train", rows)
    method = ROLLOUT if attentions_of(networks[0]) else GRAD_CAM
    with computing(run, workspace.paths.parameters_file(run), recipe):
        store = PixelStore(np.asarray(dataset.train_images[rows]), next(networks[0].parameters()).device)
        for place, (fold, output) in enumerate(zip(folds, outputs, strict=True)):
            network = networks[fold if len(networks) > 1 else 0].eval()
            (images,) = evaluation_batches(network, store, np.array([place]))
            seen = attention_rollout(network, images) if method == ROLLOUT else grad_cam(network, images, int(output))
            maps.append((seen[0] / seen.amax().clamp(min=1e-12)).cpu().numpy())
    return method, np.stack(maps)


def grad_cam(network: Network, images: Tensor, output: int) -> Tensor:
    """What raises a logit of (n, 3, h, w) images, (n, h', w'): channels weighted by their mean gradient, if positive.

    The channels are the last features of at least LEAST_SIDE rows and columns that the body computes, whatever its
    architecture; of small images the last of any height and width.
    """
    last: dict[bool, Tensor] = {}

    def keep(_: nn.Module, __: object, features: object) -> None:
        if isinstance(features, Tensor) and features.ndim == 4 and min(features.shape[2:]) > 1:
            last[min(features.shape[2:]) >= LEAST_SIDE] = features

    with ExitStack() as hooks:
        for layer in network.body.modules():
            hooks.callback(layer.register_forward_hook(keep).remove)
        logits = network(images.requires_grad_())
    if not last:
        what = "The network has no heat maps: no features of its body have a height and a width."
        raise TrainingError(what, expected="a convolutional network, or larger images")
    features = last.get(True, last.get(False))
    (gradients,) = torch.autograd.grad(logits[:, output].sum(), features)
    if features.shape[3] == getattr(network.body, "num_features", 0) != features.shape[1]:  # Swin's channels come last
        features, gradients = features.permute(0, 3, 1, 2), gradients.permute(0, 3, 1, 2)
    return (gradients.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).relu().detach()


def attentions_of(network: Network) -> list[nn.Module]:
    """The attention layers of a transformer of timm on one grid of patches; none of other networks."""
    grid = getattr(getattr(network.body, "patch_embed", None), "grid_size", None)
    if grid is None or not hasattr(network.body, "num_prefix_tokens"):
        return []
    return [layer for layer in network.body.modules() if hasattr(layer, "attn_drop") and hasattr(layer, "fused_attn")]


def attention_rollout(network: Network, images: Tensor) -> Tensor:
    """How much of each patch of (n, 3, h, w) images reaches the features, (n, rows, columns) of the grid.

    Attention is averaged over heads, the residual connection counts half, and layers are multiplied. The patches that
    the class token attends to are shown; where the features are not those of a class token, those that all patches do.
    """
    weights: list[Tensor] = []
    with ExitStack() as hooks, torch.no_grad():
        for layer in attentions_of(network):
            hooks.callback(setattr, layer, "fused_attn", layer.fused_attn)
            layer.fused_attn = False  # fused attention does not give its weights
            keep = layer.attn_drop.register_forward_hook(lambda _, __, attention: weights.append(attention.mean(dim=1)))
            hooks.callback(keep.remove)
        network(images)
    rollout = torch.eye(weights[0].shape[-1], device=images.device)
    for attention in weights:
        rollout = (attention + torch.eye(attention.shape[-1], device=images.device)) / 2 @ rollout
    prefix, grid = network.body.num_prefix_tokens, network.body.patch_embed.grid_size
    is_of_class = prefix and network.body.global_pool == "token"  # beside it, or instead of it, there may be registers
    seen = rollout[:, 0, prefix:] if is_of_class else rollout[:, prefix:, prefix:].mean(dim=1)
    return (seen - seen.amin(dim=1, keepdim=True)).reshape(-1, *grid)
