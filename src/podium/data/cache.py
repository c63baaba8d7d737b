"""Decoded images in memory-mapped arrays, which every run opens and verifies; `podium.data.decode` writes them."""

import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from podium.config.pixels import Pixels, height_and_width, pixels_text
from podium.data.image_file import UNREADABLE, ImageFile
from podium.data.jpeg_file import JpegFile
from podium.errors import ChangedDataError, DataError
from podium.files import DAMAGE, os_error_as
from podium.lock import Lock, read_lock
from podium.plan import stamp
from podium.plan.paths import Paths

LISTING_FILE = "listing.lock"
# Each block of rows has a checksum: damage on the disk is noticed before a run uses the images.
ROWS_PER_BLOCK = 256


@dataclass(frozen=True)
class Dataset:
    """A competition's images at one size: n labelled images and m test images, in the order of the lock."""

    lock: Lock  # ids, labels and groups; folds are not assigned yet
    images: np.memmap | ImageFile  # (n + m, height, width, 3) uint8: the labelled images, then the test images
    checksums: Sequence[int]  # CRC-32 of each block of rows

    @property
    def train_images(self) -> np.ndarray | ImageFile:
        """The labelled images, (n, height, width, 3) uint8."""
        return self.images[: len(self.lock.train_ids)]

    @property
    def test_images(self) -> np.ndarray | ImageFile:
        """The test images, (m, height, width, 3) uint8."""
        return self.images[len(self.lock.train_ids) :]

    @property
    def arrays(self) -> dict[str, np.ndarray | ImageFile]:
        """Part -> its images."""
        return {"train": self.train_images, "test": self.test_images}

    @cached_property
    def _file(self) -> ImageFile:
        """The images in their file, opened once: an error of the disk in a mapped file would kill the process."""
        return self.images if isinstance(self.images, ImageFile) else ImageFile(self.images)

    def _checksum(self, block: int) -> int:
        return self._file[block * ROWS_PER_BLOCK : (block + 1) * ROWS_PER_BLOCK].checksum()

    def verify_trained(self, lock_file: Path, lock_sha256: str) -> None:
        """Raise ChangedDataError where pixels, or data.lock, are no longer those that a training began with.

        The pixels are those of the file that `verify` has opened, also where another file has replaced it.
        """
        changed = [lock_file] if stamp.lock_sha256(lock_file) != lock_sha256 else []
        is_same = all(self._checksum(block) == expected for block, expected in enumerate(self.checksums))
        changed += [] if is_same else [self.images.filename]
        if changed:
            what = "The data changed during the training: its predictions are not saved."
            raise ChangedDataError(what, file=changed[0], fix="repeat the command")

    def verify(self, blocks: Iterable[int] | None = None) -> None:
        """Raise DataError where pixels of some blocks of rows, or of any, are damaged; 0.4 s of one core per GB."""
        file = Path(self.images.filename)
        for block in range(len(self.checksums)) if blocks is None else blocks:
            expected, found = self.checksums[block], self._checksum(block)
            if found != expected:
                raise DataError(
                    "The decoded images are damaged.",
                    file=file,
                    expected=f"checksum {expected} of block {block} ({ROWS_PER_BLOCK} images)",
                    found=f"checksum {found}",
                    fix=f"rm {shlex.quote(str(file))} && make prepare COMPETITION={file.parents[1].name}",
                )

    def verify_rows(self, part: str, rows: Sequence[int] | np.ndarray) -> None:
        """Raise DataError where the pixels of some rows of `train` or `test`, or of rows beside them, are damaged."""
        first = 0 if part == "train" else len(self.lock.train_ids)
        self.verify(np.unique((np.asarray(rows, np.int64) + first) // ROWS_PER_BLOCK).tolist())

    def derived(self, kind: str, part: str) -> Path:
        """Where what is computed of the images of a part is kept: a path that the pixels, in their order, determine."""
        content = [self.lock.fingerprint, part, self.images.shape, self.checksums]
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
        return Path(self.images.filename).parents[1] / kind / name


def size_name(pixels: Pixels, shape: str, stored_format: str = "pixels") -> str:
    """The part of a file name that says how images are stored, such as "32-crop" or "256x512-pad-jpeg"."""
    return f"{pixels_text(pixels)}-{shape}{'-jpeg' if stored_format == 'jpeg' else ''}"


def open_images(paths: Paths, lock: Lock, *, pixels: Pixels, shape: str, stored_format: str = "pixels") -> Dataset:
    """Open the decoded images that `lock` describes, of the size `pixels`; the original files are not needed.

    Raises DataError where `podium prepare` has not decoded the images at this size. The pixels are not verified here:
    `verify` verifies all of them before a training, `verify_rows` the rows that a command uses.
    """
    size, (height, width) = size_name(pixels, shape, stored_format), height_and_width(pixels)
    dataset = find_images(paths, lock, size=size)
    if dataset is None:
        raise DataError(
            "The images are not decoded yet.",
            file=paths.cache,
            expected=f"images of {height} x {width} pixels ({size}) with the fingerprint {lock.fingerprint}",
            fix=f"make prepare COMPETITION={paths.name}",
        )
    return dataset


@os_error_as(DataError, UNREADABLE)
def find_images(paths: Paths, lock: Lock, *, size: str = "*") -> Dataset | None:
    """Open the decoded images that `lock` describes at one size, such as "32-crop", else at the largest size.

    The fingerprint does not depend on the order of the test ids, so the ids are compared too. None where these
    images are not decoded. Raises DataError where the cache cannot be read.
    """
    # Path.glob would ignore a folder that cannot be read.
    folders = sorted(entry.path for entry in os.scandir(paths.cache) if entry.is_dir()) if paths.cache.is_dir() else []
    files = [Path(folder, name) for folder in folders for name in sorted(os.listdir(folder))]
    datasets = [load_dataset(file) for file in files if fnmatch(file.name, f"images-{size}.npy")]
    compared = attrgetter("fingerprint", "train_ids", "test_ids")
    same = [
        replace(dataset, lock=lock)
        for dataset in filter(None, datasets)
        if all(map(np.array_equal, compared(dataset.lock), compared(lock)))
    ]
    return max(same, key=lambda dataset: dataset.images.shape[1:3], default=None)


@os_error_as(DataError, UNREADABLE)
def load_dataset(file: Path) -> Dataset | None:
    """The images in a file of the cache; None where they are missing or damaged, and so have to be decoded.

    Raises DataError where they cannot be read.
    """
    try:
        array, lock = open_memmap(file, mode="r"), read_lock(file.with_name(LISTING_FILE))
        checksums, rows = json.loads(file.with_suffix(".json").read_bytes()), len(lock.train_ids) + len(lock.test_ids)
        are_pixels = array.dtype == np.uint8 and array.flags.c_contiguous
        images = JpegFile(array, rows) if array.ndim == 1 else array
        are_whole = len(images) == rows and len(checksums) == math.ceil(rows / ROWS_PER_BLOCK)
        return Dataset(lock, images, checksums) if are_pixels and are_whole else None
    except DAMAGE as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        return None
