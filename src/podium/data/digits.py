"""The bundled competition: scikit-learn's 1,797 handwritten digits, 500 of them as the test set.

From the UCI ML hand-written digits set (E. Alpaydin, C. Kaynak, 1998), 8 x 8 pixels with 17 greys.
"""

import hashlib

import numpy as np

from podium.data.archives import Memory
from podium.data.listing import LabelledImage, Listing

TEST_ROWS = 500
SIGNATURE = "digits of scikit-learn, selection 1"


def digits_listing() -> Listing:
    """The digits as a listing: 1,297 labelled images and 500 test images."""
    images, labels, withheld = _digits()
    # PGM is a short header and the pixels: every library writes the same bytes.
    contents = {f"{_id(i)}.pgm": b"P5 8 8 255\n" + image.tobytes() for i, image in enumerate(images)}
    files = Memory(contents, "digits")
    rows = [LabelledImage(_id(i), f"{_id(i)}.pgm", str(labels[i])) for i in np.flatnonzero(~withheld)]
    return Listing(files, rows, files, {_id(i): f"{_id(i)}.pgm" for i in np.flatnonzero(withheld)})


def digits_answers() -> dict[str, str]:
    """Id -> class name of the 500 test digits, for `podium score`."""
    _, labels, withheld = _digits()
    return {_id(i): str(labels[i]) for i in np.flatnonzero(withheld)}


def _id(index: int) -> str:
    return f"digit-{index:04d}"


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (1797, 8, 8) with 0 to 255, labels (1797,), and which are test digits (1797,) bool."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return images, bunch.target, _withheld(bunch.target)


def _withheld(labels: np.ndarray) -> np.ndarray:
    """The 500 test rows, stratified by class; chosen by hash, so that no library's random generator matters."""
    counts = np.bincount(labels)
    shares = counts * TEST_ROWS / counts.sum()
    quotas = np.floor(shares).astype(int)
    rest = np.argsort(quotas - shares, kind="stable")[: TEST_ROWS - quotas.sum()]  # largest remainders
    quotas[rest] += 1
    chosen = np.zeros(len(labels), bool)
    for label, quota in enumerate(quotas):
        rows = sorted(np.flatnonzero(labels == label), key=lambda i: hashlib.sha256(f"digits/{i}".encode()).digest())
        chosen[rows[:quota]] = True
    return chosen
