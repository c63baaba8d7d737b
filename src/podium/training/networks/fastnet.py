"""fastnet: a small convolutional network for images of 32 to 64 pixels, trained in minutes. It is airbench's network.

From K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498) and github.com/KellerJordan/
cifar10-airbench: a whitening first layer that is computed and not trained; convolutions that start as identities;
batch norms with a trained bias and a constant scale. The rest of the method are keys of the recipe (alternating flip,
Muon, `bias_ratio`, label smoothing, triangular schedule, averaging, test-time augmentation). `hard_share` replaces the
small network by which airbench's version for 96 % selects hard images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from podium.config.keys import FastNet

PATCH_PIXELS = 2
# Added to each variance, as a share of the largest: whitening would amplify the noise of directions without variance.
LEAST_VARIANCE = 5e-4


class FastNetBody(nn.Sequential):
    """Images (n, 3, height, width) -> features (n, channels, 1, 1)."""

    def __init__(self, settings: FastNet):
        filters = 2 * 3 * PATCH_PIXELS**2
        groups, channels = [], filters
        for width in settings.widths:
            groups.append(_Group(channels, width, depth=settings.depth))
            channels = width
        super().__init__(_Whitening(filters), nn.GELU(), *groups, MapMaximum(settings.feature_scale))

    def whiten(self, images: Tensor) -> None:
        """Set the filters of the first layer from normalised training images (n, 3, h, w)."""
        patches = F.unfold(images.float(), PATCH_PIXELS).transpose(1, 2).flatten(0, 1).double()  # (patches, 12)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        scale = (variances + LEAST_VARIANCE * variances[-1]).rsqrt()
        filters = (directions * scale).T.reshape(-1, 3, PATCH_PIXELS, PATCH_PIXELS).float()
        self[0].filters.copy_(torch.cat([filters, -filters]))


class _Whitening(nn.Module):
    """Projects patches on their principal directions, scaled to variance 1, and on the negatives of those.

    Only its bias is trained.
    """

    def __init__(self, filters: int):
        super().__init__()
        self.register_buffer("filters", torch.zeros(filters, 3, PATCH_PIXELS, PATCH_PIXELS))
        self.bias = nn.Parameter(torch.zeros(filters))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.filters, self.bias)


class _Group(nn.Module):
    """`depth` convolutions of one width; the first halves the image, and is added to the third and each later one."""

    def __init__(self, channels: int, width: int, *, depth: int):
        super().__init__()
        self.first = nn.Sequential(_convolution(channels, width), nn.MaxPool2d(2), _norm(width), nn.GELU())
        self.second = nn.Sequential(_convolution(width, width), _norm(width), nn.GELU())
        self.others = nn.ModuleList(nn.Sequential(_convolution(width, width), _norm(width)) for _ in range(depth - 2))

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.first(maps)
        inner = self.second(maps)
        for other in self.others:
            inner = F.gelu(other(inner) + maps)
        return inner


class MapMaximum(nn.Module):
    """Maps (n, channels, h, w) -> their maxima (n, channels, 1, 1), multiplied by a factor.

    The same bits as nn.AdaptiveMaxPool2d(1), whose gradient has no deterministic kernel on a GPU.
    """

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor = factor

    def forward(self, maps: Tensor) -> Tensor:
        """The largest value of each map."""
        return F.max_pool2d(maps, maps.shape[2:]) * self.factor


def _convolution(channels: int, width: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, width, 3, padding="same", bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:channels])
    return convolution


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=0.4, eps=1e-12)
    norm.weight.requires_grad_(False)
    return norm
