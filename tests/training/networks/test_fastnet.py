"""The fastnet: whitened patches, layers that begin as identities, and the size that the recipe asks for."""

import pytest
import torch
import torch.nn.functional as F

from podium.config.keys import FastNet, Recipe
from podium.training.networks.architectures import build_network
from podium.training.networks.fastnet import PATCH_PIXELS, FastNetBody, MapMaximum


def body(**keys) -> FastNetBody:
    return FastNetBody(FastNet(**keys)).eval()


def correlated_images() -> torch.Tensor:
    """Noise whose neighbours and colours agree, like photographs."""
    noise = torch.randn(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    colours = torch.tensor([1.0, 0.8, 0.5]).view(1, 3, 1, 1)
    return F.avg_pool2d(noise, 3, stride=1) * colours + 0.1 * torch.randn(40, 3, 10, 10)


def test_whitened_patches_are_uncorrelated_and_equally_large():
    torch.manual_seed(0)
    network, images = body(widths=(8,)), correlated_images()
    network.whiten(images)
    answers = network[0](images).detach()[:, : 3 * PATCH_PIXELS**2]  # the second half has the negatives
    patches = answers.transpose(0, 1).flatten(1)
    second_moments = patches @ patches.T / patches.shape[1]
    assert second_moments.diagonal().tolist() == pytest.approx([1.0] * 12, abs=0.1)
    assert (second_moments - second_moments.diagonal().diag()).abs().max() < 0.01
    assert torch.equal(network[0].filters[:12], -network[0].filters[12:])


def test_a_convolution_begins_by_passing_its_input_on():
    network = body(widths=(24, 48))
    maps = torch.randn(2, 24, 6, 6)
    assert torch.allclose(network[2].first[0](maps)[:, :24], maps, atol=1e-5)
    assert torch.allclose(network[3].first[0](maps)[:, :24], maps, atol=1e-5)


def test_widths_and_depth_give_the_size_and_features_are_one_pixel():
    shallow, deep = body(widths=(8, 16)), body(widths=(8, 16), depth=3)
    assert shallow(torch.zeros(2, 3, 32, 32)).shape == (2, 16, 1, 1)
    count = {name: sum(p.numel() for p in network.parameters()) for name, network in (("2", shallow), ("3", deep))}
    assert count["3"] - count["2"] == sum(9 * width**2 + 2 * width for width in (8, 16))


def test_the_scale_of_a_batch_norm_does_not_learn():
    frozen = [name for name, p in body(widths=(8,), depth=3).named_parameters() if not p.requires_grad]
    assert len(frozen) == 3 and all(name.endswith("weight") for name in frozen)


def test_the_features_are_scaled_before_the_classifier():
    images = correlated_images()
    whole, ninth = body(widths=(8,), feature_scale=1.0), body(widths=(8,))
    ninth.load_state_dict(whole.state_dict())
    for network in (whole, ninth):
        network.whiten(images)
    assert whole(images).abs().sum() > 0 and torch.allclose(whole(images), ninth(images) * 9, rtol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_maps_maximum_and_its_gradient_are_those_of_adaptive_pooling_where_values_are_equal_too(layout):
    values = torch.randint(0, 4, (6, 8, 3, 5), generator=torch.Generator().manual_seed(0)).float()
    found = []
    for pooling in (MapMaximum(), torch.nn.AdaptiveMaxPool2d(1)):
        maps = values.clone(memory_format=layout).requires_grad_()
        answers = pooling(maps)
        answers.sum().backward()
        found.append((answers.detach(), maps.grad))
    (ours, our_grad), (theirs, their_grad) = found
    assert ours.shape == (6, 8, 1, 1) and torch.equal(ours, theirs) and torch.equal(our_grad, their_grad)


def test_its_batch_norms_learn_the_statistics_of_the_images(tmp_path):
    recipe = Recipe(architecture="fastnet", stored_pixels=32, fastnet=FastNet(widths=(8,)))
    network = build_network(recipe, 2, root=tmp_path, seed=0)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    network(torch.rand(4, 3, 32, 32))
    assert len(norms) == 2 and all(norm.running_var.ne(1).all() for norm in norms)
