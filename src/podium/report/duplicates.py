"""Images that are there twice: the same picture in training, validation and test flatters or misleads a score."""

from dataclasses import dataclass

import numpy as np

from podium.report.gallery import Images
from podium.report.gather import Gathered

# Small grey pictures are compared first, then the images themselves, both by correlation.
SIDE = 8
ALIKE_SMALL, ALIKE = 0.98, 0.95
ROWS_AT_A_TIME = 1000
# More bytes than this are not read for a page that is to be there in seconds.
MOST_BYTES = 2_000_000_000
MOST_COMPARED = 1_500_000_000  # pairs: some five seconds of two cores
MOST_PAIRS = 50_000


@dataclass(frozen=True)
class Twin:
    """Two images that are nearly one: places among all images, and their correlation."""

    one: int
    other: int
    correlation: float


def near_duplicates(images: list[np.ndarray], part: np.ndarray) -> list[Twin] | None:
    """Pairs of near-duplicates that lie in different parts, the most alike first; None where there is too much to read.

    `images` are arrays (n, side, side, 3) uint8 one after the other, `part` (all n,) tells where each belongs: pairs
    inside part 0, which is taken to be the training rows, and inside any other are left out.
    """
    outside, pairs = np.flatnonzero(part != 0), []
    if sum(array.nbytes for array in images) > MOST_BYTES or len(outside) * len(part) > MOST_COMPARED:
        return None
    small = np.concatenate([_unit(_shrunk(array)) for array in images])
    for start in range(0, len(outside), ROWS_AT_A_TIME):
        rows = outside[start : start + ROWS_AT_A_TIME]
        one, other = np.nonzero(small[rows] @ small.T > ALIKE_SMALL)
        one = rows[one]
        across = (part[one] != part[other]) & ((part[other] == 0) | (one < other))
        if len(pairs) + across.sum() > MOST_PAIRS:  # flat pictures are all alike: nothing can be said of these images
            return None
        pairs += zip(one[across].tolist(), other[across].tolist(), strict=True)
    twins = [Twin(*pair, _correlation(images, *pair)) for pair in pairs]
    return sorted((twin for twin in twins if twin.correlation > ALIKE), key=lambda twin: -twin.correlation)


def _correlation(images: list[np.ndarray], *places: int) -> float:
    """Of two whole images, by their places among all."""
    ends = np.cumsum([len(array) for array in images])
    which = np.searchsorted(ends, places, side="right")
    found = [images[k][place - ends[k]] for k, place in zip(which, places, strict=True)]  # counted from the end
    one, other = _unit(np.stack(found).reshape(2, -1).astype(np.float32))
    return float(one @ other)


def _shrunk(images: np.ndarray) -> np.ndarray:
    """Grey pictures (n, 64) of images (n, side, side, 3): the means of 8 x 8 areas."""
    step = max(images.shape[1] // SIDE, 1)
    side = min(images.shape[1], SIDE)
    shrunk = np.empty((len(images), side * side), np.float32)
    for start in range(0, len(images), ROWS_AT_A_TIME):
        some = images[start : start + ROWS_AT_A_TIME, : side * step, : side * step]
        areas = some.reshape(len(some), side, step, side, step, 3)
        shrunk[start : start + len(some)] = areas.mean(axis=(2, 4, 5), dtype=np.float32).reshape(len(some), -1)
    return shrunk


def _unit(values: np.ndarray) -> np.ndarray:
    """Rows (n, k) less their mean, of length 1: a product of two is their correlation."""
    centred = values - values.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


MOST_SHOWN = 12


@dataclass(frozen=True)
class Side:
    """One of two twins: where it belongs, its label where it has one, its image."""

    id: str
    part: str
    label: str | None
    image: str | None


@dataclass(frozen=True)
class Twins:
    """All pairs: how many of each kind, how many with two labels, the first of them, and a row of the CSV for each."""

    counts: dict[str, int]
    differ: int
    shown: list[tuple[Side, Side, float]]
    rows: list[list[str | float]]


def twins_of(found: Gathered, images: Images) -> Twins | None:
    """Pairs across the parts of the data, those with two labels first; None where there was too much to compare."""
    data, folds = found.images, found.lock.folds
    assert data is not None
    part = np.concatenate([folds + 1, np.full(len(data.test_ids), folds.max() + 2)])
    twins = near_duplicates([data.train_images, data.test_images], part)
    if twins is None:
        return None
    names = _part_names(int(folds.max()) + 1)
    ids, labels = np.concatenate([data.train_ids, data.test_ids]), found.lock.train_labels

    def side(place: int, *, with_image: bool) -> Side:
        part_name, one, is_test = names[part[place]], str(ids[place]), place >= len(labels)
        image = images.address("test" if is_test else "train", one) if with_image else None
        return Side(one, part_name, None if is_test else found.lock.classes[labels[place]], image)

    def pair(twin: Twin, *, with_image: bool) -> tuple[Side, Side, float]:
        return *(side(place, with_image=with_image) for place in (twin.one, twin.other)), twin.correlation

    pairs = sorted((pair(twin, with_image=False) for twin in twins), key=lambda one: (not _differ(one), -one[2]))
    first = sorted(twins, key=lambda twin: (not _differ(pair(twin, with_image=False)), -twin.correlation))[:MOST_SHOWN]
    kinds = [" and ".join(sorted((one.part, other.part))) for one, other, _ in pairs]
    return Twins(
        counts={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        differ=sum(map(_differ, pairs)),
        shown=[pair(twin, with_image=True) for twin in first],
        rows=[
            [one.id, one.part, one.label or "", other.id, other.part, other.label or "", alike]
            for one, other, alike in pairs
        ],
    )


def _part_names(folds: int) -> list[str]:
    """What the parts are called: rows that always train, each fold, the test."""
    return ["training", *(["validation"] if folds == 1 else [f"fold {k + 1}" for k in range(folds)]), "test"]


def _differ(pair: tuple[Side, Side, float]) -> bool:
    one, other, _ = pair
    return None not in (one.label, other.label) and one.label != other.label
