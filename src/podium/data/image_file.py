"""Decoded images that stay in their file: rows are read when they are needed, in the order in which they are needed."""

import copy
import os
import weakref
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from podium.errors import DataError
from podium.files import os_error_as

UNREADABLE = "The decoded images cannot be read."
# Bytes of a block, which is read from the disk in one piece, and of the blocks among which shuffled rows are mixed.
# They, and not the memory of the machine, decide the order of the rows, so that a run repeats elsewhere.
BLOCK_BYTES, WINDOW_BYTES = 1 << 22, 1 << 30
# The disk is asked for the blocks of so many bytes before they are needed.
AHEAD_BYTES = 1 << 28


class ImageFile:
    """Images (n, height, width, 3) uint8 in a file, or a slice of them, of which none stay in the process's memory.

    An array of rows as index gives their images. Raises DataError where the file cannot be read.
    """

    def __init__(self, array: np.memmap):
        self.filename, self.offset, self.shape = array.filename, array.offset, array.shape
        self.row_bytes = array[:1].nbytes
        with os_error_as(DataError, UNREADABLE):
            self.descriptor = os.open(self.filename, os.O_RDONLY)
        self.owner = self  # slices keep it, and with it the open file
        weakref.finalize(self, os.close, self.descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * self.row_bytes

    def __getitem__(self, index: slice | np.ndarray | int) -> "ImageFile | np.ndarray":
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            part = copy.copy(self)
            part.offset, part.shape = self.offset + first * self.row_bytes, (max(0, last - first), *self.shape[1:])
            return part
        rows = np.asarray(index)
        images = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        self.read(rows.ravel(), images.reshape(-1, *self.shape[1:]))
        return images

    def __array__(self, dtype: type | None = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self))]

    def read(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Read the images of rows (k,) into `images` (k, height, width, 3)."""
        for row, image in zip(rows.tolist(), images, strict=True):
            self._fill(image, self.offset + row * self.row_bytes)

    def checksum(self) -> int:
        """The CRC-32 of the images as they are stored."""
        return self._crc32(self.offset, self.offset + self.nbytes)

    def reader(self, parts: Sequence[np.ndarray]) -> Callable[[int, np.ndarray], None]:
        """A function that reads the images of parts[0], parts[1], ..., in this order: `read(part, images)`.

        The disk is asked for a whole block ahead of the part that needs it first, and the block leaves the system's
        cache after the part that needs it last. Rows are read one by one where less than half of a block is needed, or
        more blocks at a time than fit into two windows, as in a random order.
        """
        rows = block_rows(self.row_bytes)
        blocks, first, last = _blocks_of(parts, rows)
        first = np.maximum(first - AHEAD_BYTES // max(1, self.row_bytes * max(map(len, parts), default=1)), 0)
        in_use = np.cumsum(np.bincount(first, minlength=len(parts)) - np.bincount(last, minlength=len(parts)))
        if max(in_use, default=0) * rows > 2 * window_rows(self.row_bytes):
            blocks, first, last = blocks[:0], first[:0], last[:0]

        def read(part: int, images: np.ndarray) -> None:
            self._advise(blocks[first == part], os.POSIX_FADV_WILLNEED)
            self.read(parts[part], images)
            self._advise(blocks[last == part], os.POSIX_FADV_DONTNEED)

        return read

    def _fill(self, array: np.ndarray, offset: int) -> None:
        """Read the content of an array from this offset of the file; raises DataError."""
        try:
            count, found = os.preadv(self.descriptor, [array], offset), "the file ends too early"
        except OSError as error:
            count, found = 0, error.strerror
        if count != array.nbytes:
            raise DataError(UNREADABLE, file=self.filename, found=found)

    def _crc32(self, first: int, last: int) -> int:
        """The CRC-32 of the bytes between two offsets of the file, which is read in pieces."""
        value = 0
        for start in range(first, last, BLOCK_BYTES):
            piece = np.empty(min(BLOCK_BYTES, last - start), np.uint8)
            self._fill(piece, start)
            value = zlib.crc32(piece, value)
        return value

    def _advise(self, blocks: np.ndarray, advice: int) -> None:
        size = block_rows(self.row_bytes) * self.row_bytes
        for block in blocks.tolist():
            os.posix_fadvise(self.descriptor, self.offset + block * size, size, advice)


def block_rows(row_bytes: int) -> int:
    """Rows of `row_bytes` in a block of a file."""
    return max(1, BLOCK_BYTES // row_bytes)


def window_rows(row_bytes: int) -> int:
    """Rows of `row_bytes` over which the rows of shuffled blocks are mixed."""
    return max(1, WINDOW_BYTES // row_bytes)


def _blocks_of(parts: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blocks of so many `rows` of which the parts need half, (b,), and the first and last part that needs each."""
    needed = np.concatenate([np.empty(0, np.int64), *parts]) // rows
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    blocks, first, counts = np.unique(needed, return_index=True, return_counts=True)
    last = len(needed) - 1 - np.unique(needed[::-1], return_index=True)[1]
    is_dense = 2 * counts >= rows
    return blocks[is_dense], numbers[first[is_dense]], numbers[last[is_dense]]
