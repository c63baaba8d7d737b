"""Heat maps of networks whose answer is known by hand, and of a run whose folds are trained."""

import numpy as np
import pytest
import torch
from torch import nn

from digits_toys import RECIPE, digits_workspace
from podium.errors import TrainingError
from podium.training import heat_maps as heat_maps_module
from podium.training.heat_maps import GRAD_CAM, attention_rollout, grad_cam, heat_maps
from podium.training.predict import open_networks
from podium.training.run import train_run


class Toy(nn.Module):
    """A body whose first channel is the image's, and logits of both signs of its mean."""

    def __init__(self, layers, channels=2):
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.body.num_features = channels

    def forward(self, images):
        means = self.body(images).flatten(1).mean(dim=1)
        return torch.stack([means, -means], dim=1)


class Last(nn.Module):
    def forward(self, features):
        return features.permute(0, 2, 3, 1)


def convolution():
    layer = nn.Conv2d(3, 2, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    return layer


def bright_corner(side=8):
    images = torch.zeros(1, 3, side, side)
    images[:, :, : side // 4, side // 2 :] = 1
    return images


@pytest.mark.parametrize("layers", [[], [Last()], [nn.AdaptiveAvgPool2d(1)], [nn.AdaptiveAvgPool2d(2), nn.Flatten()]])
def test_grad_cam_shows_what_raises_a_logit_and_nothing_for_one_that_it_lowers(layers):
    network, images = Toy([convolution(), *layers]), bright_corner()
    expected = images[:, 0] > 0
    assert torch.equal(grad_cam(network, images, 0) > 0, expected)
    assert not grad_cam(network, images, 1).any()
    assert not any(layer._forward_hooks for layer in network.modules())


def test_grad_cam_of_small_images_uses_what_there_is_and_of_one_pixel_nothing():
    network = Toy([convolution()])
    assert grad_cam(network, bright_corner(2), 0).shape == (1, 2, 2)
    with pytest.raises(TrainingError, match="no features of its body have a height"):
        grad_cam(network, torch.ones(1, 3, 1, 1), 0)


class Attention(nn.Module):
    fused_attn = True

    def __init__(self, weights):
        super().__init__()
        self.weights, self.attn_drop = weights, nn.Identity()

    def forward(self, images):
        assert not self.fused_attn
        self.attn_drop(self.weights[None, None])
        return images


@pytest.mark.parametrize(("prefix", "pooling"), [(1, "token"), (0, "avg"), (1, "avg")])
def test_attention_rollout_shows_the_patches_that_the_class_token_or_all_patches_attend_to(prefix, pooling):
    first, second = torch.eye(6 + prefix), torch.eye(6 + prefix)
    second[:, :] = torch.eye(6 + prefix)[prefix + 1]  # all tokens attend to the patch in row 0, column 1
    first[prefix + 1] = torch.eye(6 + prefix)[prefix + 4]  # which attends to the patch in row 1, column 1
    network = Toy([Attention(first), Attention(second)])
    network.body.num_prefix_tokens, network.body.patch_embed = prefix, nn.Identity()
    network.body.global_pool = pooling
    network.body.patch_embed.grid_size = (2, 3)
    (seen,) = attention_rollout(network, torch.ones(1, 3, 8, 8))
    # Half of everything is the residual connection: a sixth of all patches is the patch itself.
    expected = (0.25, 0.25) if pooling == "token" else (0.25 + 0.25 / 6 - 0.5 / 6, 0.25 + 0.75 / 6 - 0.5 / 6)
    assert (seen[0, 1].item(), seen[1, 1].item()) == pytest.approx(expected)
    assert not seen[0, 0] and not seen[1, 2] and all(layer.fused_attn for layer in network.body[:2])


def test_a_row_is_explained_by_the_network_of_its_fold_on_its_device(tmp_path, monkeypatch):
    recipe = RECIPE.replace("epochs = 2", "epochs = 1")
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2', recipe=recipe)
    (run,) = workspace.runs
    train_run(workspace, run)
    rows = np.flatnonzero(workspace.lock.folds >= 0)[:6]
    method, maps = heat_maps(workspace, run.run, rows, np.zeros(6, int))
    assert method == GRAD_CAM and maps.shape[0] == 6 and maps.min() >= 0 and maps.max() <= 1
    networks, used, devices = open_networks(workspace, run.run, device=torch.device("cpu")), [], set()
    monkeypatch.setattr(heat_maps_module, "open_networks", lambda *_, **__: networks)

    def keep(network, images, output):
        used.append(network)
        devices.add(images.device)
        return torch.ones(1, 2, 2)

    gpus = iter([torch.device("cpu"), torch.device("meta")])  # what "cuda" means can change in between
    monkeypatch.setattr(heat_maps_module, "pick_device", lambda: next(gpus))
    monkeypatch.setattr(heat_maps_module, "grad_cam", keep)
    heat_maps(workspace, run.run, rows, np.zeros(6, int))
    assert devices == {torch.device("cpu")}
    assert [networks.index(network) for network in used] == workspace.lock.folds[rows].tolist()
