"""Depthwise convolutions whose gradients are fast in bfloat16 on a CPU.

oneDNN computes three things of a depthwise convolution quickly in bfloat16: its features, and its gradients if the
stride is 1 and the kernel is 3 x 3. The others take 10 to 100 times as long (docs/training.md has the figures), so
that they are put together from those that are fast.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

FAST_KERNEL = 3


class FastDepthwise(nn.Module):
    """Added to the class of a depthwise convolution: under bfloat16 autocast on a CPU it trains with fast gradients."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, channels, h', w')."""
        is_cpu_training = self.training and images.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not is_cpu_training or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return super().forward(images)
        padding = self.padding[0]
        if type(self).__name__ == "Conv2dSame":  # timm's, with TensorFlow's padding
            from timm.layers import pad_same

            images, padding = pad_same(images, self.kernel_size, self.stride), 0
        features = DepthwiseFunction.apply(images.bfloat16(), self.weight, self.stride[0], padding)
        return features if self.bias is None else features + self.bias.bfloat16()[:, None, None]


def speed_up_depthwise(network: nn.Module) -> None:
    """Make every square depthwise convolution of a network, in place, one with fast gradients."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels > 1:
            sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
            is_square = all(isinstance(size, tuple) and size[0] == size[1] for size in sizes)
            if is_square and layer.kernel_size[0] % 2 and layer.dilation == (1, 1):
                layer.__class__ = type(type(layer).__name__, (FastDepthwise, type(layer)), {})


class DepthwiseFunction(torch.autograd.Function):
    """A depthwise convolution: images (n, channels, h, w) bfloat16, kernels (channels, 1, size, size) float32."""

    @staticmethod
    def forward(ctx, images: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
        """Features (n, channels, h', w') bfloat16."""
        kernels = kernels.bfloat16()
        ctx.save_for_backward(images, kernels)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, kernels, None, stride, padding, groups=images.shape[1])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of images and kernels, from that of the features (n, channels, h', w')."""
        images, kernels = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = of_kernels = None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(gradient, images, kernels, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_kernels = _gradient_of_kernels(gradient, images, kernels.shape[-1], ctx.stride, ctx.padding)
        return of_images, of_kernels, None, None


def _gradient_of_images(gradient: Tensor, images: Tensor, kernels: Tensor, stride: int, padding: int) -> Tensor:
    """With stride 1, the convolution of the gradient with the mirrored kernels; else computed in float32."""
    size = kernels.shape[-1]
    if stride == 1:
        mirrored = kernels.flip(2, 3)
        return functional.conv2d(gradient, mirrored, None, 1, size - 1 - padding, groups=images.shape[1])
    return torch.nn.grad.conv2d_input(
        images.shape, kernels.float(), gradient.float(), stride, padding, groups=images.shape[1]
    ).bfloat16()


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
