"""Decode image files of any mode, size and orientation to arrays of 8-bit RGB of one size."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from podium.config.pixels import Pixels, height_and_width
from podium.errors import DataError
from podium.files import DAMAGE

# The formats that are opened, the commonest first: Pillow decodes some of the others by starting another program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "QOI", "TGA", "AVIF")
FAULTS = (*DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning)
RESAMPLING = Image.Resampling.BICUBIC


@cache
def _suffixes() -> tuple[str, ...]:
    return tuple(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image that can be opened."""
    return name.lower().endswith(_suffixes())


def image_sides(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels; None if the file is not an image."""
    try:
        return _open(content).size
    except (UnidentifiedImageError, *FAULTS):
        return None


def decode(content: bytes, pixels: Pixels, *, shape: str) -> np.ndarray:
    """Decode an image file to uint8 (height, width, 3) of `pixels`; raises DataError if it is damaged.

    `shape` is how an image of another shape gets this one: "crop" the middle, "squash" the image, or "pad" it with
    mirrored edges. An image of the right size is not resampled. Transparent pixels are blended with white; the first
    frame of an animation is used; 16-bit grey is scaled to 8 bits.
    """
    return decode_with_sides(content, pixels, shape=shape)[0]


def decode_with_sides(content: bytes, pixels: Pixels, *, shape: str) -> tuple[np.ndarray, tuple[int, int]]:
    """What `decode` returns, and the image's own width and height."""
    try:
        image = _open(content)
        return _fit(_rgb(image), *height_and_width(pixels), shape), image.size
    except UnidentifiedImageError:  # Pillow's message contains a memory address
        raise DataError("not a whole image: not in any format that is read here") from None
    except FAULTS as error:
        raise DataError(f"not a whole image: {str(error) or type(error).__name__}") from None


@contextmanager
def bombs_are_faults() -> Iterator[None]:
    """Within the context, an image above Pillow's pixel limit is a fault, and other warnings are ignored.

    Use it around many images: entering it costs as much as decoding a small image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _open(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.format == "PNG":  # load() does not compare the checksums of chunks
        Image.open(io.BytesIO(content), formats=["PNG"]).verify()
    image.load()
    # A PNG without metadata has no orientation: exif_transpose costs as much as decoding a small image.
    return image if image.format == "PNG" and not image.info else ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey_of_16_bits(np.asarray(image, np.int64))
    if image.mode == "F":
        raise ValueError("floating-point grey has no defined white: save the image with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _grey_of_16_bits(grey: np.ndarray) -> Image.Image:
    """RGB image of 16-bit grey (height, width); Pillow would clip values at 255."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("32-bit grey has no defined white: save the image with 8 or 16 bits")
    return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")


def _fit(image: Image.Image, height: int, width: int, shape: str) -> np.ndarray:
    if shape == "crop":
        return np.asarray(ImageOps.fit(image, (width, height), RESAMPLING))
    if shape == "squash":
        return np.asarray(image.resize((width, height), RESAMPLING))
    assert shape == "pad", shape
    is_wide = image.width * height >= image.height * width
    pixels, longest = (width, image.width) if is_wide else (height, image.height)
    size = [max(1, round(side * pixels / longest)) for side in image.size]
    small = np.asarray(image.resize(size, RESAMPLING))  # resize before padding: a long strip would need much memory
    missing = (height - small.shape[0], width - small.shape[1])
    margins = [(count // 2, (count + 1) // 2) for count in missing]
    return np.pad(small, [*margins, (0, 0)], mode="reflect")
