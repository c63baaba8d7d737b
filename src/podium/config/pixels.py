"""The size of images in settings: a side, or height and width."""

import math

Pixels = int | tuple[int, int]
"""The side of square images, or height and width."""


def height_and_width(pixels: Pixels) -> tuple[int, int]:
    """(height, width) of images of `pixels`."""
    return (pixels, pixels) if isinstance(pixels, int) else pixels


def count_pixels(pixels: Pixels) -> int:
    """How many pixels an image has."""
    return math.prod(height_and_width(pixels))


def pixels_text(pixels: Pixels) -> str:
    """The size of images for a message or a file name: 32, or 256x512 for height and width."""
    height, width = height_and_width(pixels)
    return str(height) if height == width else f"{height}x{width}"
