"""Convolutions that train faster, with the same parameters under the same names.

A batch norm that keeps its statistics is a factor and a summand for each channel: the convolution before it multiplies
its kernels by the factor, and adds the summand, which saves passes over its large features. Both keep learning.

oneDNN computes three things of a depthwise convolution quickly in bfloat16 on a CPU: its features, and its gradients
if the stride is 1 and the kernel is 3 x 3. The others take 10 to 100 times as long (benchmarks/depthwise.py), so that
they are put together from those that are fast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FAST_KERNEL = 3


class FastConvolution(nn.Module):
    """Added to the class of a convolution, whose forward it replaces where it is faster."""

    norms: tuple[nn.BatchNorm2d, ...] = ()  # the batch norm that it includes, if any; not a part of it

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, channels', h', w')."""
        is_depthwise = self.training and _computes_in_bfloat16(images) and _is_depthwise(self)
        if not self.norms and not is_depthwise:
            return super().forward(images)
        kernels, bias = self.weight, self.bias
        for norm in self.norms:
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            kernels = kernels * scale[:, None, None, None]
            bias = norm.bias + (0 if bias is None else bias * scale) - norm.running_mean * scale
        padding = self.padding
        if type(self).__name__ == "Conv2dSame":  # timm's, with TensorFlow's padding
            from timm.layers import pad_same

            images, padding = pad_same(images, self.kernel_size, self.stride, self.dilation), (0, 0)
        if is_depthwise:
            return DepthwiseFunction.apply(images.bfloat16(), kernels, bias, self.stride[0], padding[0])
        return functional.conv2d(images, kernels, bias, self.stride, padding, self.dilation, self.groups)


class IncludedNorm(nn.Module):
    """Added to the class of a batch norm that a convolution includes: what is left of timm's is its activation."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return self.act(self.drop(features)) if hasattr(self, "act") else features


def speed_up(body: nn.Module, frozen: Sequence[nn.Module], images: Tensor) -> None:
    """Give the convolutions of a body fast gradients, and include the `frozen` batch norms in them, in place.

    A batch norm is included if it alone gets what a convolution gives: the features of `images` (n, 3, height, width)
    stay the same.
    """
    layers = (layer for layer in body.modules() if type(layer).__name__ in ("Conv2d", "Conv2dSame"))  # not StdConv2d
    convolutions = [layer for layer in layers if layer.padding_mode == "zeros"]
    for layer in convolutions:
        layer.__class__ = type(type(layer).__name__, (FastConvolution, type(layer)), {})
    last_output, pairs = [], {}  # pairs: batch norm -> the convolution whose output it gets

    def after_convolution(layer: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        last_output[:] = [(output, layer)]

    def before_norm(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        pairs.update((norm, layer) for output, layer in last_output if output is inputs[0])

    hooks = [layer.register_forward_hook(after_convolution) for layer in convolutions]
    hooks += [norm.register_forward_pre_hook(before_norm) for norm in frozen if norm.affine]
    features = features_of(body, images)
    for hook in hooks:
        hook.remove()
    for norm, layer in pairs.items():
        layer.norms = (norm,)
        norm.__class__ = type(type(norm).__name__, (IncludedNorm, type(norm)), {})
    if pairs and not torch.allclose(features, features_of(body, images), rtol=1e-2, atol=1e-3):
        for norm, layer in pairs.items():  # something else gets the output of a convolution too
            layer.norms = ()
            norm.__class__ = type(norm).__mro__[2]


def features_of(body: nn.Module, images: Tensor) -> Tensor:
    """What a network gives of images (n, 3, h, w) in evaluation, without gradients."""
    was_training = body.training
    with torch.no_grad():
        features = body.eval()(images)
    body.train(was_training)
    return features


def _is_depthwise(layer: nn.Conv2d) -> bool:
    """Whether fast gradients exist: of a square kernel for each channel, with an odd side."""
    sizes = (layer.kernel_size, layer.stride, layer.padding)
    is_square = all(isinstance(size, tuple) and size[0] == size[1] for size in sizes)
    is_grouped = layer.groups == layer.in_channels == layer.out_channels > 1
    return is_grouped and is_square and layer.kernel_size[0] % 2 == 1 and layer.dilation == (1, 1)


def _computes_in_bfloat16(images: Tensor) -> bool:
    is_autocast = images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return is_autocast and torch.get_autocast_dtype("cpu") == torch.bfloat16


class DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution: images (n, channels, h, w) bfloat16, kernels (channels, 1, size, size) float32."""

    @staticmethod
    def forward(ctx, images: Tensor, kernels: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        """Features (n, channels, h', w') bfloat16; `bias` is (channels,) float32."""
        kernels, bias = kernels.bfloat16(), None if bias is None else bias.bfloat16()
        ctx.save_for_backward(images, kernels)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, kernels, bias, stride, padding, groups=images.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of images, kernels and bias, from that of the features (n, channels, h', w')."""
        images, kernels = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_kernels = of_bias = None
        if ctx.needs_input_grad[0] and ctx.stride == 1:  # the convolution of the gradient with the mirrored kernels
            padding, mirrored = kernels.shape[-1] - 1 - ctx.padding, kernels.flip(2, 3)
            of_images = functional.conv2d(gradient, mirrored, None, 1, padding, groups=len(kernels))
        elif ctx.needs_input_grad[0]:
            of_images = torch.nn.grad.conv2d_input(
                images.shape, kernels.float(), gradient.float(), ctx.stride, ctx.padding, groups=len(kernels)
            ).bfloat16()
        if ctx.needs_input_grad[1]:
            of_kernels = _gradient_of_kernels(gradient, images, kernels.shape[-1], ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32)
        return of_images, of_kernels, of_bias, None, None


def _gradient_of_kernels(gradient: Tensor, images: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """(channels, 1, size, size) float32; of larger kernels than 3 x 3, one window of 3 x 3 after the other."""
    if size <= FAST_KERNEL:
        return _gradient_of_window(gradient, images, size, stride, padding)
    height, width = ((side - 1) * stride + FAST_KERNEL for side in gradient.shape[2:])
    padded = functional.pad(images, (padding,) * 4) if padding else images
    kernels = torch.empty(images.shape[1], 1, size, size)
    for row in range(0, size - 2, 2):
        for column in range(0, size - 2, 2):
            shifted = padded[:, :, row : row + height, column : column + width]
            shifted = shifted.contiguous(memory_format=torch.channels_last)
            window = _gradient_of_window(gradient, shifted, FAST_KERNEL, stride, 0)
            kernels[:, :, row : row + FAST_KERNEL, column : column + FAST_KERNEL] = window
    return kernels


def _gradient_of_window(gradient: Tensor, images: Tensor, size: int, stride: int, padding: int) -> Tensor:
    shape = (images.shape[1], 1, size, size)
    return torch.nn.grad.conv2d_weight(images, shape, gradient, stride, padding, groups=images.shape[1]).float()
