"""Depthwise convolutions have the gradients of torch, computed faster in bfloat16 on a CPU."""

import pytest
import timm
import torch
from torch import nn

from podium.training.networks.depthwise import FastDepthwise, speed_up_depthwise


def gradients(layer, images):
    images = images.clone().requires_grad_()
    features = layer(images)
    features.float().square().sum().backward()
    found = [features.detach(), images.grad, *(parameter.grad for parameter in layer.parameters())]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("shape", [(12, 12), (13, 9)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "padding"), [(1, 0), (3, 1), (3, 0), (5, 2), (7, 3)])
def test_gradients_are_those_of_float32_to_the_precision_of_bfloat16(size, padding, stride, shape):
    layer = nn.Conv2d(8, 8, size, stride, padding, groups=8)
    images = torch.randn(4, 8, *shape).contiguous(memory_format=torch.channels_last)
    layer.weight.data, images = layer.weight.data.bfloat16().float(), images.bfloat16().float()
    expected = gradients(layer, images)
    speed_up_depthwise(layer)
    assert isinstance(layer, FastDepthwise)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, images)
    assert found[0].dtype == torch.bfloat16
    assert {value.dtype for value in found[1:]} == {torch.float32}
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_padding_of_tensorflow_is_kept():
    layer = timm.layers.create_conv2d(8, 8, 5, stride=2, padding="same", depthwise=True)
    images = torch.randn(4, 8, 12, 12).bfloat16().float()
    layer.weight.data = layer.weight.data.bfloat16().float()
    expected = gradients(layer, images)
    speed_up_depthwise(layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_without_autocast_nothing_changes():
    layer, images = nn.Conv2d(8, 8, 5, 2, 2, groups=8), torch.randn(4, 8, 12, 12)
    expected = gradients(layer, images)
    speed_up_depthwise(layer)
    assert all(torch.equal(*pair) for pair in zip(gradients(layer, images), expected, strict=True))


def test_kernels_that_do_not_train_have_no_gradient():
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8).requires_grad_(False)
    speed_up_depthwise(layer)
    images = torch.randn(4, 8, 12, 12, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images).float().sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is None


def test_only_square_depthwise_convolutions_are_changed():
    layers = nn.Sequential(
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(8, 8, (3, 5), groups=8),
        nn.Conv2d(8, 8, 3, dilation=2, groups=8),
        nn.Conv2d(8, 8, 4, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 3, groups=8),
    )
    speed_up_depthwise(layers)
    assert [isinstance(layer, FastDepthwise) for layer in layers] == [False] * 7 + [True]
