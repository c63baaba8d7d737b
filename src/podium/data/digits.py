"""The bundled competition: scikit-learn's 1,797 handwritten digits, 500 of them as the test set.

From the UCI ML hand-written digits set (E. Alpaydin, C. Kaynak, 1998), 8 x 8 pixels with 17 greys.
"""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from podium.files import atomic_write, cache_lock

TEST_ROWS = 500


def digits_archive(cache: Path) -> Path:
    """A zip in the cache, written once, with 1,297 images in train/, their labels in train.csv, and 500 in test/."""
    file = cache / "digits" / "digits.zip"
    with cache_lock(file.with_name("lock")):
        if not file.is_file():
            images, labels, withheld = _digits()
            rows = "".join(f"{_id(i)},{labels[i]}\n" for i in np.flatnonzero(~withheld))
            with atomic_write(file) as stream, zipfile.ZipFile(stream, "w") as archive:
                archive.writestr("train.csv", f"id,label\n{rows}")
                for i, image in enumerate(images):
                    # PGM is a short header and the pixels: every library writes the same bytes.
                    name = f"{'test' if withheld[i] else 'train'}/{_id(i)}.pgm"
                    archive.writestr(name, b"P5 8 8 255\n" + image.tobytes())
    return file


def digits_answers() -> dict[str, str]:
    """Id -> class name of the 500 test digits, for `podium score`."""
    _, labels, withheld = _digits()
    return {_id(i): str(labels[i]) for i in np.flatnonzero(withheld)}


def _id(index: int) -> str:
    return f"digit-{index:04d}"


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (1797, 8, 8) with 0 to 255, labels (1797,), and which are test digits (1797,) bool.

    The test digits are stratified by class, and chosen by hash, so that no library's random generator matters.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels, places, withheld = bunch.target, np.empty(len(bunch.target)), np.zeros(len(bunch.target), bool)
    by_hash = np.argsort([hashlib.sha256(f"digits/{i}".encode()).hexdigest() for i in range(len(labels))])
    for label in np.unique(labels):
        rows = by_hash[labels[by_hash] == label]
        places[rows] = (np.arange(len(rows)) + 0.5) / len(rows)  # from 0 to 1 within the class
    withheld[np.argsort(places, kind="stable")[:TEST_ROWS]] = True
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), labels, withheld
