"""Heat maps of networks whose answer is known by hand, and of a run whose folds are trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from digits_toys import RECIPE, digits_workspace
from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.training import heat_maps as heat_maps_module
from podium.training.heat_maps import grad_cam, heat_maps
from podium.training.networks.architectures import build_network
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


class Tokens(nn.Module):
    """The patches of an image as tokens (n, 1 + 16, 2), the first of which is the class token."""

    def forward(self, maps):
        return torch.cat([torch.zeros(1, 1, 2), maps.flatten(2).transpose(1, 2)], dim=1)


class ClassToken(nn.Module):
    """Adds the patches to the class token, which alone is left of what comes after."""

    def forward(self, tokens):
        return torch.cat([tokens[:, :1] + tokens[:, 1:].sum(dim=1, keepdim=True), tokens[:, 1:]], dim=1)


class First(nn.Module):
    def forward(self, tokens):
        return tokens[:, 0]


def test_grad_cam_of_a_transformer_shows_the_patches_that_the_class_token_attends_to():
    network, images = (
        Toy([convolution(), Tokens(), nn.Identity(), ClassToken(), nn.Identity(), First()]),
        bright_corner(4),
    )
    network.body.num_prefix_tokens, network.body.patch_embed = 1, nn.Identity()
    network.body.patch_embed.grid_size = (4, 4)
    assert torch.equal(grad_cam(network, images, 0) > 0, images[:, 0] > 0)
    assert not grad_cam(network, images, 1).any()


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3"])  # class token, mean, attention
def test_transformers_of_timm_have_heat_maps_of_their_grid(name):
    recipe = Recipe(architecture=f"timm:{name}", epochs=1, learning_rate=0.1, stored_pixels=96)
    network = build_network(recipe, 9, root=Path(), seed=0, weights=False).eval()
    images = torch.rand((1, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    shown = torch.stack([grad_cam(network, images, output) for output in range(9)])
    assert shown.shape == (9, 1, *network.body.patch_embed.grid_size) and shown.any()


def test_a_row_is_explained_by_the_network_of_its_fold_on_its_device(tmp_path, monkeypatch):
    recipe = RECIPE.replace("epochs = 2", "epochs = 1")
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2', recipe=recipe)
    (run,) = workspace.runs
    train_run(workspace, run)
    rows = np.flatnonzero(workspace.lock.folds >= 0)[:6]
    maps = heat_maps(workspace, run.run, rows, np.zeros(6, int))
    assert maps.shape[0] == 6 and maps.min() >= 0 and maps.max() <= 1
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
