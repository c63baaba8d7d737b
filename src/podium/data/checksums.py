"""Checksums of decoded images: damage on the disk is noticed while a run uses them, before it saves anything."""

import math
import shlex
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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
def verify_in_background(arrays: Sequence[np.memmap], checksums: Sequence[int], *, fix: str) -> Iterator[Future[None]]:
    """Compare the files of the arrays with their checksums in a thread; the future raises DataError at a difference.

    `checksums` are the CRC-32 of each block of `ROWS_PER_BLOCK` rows, array after array: 0.4 s of one core per GB.
    `fix` is the command that decodes the images again. The end of the context stops the thread.
    """
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(_verify, arrays, checksums, stop=stop, fix=fix)
        finally:
            stop.set()


@os_error_as_data_error(UNREADABLE)
def _verify(arrays: Sequence[np.memmap], checksums: Sequence[int], *, stop: Event, fix: str) -> None:
    remaining = iter(checksums)
    for array in arrays:
        file = Path(array.filename)
        # Read, not mapped: a disk that fails while a mapped file is used kills the process.
        with file.open("rb") as stream:
            stream.seek(array.offset)
            for block, expected in enumerate(islice(remaining, count_blocks(array))):
                checksum = _read_checksum(stream, ROWS_PER_BLOCK * array[0].nbytes, stop)
                if stop.is_set():
                    return
                if checksum != expected:
                    raise DataError(
                        "The decoded images are damaged.",
                        file=file,
                        expected=f"checksum {expected} of block {block} ({ROWS_PER_BLOCK} images)",
                        found=f"checksum {checksum}",
                        fix=f"rm {shlex.quote(str(file))} && {fix}",
                    )


def count_blocks(array: np.ndarray) -> int:
    """The number of blocks of rows that an array has."""
    return math.ceil(len(array) / ROWS_PER_BLOCK)


def _read_checksum(stream: BinaryIO, size: int, stop: Event) -> int:
    """The CRC-32 of the next `size` bytes."""
    checksum = 0
    while size and not stop.is_set() and (content := stream.read(min(size, BYTES_PER_READ))):
        checksum, size = zlib.crc32(content, checksum), size - len(content)
    return checksum
