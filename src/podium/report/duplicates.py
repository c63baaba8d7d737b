"""Near-duplicates: almost equal images in two of training, validation and test, which make a score too good or bad."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

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


def find_duplicates(data: ReportData) -> dict[str, Any] | None:
    """Near-duplicates in different parts of the data, pairs with different labels first; None if not searched.

    `table` has a row per pair, `counts` are by kind (such as "test and training"), `shown` pairs have their images.
    """
    lock, dataset = data.workspace.lock, data.images
    folds, tests = lock.folds, len(lock.test_ids)
    part = np.concatenate([folds + 1, np.full(tests, folds.max() + 2)])
    pairs = near_duplicates([dataset.train_images, dataset.test_images], part)
    if pairs is None:
        return None
    for name, array in dataset.arrays.items():
        dataset.verify_rows(name, range(len(array)))
    fold_names = ["validation"] if folds.max() == 0 else [f"fold {k + 1}" for k in range(folds.max() + 1)]
    part_names = ["training", *fold_names, "test"]
    ids = np.concatenate([lock.train_ids, lock.test_ids]).tolist()
    labels = [*(lock.target.label_text(label, lock.classes) for label in lock.train_labels), *([None] * tests)]

    def side(position: int, name: str) -> dict[str, str | None]:
        return {
            name: ids[position],
            f"part of {name}": part_names[part[position]],
            f"label of {name}": labels[position],
        }

    def labels_differ(pair: tuple[int, int, float]) -> bool:
        return len({labels[pair[0]], labels[pair[1]]} - {None}) == 2

    pairs.sort(key=labels_differ, reverse=True)  # stable: the highest correlation stays first
    rows = [side(j, "first") | side(k, "second") | {"correlation": correlation} for j, k, correlation in pairs]
    urls = [
        [image_url(data, "train" if position < len(folds) else "test", ids[position]) for position in pair[:2]]
        for pair in pairs[:MOST_SHOWN]
    ]
    return {
        "table": pd.DataFrame(rows),
        "counts": Counter(" and ".join(sorted((row["part of first"], row["part of second"]))) for row in rows),
        "with_different_labels": sum(map(labels_differ, pairs)),
        "shown": list(zip(rows, urls, strict=False)),
    }


def near_duplicates(images: list[np.ndarray], part: np.ndarray) -> list[tuple[int, int, float]] | None:
    """Pairs of near-duplicates in different parts, the highest correlation first; None where the search is too long.

    `images` are arrays (n, height, width, 3) uint8, `part` (n of all arrays,) is the part that each image belongs to.
    Part 0 is the rows that are always trained on. Pairs inside one part are left out. Returns the positions of both
    among all images, and their correlation.
    """
    outside, candidates = np.flatnonzero(part != 0), []
    if sum(array.nbytes for array in images) > MOST_BYTES or len(outside) * len(part) > MOST_COMPARISONS:
        return None
    small = _normalised(np.concatenate([_reduced(array) for array in images]))
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
        pairs = [(j, k, float(np.corrcoef(pixels[j], pixels[k])[0, 1])) for j, k in candidates]
    return sorted((pair for pair in pairs if pair[2] > LEAST_CORRELATION), key=lambda pair: -pair[2])


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
