"""Augmentation of whole batches on their device.

Shifts and flips are part of the gather that makes the batch, so they cost nothing. Rotation, zoom, light, cutout and
mixing compute on the float batch. Every function draws random numbers from the given generator only.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from podium.config.keys import Augment


def shifted_positions(
    count: int, side: int, *, augment: Augment, generator: Generator, flipped: Tensor | None = None
) -> Tensor:
    """Which pixel (0 to side * side - 1) each pixel of `count` shifted and flipped images is: (count, side, side).

    Each image is shifted by up to `shift_pixels` in both directions, and its edges are mirrored. `flipped` (count,)
    says which images are flipped; with flip = "horizontal" a random half of them is.
    """
    device = generator.device
    line = torch.arange(side, device=device)
    reach = min(augment.shift_pixels, side - 1)
    down, right = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator, device=device)
    rows, columns = _mirror(line + down, side), _mirror(line + right, side)  # (count, side) each
    if augment.flip == "horizontal":
        flipped = torch.rand(count, generator=generator, device=device) < 0.5
    if flipped is not None:
        columns = torch.where(flipped[:, None], side - 1 - columns, columns)
    return rows[:, :, None] * side + columns[:, None, :]


def _mirror(positions: Tensor, side: int) -> Tensor:
    """Positions outside 0 to side - 1 -> the positions that are mirrored at the edges."""
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)


def rotate_and_zoom(images: Tensor, *, augment: Augment, generator: Generator) -> Tensor:
    """Rotate and scale each of (n, 3, h, w) images by a random amount; the edges are mirrored."""
    count, device = len(images), images.device
    turn, scale = torch.rand(2, count, generator=generator, device=device) * 2 - 1
    angle = turn * math.radians(augment.rotate_degrees)
    shrink = torch.exp(scale * math.log(augment.zoom))
    cosine, sine = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    zero = torch.zeros_like(cosine)
    matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def random_crop(images: Tensor, pixels: int, *, augment: Augment, generator: Generator) -> Tensor:
    """A random box of each of (n, 3, side, side) images, resized to `pixels`, as torchvision's RandomResizedCrop.

    The area is uniform from `augment.crop` to 1 of the image, height / width log-uniform from 3/4 to 4/3, or less so
    that the box fits: torchvision draws again instead. Bilinear with antialias, as `resize`, in two matrix products.
    """
    count, side, device = len(images), images.shape[-1], images.device
    area, shape, *places = torch.rand(4, count, generator=generator, device=device)
    area = augment.crop + (1 - augment.crop) * area
    ratio = torch.exp((2 * shape - 1) * (-area.log()).clamp_max(math.log(4 / 3)))
    heights, widths = (
        _resampling((1 - length) * place, length, side=side, pixels=pixels)
        for length, place in zip([(area * ratio).sqrt(), (area / ratio).sqrt()], places, strict=True)
    )
    cropped = torch.einsum("nps,nsxc->npxc", heights, images.permute(0, 2, 3, 1))
    cropped = torch.einsum("nqx,npxc->npqc", widths, cropped)
    return cropped.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _resampling(start: Tensor, length: Tensor, *, side: int, pixels: int) -> Tensor:
    """Weights (n, pixels, side) that resize the parts of n lines; `start` and `length` (n,) are shares of the line."""
    line, target = (torch.arange(count, device=start.device) + 0.5 for count in (side, pixels))
    centres = (start[:, None] + length[:, None] * target / pixels) * side  # (n, pixels), in stored pixels
    reach = (length * side / pixels).clamp_min(1)
    weights = (1 - (line - centres[:, :, None]).abs() / reach[:, None, None]).clamp_min(0)
    return weights / weights.sum(2, keepdim=True)


def change_light(images: Tensor, *, augment: Augment, generator: Generator) -> Tensor:
    """Change brightness and contrast of each of (n, 3, h, w) images, with values 0 to 1, by a random amount."""
    shape = (2, len(images), 1, 1, 1)
    brightness, contrast = torch.rand(shape, generator=generator, device=images.device) * 2 - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + contrast * augment.contrast) + mean + brightness * augment.brightness
    return images.clamp_(0, 1)


def cut_out(images: Tensor, *, augment: Augment, generator: Generator) -> Tensor:
    """Set one random square of each of (n, 3, h, w) normalised images to 0, the mean (arXiv:1708.04552)."""
    inside = _boxes(images, augment.cutout_pixels, augment.cutout_pixels, generator=generator)
    return images.masked_fill(inside, 0.0)


def mix(images: Tensor, targets: Tensor, *, mixup: float, cutmix: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix a batch with itself in another order; targets (n, classes) are mixed in the same shares.

    With both mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899), each is used for a random half of the batches.
    """
    device = images.device
    order = torch.randperm(len(images), generator=generator, device=device)
    coin = torch.rand((), generator=generator, device=device) < 0.5
    if mixup and not (cutmix and coin):
        share = _beta(mixup, generator)
        return images.lerp(images[order], 1 - share), targets.lerp(targets[order], 1 - share)
    side = math.sqrt(1 - _beta(cutmix, generator))
    height, width = round(images.shape[2] * side), round(images.shape[3] * side)
    inside = _boxes(images[:1], height, width, generator=generator)  # one rectangle for the whole batch
    share = 1 - inside.float().mean().item()
    return torch.where(inside, images[order], images), targets.lerp(targets[order], 1 - share)


def _beta(alpha: float, generator: Generator) -> float:
    # g1 / (g1 + g2) of two Gamma(a) draws is a Beta(a, a) draw.
    gamma = torch._standard_gamma(torch.full((2,), alpha, device=generator.device), generator=generator)
    return (gamma[0] / gamma.sum().clamp_min(1e-12)).item()


def _boxes(images: Tensor, height: int, width: int, *, generator: Generator) -> Tensor:
    """A mask (n, 1, h, w) of one random box per image of (n, 3, h, w) images."""
    count, _, rows, columns = images.shape
    centre = torch.rand(2, count, 1, generator=generator, device=images.device)
    top = (centre[0] * rows - height / 2).round()
    left = (centre[1] * columns - width / 2).round()
    down, right = torch.arange(rows, device=images.device), torch.arange(columns, device=images.device)
    in_rows = (down >= top) & (down < top + height)  # (n, rows)
    in_columns = (right >= left) & (right < left + width)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]  # (n, 1, rows, columns)
