"""Augmentation of whole batches on their device.

Shifts and flips are part of the gather that makes the batch, so they cost nothing. Rotation, zoom, light and cutout
compute on the float batch, with random numbers from the given draws, for each image. All else is torchvision's,
which has one draw per call, no mirrored edges, and another brightness.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import v2

from podium.config.keys import Augment
from podium.config.pixels import Pixels, height_and_width

# torchvision's transforms draw for so many parts of a batch: for each image of a batch that is not larger.
PARTS = 32


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch, of which other processes have the first `before` images and the last `after`.

    Each process draws for the whole batch, so that an image gets the same numbers whichever process has it.
    """

    generator: Generator
    before: int = 0
    after: int = 0

    def numbers(self, kinds: int, count: int, draw: Callable[..., Tensor] = torch.rand) -> Tensor:
        """Numbers (kinds, count) for `count` images of this process: from 0 to 1, or as another function draws them."""
        shape = (kinds, self.before + count + self.after)
        drawn = draw(shape, generator=self.generator, device=self.generator.device)
        return drawn[:, self.before : self.before + count]


def shifted_positions(
    count: int, pixels: Pixels, *, augment: Augment, draws: Draws, flipped: Tensor | None = None
) -> Tensor:
    """Which pixel (0 to height * width - 1) each pixel of shifted and flipped images is: (count, height, width).

    Each image is shifted by up to `shift_pixels` in both directions, and its edges are mirrored. `flipped` (count,)
    says which images are flipped; with flip = "horizontal" a random half of them is.
    """
    device, (height, width) = draws.generator.device, height_and_width(pixels)
    reach = min(augment.shift_pixels, height - 1, width - 1)
    down, right = draws.numbers(2, count, partial(torch.randint, -reach, reach + 1))[:, :, None]
    rows = _mirror(torch.arange(height, device=device) + down, height)  # (count, height)
    columns = _mirror(torch.arange(width, device=device) + right, width)
    if augment.flip == "horizontal":
        flipped = draws.numbers(1, count)[0] < 0.5
    if flipped is not None:
        columns = torch.where(flipped[:, None], width - 1 - columns, columns)
    return rows[:, :, None] * width + columns[:, None, :]


def _mirror(positions: Tensor, side: int) -> Tensor:
    """Positions outside 0 to side - 1 -> the positions that are mirrored at the edges."""
    positions = positions.abs()
    return torch.where(positions >= side, 2 * (side - 1) - positions, positions)


def rotate_and_zoom(images: Tensor, *, augment: Augment, draws: Draws) -> Tensor:
    """Rotate and scale each of (n, 3, h, w) images by a random amount; the edges are mirrored."""
    count = len(images)
    turn, scale = draws.numbers(2, count) * 2 - 1
    angle = turn * math.radians(augment.rotate_degrees)
    shrink = torch.exp(scale * math.log(augment.zoom))
    cosine, sine = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    zero = torch.zeros_like(cosine)
    ratio = images.shape[2] / images.shape[3]  # the grid's unit is half of the height, and half of the width
    matrix = torch.stack([cosine, -sine * ratio, zero, sine / ratio, cosine, zero], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def random_crop(images: Tensor, pixels: Pixels, *, augment: Augment, draws: Draws) -> Tensor:
    """A random box of each of (n, 3, h, w) images, resized to `pixels`, as torchvision's RandomResizedCrop.

    The area is uniform from `augment.crop` to 1 of the image, height / width log-uniform from 3/4 to 4/3 of the image's
    own, or less so that the box fits: torchvision draws again instead. Bilinear with antialias, as `resize`, in two
    matrix products.
    """
    new_sides = height_and_width(pixels)
    area, shape, *places = draws.numbers(4, len(images))
    area = augment.crop + (1 - augment.crop) * area
    ratio = torch.exp((2 * shape - 1) * (-area.log()).clamp_max(math.log(4 / 3)))
    lengths = [(area * ratio).sqrt(), (area / ratio).sqrt()]
    heights, widths = (
        _resampling((1 - length) * place, length, side=side, pixels=new_side)
        for length, place, side, new_side in zip(lengths, places, images.shape[2:], new_sides, strict=True)
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


def change_light(images: Tensor, *, augment: Augment, draws: Draws) -> Tensor:
    """Change brightness and contrast of each of (n, 3, h, w) images, with values 0 to 1, by a random amount."""
    brightness, contrast = draws.numbers(2, len(images))[:, :, None, None, None] * 2 - 1
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * (1 + contrast * augment.contrast) + mean + brightness * augment.brightness
    return images.clamp_(0, 1)


def cut_out(images: Tensor, *, augment: Augment, draws: Draws) -> Tensor:
    """Set one random square of each of (n, 3, h, w) normalised images to 0, the mean (arXiv:1708.04552)."""
    (count, _, *sides), device, pixels = images.shape, images.device, augment.cutout_pixels
    inside = []  # for rows, then for columns: (n, side)
    for side, centre in zip(sides, draws.numbers(2, count)[:, :, None], strict=True):
        line, start = torch.arange(side, device=device), (centre * side - pixels / 2).round()
        inside.append((line >= start) & (line < start + pixels))
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0.0)


def pixel_transform(augment: Augment, mean: Sequence[float]) -> v2.Transform | None:
    """The transform of uint8 images by torchvision, for the recipe's keys; `mean` is their mean colour, where 255 is 1.

    Where an image is moved, the rest is filled with the mean.
    """
    moves = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": [255 * value for value in mean]}
    transforms = []
    if augment.rand_augment:
        transforms.append(v2.RandAugment(magnitude=augment.rand_augment, **moves))
    if augment.trivial_augment:
        transforms.append(v2.TrivialAugmentWide(**moves))
    if augment.saturation or augment.hue:
        transforms.append(v2.ColorJitter(saturation=augment.saturation, hue=augment.hue))
    return v2.Compose(transforms) if transforms else None


def mixing_transform(mixup: float, cutmix: float, *, classes: int) -> v2.Transform | None:
    """MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of torchvision; with both, each for half of the batches.

    It draws once for a batch of images (n, 3, h, w) and labels (n,) or shares (n, classes), and returns shares. Each
    image is mixed with the one before it. timm's Mixup would draw from NumPy's stream and needs an even number.
    """
    kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
    transforms = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
    return v2.RandomChoice(transforms) if transforms else None


@contextmanager
def torchvision_draws(generator: Generator) -> Iterator[None]:
    """Within the context, torch's global stream on the CPU, from which torchvision draws, is that of `generator`."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())


def apply_in_parts(transform: v2.Transform, images: Tensor, *, generator: Generator) -> Tensor:
    """Transform images (n, 3, h, w) in at most PARTS parts of the batch: torchvision draws once for each."""
    with torchvision_draws(generator):
        return torch.cat([transform(part) for part in images.tensor_split(min(PARTS, len(images)))])


def resize(images: Tensor, pixels: Pixels, interpolation: str = "bilinear") -> Tensor:
    """Resize (n, 3, h, w) images to `pixels`, without aliasing; images of that size are returned as they are."""
    old, new = images.shape[2:], height_and_width(pixels)
    if old == new:
        return images
    is_smaller = new[0] < old[0] or new[1] < old[1]
    return F.interpolate(images, size=new, mode=interpolation, align_corners=False, antialias=is_smaller).contiguous(
        memory_format=torch.channels_last
    )
