"""Checksums of decoded images: damage on the disk is noticed while a run uses them, before it saves anything."""

import math
import shlex
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from typing import BinaryIO

import numpy as np

from podium.errors import DataError
from podium.files import os_error_as_data_error

ROWS_PER_BLOCK = 256
BYTES_PER_READ = 1 << 22
UNREADABLE = "The decoded images cannot be read."


@contextmanager
def verify_in_background(arrays: Sequence[np.memmap], checksums: Sequence[int]) -> Iterator[Future[None]]:
    """Compare the files of the arrays with their checksums in a thread; the future raises DataError at a difference.

    `checksums` are the CRC-32 of each block of `ROWS_PER_BLOCK` rows, array after array: 0.4 s of one core per GB.
    The end of the context stops the thread.
    """
    stop = Event()
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        # Opened now: like the mapped arrays, the files can be read after `make clean` has removed them.
        with os_error_as_data_error(UNREADABLE):
            streams = [stack.enter_context(open(array.filename, "rb")) for array in arrays]
        try:
            yield pool.submit(_verify, arrays, streams, checksums, stop)
        finally:
            stop.set()


def verify_rows(array: np.memmap, checksums: Sequence[int], rows: Sequence[int] | np.ndarray) -> None:
    """Compare the blocks that have the `rows` of an array with its `checksums`; raises DataError at a difference."""
    for block in np.unique(np.asarray(rows) // ROWS_PER_BLOCK).tolist():
        pixels = array[block * ROWS_PER_BLOCK : (block + 1) * ROWS_PER_BLOCK]
        _compare(Path(array.filename), block, checksums[block], zlib.crc32(pixels))


def _verify(arrays: Sequence[np.memmap], streams: Sequence[BinaryIO], checksums: Sequence[int], stop: Event) -> None:
    remaining = iter(checksums)
    for array, stream in zip(arrays, streams, strict=True):
        stream.seek(array.offset)
        for block, expected in enumerate(islice(remaining, count_blocks(array))):
            checksum = _read_checksum(stream, ROWS_PER_BLOCK * array[0].nbytes, stop)
            if stop.is_set():
                return
            _compare(Path(stream.name), block, expected, checksum)


def _compare(file: Path, block: int, expected: int, found: int) -> None:
    if found != expected:
        raise DataError(
            "The decoded images are damaged.",
            file=file,
            expected=f"checksum {expected} of block {block} ({ROWS_PER_BLOCK} images)",
            found=f"checksum {found}",
            fix=f"rm {shlex.quote(str(file))} && make prepare COMPETITION={file.parents[1].name}",
        )


def count_blocks(array: np.ndarray) -> int:
    """The number of blocks of rows that an array has."""
    return math.ceil(len(array) / ROWS_PER_BLOCK)


def _read_checksum(stream: BinaryIO, size: int, stop: Event) -> int:
    """The CRC-32 of the next `size` bytes. They are read: an error of the disk in a mapped file kills the process."""
    checksum = 0
    try:
        while size and not stop.is_set() and (content := stream.read(min(size, BYTES_PER_READ))):
            checksum, size = zlib.crc32(content, checksum), size - len(content)
    except OSError as error:
        raise DataError(UNREADABLE, file=stream.name, found=error.strerror) from None
    return checksum
