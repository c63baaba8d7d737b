"""Decoded images in memory-mapped arrays, which every run opens; `podium.data.decode` writes them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from podium.data.checksums import UNREADABLE, count_blocks, verify_rows
from podium.errors import DataError
from podium.files import os_error_as_data_error
from podium.lock import Lock, read_lock
from podium.plan.paths import Paths

LISTING_FILE = "listing.lock"


@dataclass(frozen=True)
class Dataset:
    """A competition's images at one size: n labelled images and m test images, in the order of the lock."""

    lock: Lock  # ids, labels and groups; folds are not assigned yet
    train_images: np.memmap  # (n, pixels, pixels, 3) uint8, read-only
    test_images: np.memmap  # (m, pixels, pixels, 3) uint8, read-only
    checksums: Sequence[int]  # CRC-32 of each block of rows of the train images, then of the test images

    @property
    def arrays(self) -> tuple[np.memmap, np.memmap]:
        """Both arrays, in the order of the checksums."""
        return self.train_images, self.test_images

    def verify_rows(self, part: str, rows: Sequence[int] | np.ndarray) -> None:
        """Raise DataError where the pixels of some rows of `train` or `test`, or of rows beside them, are damaged."""
        blocks = count_blocks(self.train_images)
        if part == "train":
            verify_rows(self.train_images, self.checksums[:blocks], rows)
        else:
            verify_rows(self.test_images, self.checksums[blocks:], rows)


def open_images(paths: Paths, lock: Lock, *, pixels: int, shape: str) -> Dataset:
    """Open the decoded images that `lock` describes, with sides of `pixels`; the original files are not needed.

    Raises DataError where `podium prepare` has not decoded the images at this size. The pixels are not read: who
    uses them verifies all of them meanwhile (`verify_in_background`), or the rows that it uses (`verify_rows`).
    """
    dataset = find_images(paths, lock, size=f"{pixels}-{shape}")
    if dataset is None:
        raise DataError(
            "The images are not decoded yet.",
            file=paths.cache,
            expected=f"images of {pixels} x {pixels} pixels (shape {shape}) with the fingerprint {lock.fingerprint}",
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
    return max(same, key=lambda dataset: dataset.train_images.shape[1], default=None)


def beside(train_file: Path, name: str) -> Path:
    """The file `test-32-crop.npy` or `checksums-32-crop.json` beside `train-32-crop.npy`."""
    return train_file.with_name(train_file.name.replace("train", name)).with_suffix(
        ".npy" if name == "test" else ".json"
    )


@os_error_as_data_error(UNREADABLE)
def _train_files(cache: Path, size: str) -> list[Path]:
    """Files of train images, sorted. `Path.glob` would ignore a folder that cannot be read."""
    folders = sorted(entry.path for entry in os.scandir(cache) if entry.is_dir()) if cache.is_dir() else []
    return [
        Path(folder, name)
        for folder in folders
        for name in sorted(os.listdir(folder))
        if fnmatch(name, f"train-{size}.npy")
    ]


@os_error_as_data_error(UNREADABLE)
def load_dataset(train_file: Path) -> Dataset | None:
    """The images in a folder of the cache; None where they are missing or damaged, and so have to be decoded.

    Raises DataError where they cannot be read.
    """
    try:
        train, test = (open_memmap(file, mode="r") for file in (train_file, beside(train_file, "test")))
        checksums = json.loads(beside(train_file, "checksums").read_bytes())
        dataset = Dataset(read_lock(train_file.with_name(LISTING_FILE)), train, test, checksums)
        return dataset if _is_whole(dataset) else None
    except (FileNotFoundError, ValueError, EOFError, TypeError, LookupError):
        return None


def _is_whole(dataset: Dataset) -> bool:
    """Whether the arrays hold pixels, and every block of rows has a checksum."""
    are_pixels = all(array.dtype == np.uint8 and array.flags.c_contiguous for array in dataset.arrays)
    return are_pixels and len(dataset.checksums) == sum(map(count_blocks, dataset.arrays))


def _same_images(first: Lock, second: Lock) -> bool:
    return (
        first.fingerprint == second.fingerprint
        and np.array_equal(first.train_ids, second.train_ids)
        and np.array_equal(first.test_ids, second.test_ids)
    )
