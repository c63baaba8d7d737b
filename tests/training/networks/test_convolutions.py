"""Faster convolutions give the features and gradients of torch's, and of the frozen batch norms after them."""

import copy

import pytest
import timm
import torch
from torch import nn

from podium.training.networks.convolutions import FastConvolution, speed_up


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
    speed_up(layer, [], images)
    assert isinstance(layer, FastConvolution)
    with torch.autocast("cpu", torch.bfloat16):
        assert "DepthwiseFunction" in layer(images).grad_fn.name()
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
    speed_up(layer, [], images)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.02 * float(other.abs().max()))


@pytest.mark.parametrize(("dtype", "enabled"), [(torch.bfloat16, False), (torch.float16, True)])
def test_where_bfloat16_is_not_used_nothing_changes(dtype, enabled):
    layer, images = nn.Conv2d(8, 8, 5, 2, 2, groups=8), torch.randn(4, 8, 12, 12)
    with torch.autocast("cpu", dtype, enabled=enabled):
        expected = gradients(layer, images)
        speed_up(layer, [], images)
        assert all(torch.equal(*pair) for pair in zip(gradients(layer, images), expected, strict=True))


def test_kernels_that_do_not_train_have_no_gradient():
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8).requires_grad_(False)
    images = torch.randn(4, 8, 12, 12, requires_grad=True)
    speed_up(layer, [], images)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images).float().sum().backward()
    assert images.grad is not None
    assert layer.weight.grad is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(8, 8, (3, 5), groups=8),
        nn.Conv2d(8, 8, 3, dilation=2, groups=8),
        nn.Conv2d(8, 8, 4, groups=8),
        nn.Conv2d(8, 8, 3, padding="same", groups=8),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", groups=8),
        timm.layers.StdConv2d(8, 8, 3, groups=8),
    ],
)
def test_other_convolutions_compute_as_torchs(layer):
    images = torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(layer, images)
        speed_up(layer, [], images)
        assert all(torch.equal(*pair) for pair in zip(gradients(layer, images), expected, strict=True))


def norms_of(body):
    """The batch norms of a body, with statistics and parameters like those of a pretrained one."""
    norms = [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        for values, low in (
            (norm.running_mean, -1),
            (norm.running_var, 0.5),
            (norm.weight.data, 0.5),
            (norm.bias.data, -1),
        ):
            values.uniform_(low, 1)
    return norms


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_byobnet"])
def test_frozen_batch_norms_are_included_in_convolutions_and_keep_learning(name):
    body = timm.create_model(name, num_classes=0).eval()
    norms, images = norms_of(body), torch.randn(2, 3, 32, 32)
    plain = copy.deepcopy(body)
    speed_up(body, norms, images)
    included = [layer.norms for layer in body.modules() if getattr(layer, "norms", ())]
    assert len(included) == len(norms)
    assert list(body.state_dict()) == list(plain.state_dict())
    for one, other in zip(gradients(body, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_a_norm_is_included_in_a_dilated_convolution_with_the_padding_of_tensorflow():
    layer = timm.layers.create_conv2d(3, 8, 3, stride=2, dilation=2, padding="same")
    body, images = nn.Sequential(layer, nn.BatchNorm2d(8)).eval(), torch.randn(2, 3, 12, 12)
    norms = norms_of(body)
    expected = body(images)
    speed_up(body, norms, images)
    assert body[0].norms == (body[1],)
    torch.testing.assert_close(body(images), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_is_not_included_where_something_else_gets_the_convolutions_output_too():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

        def forward(self, images):
            features = self.convolution(images)
            return features + self.norm(features)

    body, images = Residual().eval(), torch.randn(2, 3, 9, 9)
    norms = norms_of(body)
    expected = body(images)
    speed_up(body, norms, images)
    assert torch.equal(body(images), expected)
    assert type(body.norm) is nn.BatchNorm2d


def test_a_convolution_with_a_bias_includes_its_norm_also_where_both_are_used_twice():
    class Repeated(nn.Sequential):
        def forward(self, images):
            return super().forward(super().forward(images))

    body = Repeated(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)).eval()
    norms, images = norms_of(body), torch.randn(2, 3, 9, 9)
    expected = gradients(body, images)
    speed_up(body, norms, images)
    assert body[0].norms == (body[1],)
    for one, other in zip(gradients(body, images), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_a_norm_after_another_layer_is_not_included():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)).eval()
    speed_up(body, norms_of(body), torch.randn(2, 3, 9, 9))
    assert body[0].norms == (body[1],) and type(body[3]) is nn.BatchNorm2d


def test_a_norm_without_parameters_is_not_included():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)).eval()
    body[1].running_mean.uniform_(-1, 1)
    images = torch.randn(2, 3, 9, 9)
    expected = body(images)
    speed_up(body, [body[1]], images)
    assert not body[0].norms and torch.equal(body(images), expected)


def test_a_norm_that_is_not_frozen_is_not_included():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    speed_up(body, [], torch.randn(2, 3, 9, 9))
    assert type(body[1]) is nn.BatchNorm2d
    body.train()(torch.randn(2, 3, 9, 9) + 5)
    assert body[1].running_mean.abs().sum() > 0
