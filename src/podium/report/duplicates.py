"""Near-duplicates: almost equal images in two of training, validation and test, which make a score too good or bad."""

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from podium.report.gallery import image_url
from podium.report.load import ReportData

# Reduced grey images are compared first, then the full images of similar pairs; both by correlation.
SIDE = 8
LEAST_SMALL_CORRELATION, LEAST_CORRELATION = 0.98, 0.95
ROWS_PER_BLOCK = 1000
# Limits that keep the search within a few seconds on two cores.
MOST_BYTES = 2_000_000_000
MOST_COMPARISONS = 1_500_000_000
MOST_PAIRS = 50_000
MOST_SHOWN = 12


class Pair(NamedTuple):
    """Two near-duplicates: their positions among all images, and their correlation."""

    first: int
    second: int
    correlation: float


def find_duplicates(data: ReportData) -> dict[str, Any] | None:
    """Near-duplicates in different parts of the data, pairs with different labels first; None if not searched.

    `counts` by kind (such as "test and training"), `with_different_labels`, `rows` of the CSV, `shown` pairs.
    """
    lock, dataset = data.workspace.lock, data.images
    folds = lock.folds
    part = np.concatenate([folds + 1, np.full(len(lock.test_ids), folds.max() + 2)])
    pairs = near_duplicates([dataset.train_images, dataset.test_images], part)
    if pairs is None:
        return None
    for name, array in dataset.arrays.items():
        dataset.verify_rows(name, range(len(array)))
    fold_names = ["validation"] if folds.max() == 0 else [f"fold {k + 1}" for k in range(folds.max() + 1)]
    part_names = ["training", *fold_names, "test"]
    ids = np.concatenate([lock.train_ids, lock.test_ids]).tolist()
    texts = (lock.target.label_text(label, lock.classes) for label in lock.train_labels)
    labels = [*texts, *([None] * len(lock.test_ids))]

    def describe(position: int) -> list[str | None]:
        return [ids[position], part_names[part[position]], labels[position]]

    def labels_differ(pair: Pair) -> bool:
        return len({labels[pair.first], labels[pair.second]} - {None}) == 2

    def image(position: int) -> str | None:
        return image_url(data, "train" if position < len(folds) else "test", ids[position])

    pairs.sort(key=lambda pair: not labels_differ(pair))  # stable: the highest correlation stays first
    kinds = (sorted((part_names[part[pair.first]], part_names[part[pair.second]])) for pair in pairs)
    return {
        "counts": Counter(" and ".join(kind) for kind in kinds),
        "with_different_labels": sum(map(labels_differ, pairs)),
        "rows": [[*describe(pair.first), *describe(pair.second), pair.correlation] for pair in pairs],
        "shown": [
            ([(*describe(position), image(position)) for position in (pair.first, pair.second)], pair.correlation)
            for pair in pairs[:MOST_SHOWN]
        ],
    }


def near_duplicates(images: list[np.ndarray], part: np.ndarray) -> list[Pair] | None:
    """Pairs of near-duplicates in different parts, the highest correlation first; None where the search is too long.

    `images` are arrays (n, side, side, 3) uint8, `part` (n of all arrays,) is the part that each image belongs to.
    Part 0 is the rows that are always trained on. Pairs inside one part are left out.
    """
    outside, candidates = np.flatnonzero(part != 0), []
    if sum(array.nbytes for array in images) > MOST_BYTES or len(outside) * len(part) > MOST_COMPARISONS:
        return None
    small = np.concatenate([_normalised(_reduced(array)) for array in images])
    for start in range(0, len(outside), ROWS_PER_BLOCK):
        rows = outside[start : start + ROWS_PER_BLOCK]
        first, second = np.nonzero(small[rows] @ small.T > LEAST_SMALL_CORRELATION)
        first = rows[first]
        # A pair outside part 0 is found from both of its images, and kept once.
        kept = (part[first] != part[second]) & ((part[second] == 0) | (first < second))
        if len(candidates) + kept.sum() > MOST_PAIRS:  # images with little content are all similar
            return None
        candidates += zip(first[kept].tolist(), second[kept].tolist(), strict=True)
    pixels = [image.ravel() for array in images for image in np.asarray(array)]
    with np.errstate(invalid="ignore", divide="ignore"):  # images of one colour have no correlation: NaN
        pairs = [Pair(j, k, float(np.corrcoef(pixels[j], pixels[k])[0, 1])) for j, k in candidates]
    return sorted((pair for pair in pairs if pair.correlation > LEAST_CORRELATION), key=lambda pair: -pair.correlation)


def _reduced(images: np.ndarray) -> np.ndarray:
    """Grey images (n, 64) of images (n, height, width, 3): the means of 8 x 8 areas."""
    rows, columns = (min(side, SIDE) for side in images.shape[1:3])
    down, right = images.shape[1] // rows, images.shape[2] // columns
    reduced = np.empty((len(images), rows * columns), np.float32)
    for start in range(0, len(images), ROWS_PER_BLOCK):
        block = images[start : start + ROWS_PER_BLOCK, : rows * down, : columns * right]
        areas = block.reshape(len(block), rows, down, columns, right, 3)
        reduced[start : start + len(block)] = areas.mean(axis=(2, 4, 5), dtype=np.float32).reshape(len(block), -1)
    return reduced


def _normalised(values: np.ndarray) -> np.ndarray:
    """Rows (n, k) minus their mean, with length 1: the product of two rows is their correlation."""
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
