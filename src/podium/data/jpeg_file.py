"""Resized images as JPEGs in one file, about a sixth of their pixels: they are decoded when they are needed."""

import io
import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from podium.data.image_file import ImageFile
from podium.errors import DataError
from podium.files import DAMAGE

# Of 255 grey levels, photos of 224 pixels then differ by 2.5 on average from what they were: docs/results.md.
QUALITY = 95
# The disk space that is needed at least: JPEGs of photos of 224 pixels are a sixth of the pixels.
LEAST_SHARE = 1 / 8
OFFSET = np.dtype("<i8")


def encode_jpeg(image: np.ndarray) -> bytes:
    """A JPEG file of an image (height, width, 3) uint8."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def decode_jpeg(content: bytes | np.ndarray) -> np.ndarray:
    """The image (height, width, 3) uint8 of a JPEG file; raises ValueError where it is damaged."""
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(content), formats=["JPEG"]))
    except DAMAGE:
        raise ValueError("not a whole JPEG") from None


def in_format(image: np.ndarray, stored_format: str) -> np.ndarray:
    """An image (height, width, 3) uint8 as it is read after it was stored in this format."""
    return decode_jpeg(encode_jpeg(image)) if stored_format == "jpeg" else image


def content_of(jpegs: bytes, lengths: Sequence[int] | np.ndarray) -> bytes:
    """What has a checksum: JPEGs one after the other, and their lengths."""
    return jpegs + np.asarray(lengths, OFFSET).tobytes()


def offsets_of(lengths: Sequence[int]) -> bytes:
    """What follows the JPEGs in their file: where each begins and ends, (n + 1,)."""
    return np.cumsum([0, *lengths], dtype=OFFSET).tobytes()


class JpegFile(ImageFile):
    """The images (n, height, width, 3) uint8 of n JPEGs in a file, or a slice of them.

    `array` is the bytes of the JPEGs and of their offsets. Raises ValueError where these are not offsets of n JPEGs,
    and DataError where the file cannot be read or a JPEG is damaged.
    """

    def __init__(self, array: np.memmap, count: int):
        super().__init__(array)
        last = len(array) - OFFSET.itemsize * (count + 1)
        offsets = np.frombuffer(array[max(0, last) :].tobytes(), OFFSET)
        if last < 0 or offsets[0] != 0 or offsets[-1] != last or (np.diff(offsets) <= 0).any():
            raise ValueError("not the offsets of JPEGs")
        self.offsets = offsets + array.offset
        self.shape = (count, *decode_jpeg(array[: offsets[1]]).shape)
        self.row_bytes = math.prod(self.shape[1:])

    def __getitem__(self, index: slice | np.ndarray | int) -> "JpegFile | np.ndarray":
        images = super().__getitem__(index)
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            images.offset, images.offsets = self.offset, self.offsets[first : last + 1]
        return images

    def read(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Decode the images of rows (k,) into `images` (k, height, width, 3)."""
        for first, last, image in zip(self.offsets[rows], self.offsets[rows + 1], images, strict=True):
            content = np.empty(last - first, np.uint8)
            self._fill(content, first)
            try:
                image[:] = decode_jpeg(content)
            except ValueError as error:
                found = f"{error} from byte {first}"
                raise DataError("The decoded images are damaged.", file=self.filename, found=found) from None

    def reader(self, parts: Sequence[np.ndarray]) -> Callable[[int, np.ndarray], None]:
        """A function that decodes the images of a part: `read(part, images)`."""
        return lambda part, images: self.read(parts[part], images)

    def checksum(self) -> int:
        """The CRC-32 of the JPEGs and of their lengths."""
        return zlib.crc32(content_of(b"", np.diff(self.offsets)), self._crc32(self.offsets[0], self.offsets[-1]))
