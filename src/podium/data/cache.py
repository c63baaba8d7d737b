"""Decoded images in memory-mapped arrays, which every run opens and verifies; `podium.data.decode` writes them."""

import hashlib
import json
import math
import os
import shlex
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from threading import Event

import numpy as np
from numpy.lib.format import open_memmap

from podium.config.pixels import Pixels, height_and_width, pixels_text
from podium.errors import DataError
from podium.files import os_error_as
from podium.lock import Lock, read_lock
from podium.plan.paths import Paths

LISTING_FILE = "listing.lock"
# Each block of rows has a checksum: damage on the disk is noticed while a run uses the images.
ROWS_PER_BLOCK = 256
BYTES_PER_READ = 1 << 22
UNREADABLE = "The decoded images cannot be read."


@dataclass(frozen=True)
class Dataset:
    """A competition's images at one size: n labelled images and m test images, in the order of the lock."""

    lock: Lock  # ids, labels and groups; folds are not assigned yet
    train_images: np.memmap  # (n, height, width, 3) uint8, read-only
    test_images: np.memmap  # (m, height, width, 3) uint8, read-only
    checksums: Sequence[int]  # CRC-32 of each block of rows of the train images, then of the test images

    @property
    def arrays(self) -> dict[str, np.memmap]:
        """Part -> its images, in the order of the checksums."""
        return {"train": self.train_images, "test": self.test_images}

    def verify_rows(self, part: str, rows: Sequence[int] | np.ndarray) -> None:
        """Raise DataError where the pixels of some rows of `train` or `test`, or of rows beside them, are damaged."""
        array, checksums = self.arrays[part], self._checksums_of(part)
        for block in np.unique(np.asarray(rows) // ROWS_PER_BLOCK).tolist():
            expected, found = checksums[block], _block_checksum(array, block)
            if found != expected:
                file = Path(array.filename)
                raise DataError(
                    "The decoded images are damaged.",
                    file=file,
                    expected=f"checksum {expected} of block {block} ({ROWS_PER_BLOCK} images)",
                    found=f"checksum {found}",
                    fix=f"rm {shlex.quote(str(file))} && make prepare COMPETITION={file.parents[1].name}",
                )

    def features_stem(self, part: str) -> Path:
        """Where features of the images of a part are kept: a path that the pixels, in their order, determine."""
        content = [self.lock.fingerprint, part, self.arrays[part].shape, self._checksums_of(part)]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return Path(self.train_images.filename).parents[1] / "features" / name

    def _checksums_of(self, part: str) -> Sequence[int]:
        first = _count_blocks(self.train_images)
        return self.checksums[:first] if part == "train" else self.checksums[first:]

    @contextmanager
    def verify_in_background(self) -> Iterator[Future[None]]:
        """Verify all rows in a thread, at 0.4 s of one core per GB; the future raises DataError.

        The end of the context stops the thread.
        """
        stop = Event()

        def verify() -> None:
            for part, array in self.arrays.items():
                for row in range(0, len(array), ROWS_PER_BLOCK):
                    if stop.is_set():
                        return
                    self.verify_rows(part, [row])

        with ThreadPoolExecutor(1) as pool:
            try:
                yield pool.submit(verify)
            finally:
                stop.set()


def _block_checksum(array: np.memmap, block: int) -> int:
    """The CRC-32 of a block of rows, read from the file: an error of the disk in a mapped file kills the process."""
    size, checksum = ROWS_PER_BLOCK * array[0].nbytes, 0
    try:
        with open(array.filename, "rb") as stream:
            stream.seek(array.offset + block * size)
            while size and (content := stream.read(min(size, BYTES_PER_READ))):
                checksum, size = zlib.crc32(content, checksum), size - len(content)
        return checksum
    except FileNotFoundError:  # after `make clean`, the pixels stay mapped
        return zlib.crc32(array[block * ROWS_PER_BLOCK : (block + 1) * ROWS_PER_BLOCK])
    except OSError as error:
        raise DataError(UNREADABLE, file=array.filename, found=error.strerror) from None


def _count_blocks(array: np.ndarray) -> int:
    return math.ceil(len(array) / ROWS_PER_BLOCK)


def size_name(pixels: Pixels, shape: str) -> str:
    """The part of a file name that says how images are stored, such as "32-crop" or "256x512-pad"."""
    return f"{pixels_text(pixels)}-{shape}"


def open_images(paths: Paths, lock: Lock, *, pixels: Pixels, shape: str) -> Dataset:
    """Open the decoded images that `lock` describes, of the size `pixels`; the original files are not needed.

    Raises DataError where `podium prepare` has not decoded the images at this size. The pixels are not verified here:
    `verify_in_background` verifies all of them during a training, `verify_rows` the rows that a command uses.
    """
    (height, width), dataset = height_and_width(pixels), find_images(paths, lock, size=size_name(pixels, shape))
    if dataset is None:
        raise DataError(
            "The images are not decoded yet.",
            file=paths.cache,
            expected=f"images of {height} x {width} pixels (shape {shape}) with the fingerprint {lock.fingerprint}",
            fix=f"make prepare COMPETITION={paths.name}",
        )
    return dataset


def find_images(paths: Paths, lock: Lock, *, size: str = "*") -> Dataset | None:
    """Open the decoded images that `lock` describes at one size, such as "32-crop", else at the largest size.

    The fingerprint does not depend on the order of the test ids, so the ids are compared too. None where these
    images are not decoded. Raises DataError where the cache cannot be read.
    """
    datasets = [load_dataset(file) for file in _train_files(paths.cache, size)]
    same = [replace(dataset, lock=lock) for dataset in datasets if dataset and _same_images(dataset.lock, lock)]
    return max(same, key=lambda dataset: dataset.train_images.shape[1:3], default=None)


def beside(train_file: Path, name: str) -> Path:
    """The file `test-32-crop.npy` or `checksums-32-crop.json` beside `train-32-crop.npy`."""
    return train_file.with_name(train_file.name.replace("train", name)).with_suffix(
        ".npy" if name == "test" else ".json"
    )


@os_error_as(DataError, UNREADABLE)
def _train_files(cache: Path, size: str) -> list[Path]:
    """Files of train images, sorted. `Path.glob` would ignore a folder that cannot be read."""
    folders = sorted(entry.path for entry in os.scandir(cache) if entry.is_dir()) if cache.is_dir() else []
    return [
        Path(folder, name)
        for folder in folders
        for name in sorted(os.listdir(folder))
        if fnmatch(name, f"train-{size}.npy")
    ]


@os_error_as(DataError, UNREADABLE)
def load_dataset(train_file: Path) -> Dataset | None:
    """The images in a folder of the cache; None where they are missing or damaged, and so have to be decoded.

    Raises DataError where they cannot be read.
    """
    try:
        train, test = (open_memmap(file, mode="r") for file in (train_file, beside(train_file, "test")))
        lock = read_lock(train_file.with_name(LISTING_FILE))
        test = test[: len(lock.test_ids)]  # without test images, the file has a row nevertheless
        checksums = json.loads(beside(train_file, "checksums").read_bytes())
        are_pixels = all(array.dtype == np.uint8 and array.flags.c_contiguous for array in (train, test))
        are_whole = are_pixels and len(checksums) == _count_blocks(train) + _count_blocks(test)
        return Dataset(lock, train, test, checksums) if are_whole else None
    except (FileNotFoundError, ValueError, EOFError, TypeError, LookupError):
        return None


def _same_images(first: Lock, second: Lock) -> bool:
    return (
        first.fingerprint == second.fingerprint
        and np.array_equal(first.train_ids, second.train_ids)
        and np.array_equal(first.test_ids, second.test_ids)
    )
