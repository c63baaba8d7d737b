"""Checksums of decoded images: damage on the disk is noticed while a run uses them, before it saves anything."""

import math
import shlex
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from threading import Event
from typing import BinaryIO

import numpy as np

from podium.errors import DataError
from podium.files import os_error_as_data_error

ROWS_PER_BLOCK = 256
BYTES_PER_READ = 1 << 22
UNREADABLE = "The decoded images cannot be read."


@contextmanager
def verify_in_background(arrays: Sequence[np.memmap], checksums: Sequence[int], *, fix: str) -> Iterator[Future[None]]:
    """Compare the files of the arrays with their checksums in a thread; the future raises DataError at a difference.

    `checksums` are the CRC-32 of each block of `ROWS_PER_BLOCK` rows, array after array: 0.4 s of one core per GB.
    `fix` is the command that decodes the images again. The end of the context stops the thread.
    """
    stop = Event()
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        # Opened now: like the mapped arrays, the files can be read after `make clean` has removed them.
        with os_error_as_data_error(UNREADABLE):
            streams = [stack.enter_context(open(array.filename, "rb")) for array in arrays]
        try:
            yield pool.submit(_verify, arrays, streams, checksums, stop=stop, fix=fix)
        finally:
            stop.set()


def _verify(
    arrays: Sequence[np.memmap], streams: Sequence[BinaryIO], checksums: Sequence[int], *, stop: Event, fix: str
) -> None:
    remaining = iter(checksums)
    for array, stream in zip(arrays, streams, strict=True):
        stream.seek(array.offset)
        for block, expected in enumerate(islice(remaining, count_blocks(array))):
            checksum = _read_checksum(stream, ROWS_PER_BLOCK * array[0].nbytes, stop)
            if stop.is_set():
                return
            if checksum != expected:
                raise DataError(
                    "The decoded images are damaged.",
                    file=stream.name,
                    expected=f"checksum {expected} of block {block} ({ROWS_PER_BLOCK} images)",
                    found=f"checksum {checksum}",
                    fix=f"rm {shlex.quote(str(stream.name))} && {fix}",
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
