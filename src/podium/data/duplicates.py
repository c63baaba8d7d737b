"""Near-duplicates: the same picture again, also resized, recompressed, of another brightness, cropped or mirrored."""

import errno
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce
from itertools import product

import numpy as np
from PIL import Image

from podium.data.cache import Dataset
from podium.data.locate import Progress, quiet
from podium.files import DAMAGE, atomic_write
from podium.lock import Lock

# Images are compared in grey with GREY_SIDE pixels a side. Thumbnails of SIDE pixels are compared first; similar pairs
# then with LARGE_SIDE pixels, of the whole images and of boxes without 5 % of width and height at nine places. The
# limits were measured: docs/competitions.md.
GREY_SIDE, SIDE, LARGE_SIDE = 32, 8, 16
LEAST_SMALL_CORRELATION, LEAST_CORRELATION, LEAST_OF_FEATURES = 0.9, 0.96, 0.87
CROPPED_SHARE, PLACES = 0.05, (0, 0.5, 1)
# Where more pairs than this are similar at first, as in data with little content, only the most similar are compared.
MOST_CANDIDATES, SAMPLED_ROWS, ROWS_PER_TILE = 2_000_000, 1000, 4096
MOST_ROWS = 100_000
MOST_EXAMPLES = 3
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def kept_duplicates(dataset: Dataset, features: np.ndarray | None = None, *, progress: Progress = quiet) -> np.ndarray:
    """`near_duplicates` (n,) of the images of a data set, found once and kept in the cache where it can be written."""
    limits = [GREY_SIDE, SIDE, LARGE_SIDE, LEAST_SMALL_CORRELATION, LEAST_CORRELATION, LEAST_OF_FEATURES, CROPPED_SHARE]
    limits += [PLACES, MOST_CANDIDATES, SAMPLED_ROWS, ROWS_PER_TILE, MOST_ROWS]
    method = hashlib.sha256(repr(limits).encode() + (b"" if features is None else features.tobytes())).hexdigest()
    file = dataset.derived("duplicates", "all").with_suffix(f".{method[:16]}.npy")
    with suppress(*DAMAGE):
        groups = np.load(file)
        if groups.shape == (len(dataset.images),) and groups.dtype == np.int64:
            return groups
    groups = near_duplicates(dataset.images, features, progress=progress)
    try:
        with atomic_write(file) as stream:
            np.save(stream, groups)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    return groups


def near_duplicates(
    images: np.ndarray, features: np.ndarray | None = None, *, progress: Progress = quiet
) -> np.ndarray:
    """The position (n,) of the first image of the group of near-duplicates that each image is in; its own if alone.

    `images` are uint8 (n, height, width, 3). Two images are similar by the correlation of their grey pixels, where one
    may be mirrored; with `features` (n, channels) also by that of these. A chain of similar images is one group.
    An image of one grey has no copies but equal ones.
    """
    grey = np.empty((len(images), GREY_SIDE, GREY_SIDE), np.uint8)
    for row, image in enumerate(images):
        grey[row] = Image.fromarray(image).convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    groups, mean = joined(grey.reshape(len(grey), -1).view(f"V{GREY_SIDE**2}").ravel()), _shares(0, 1, SIDE)
    small = np.stack([mean @ image @ mean.T for image in grey])
    searches = [([_centred(small), _centred(small[:, :, ::-1])], LEAST_SMALL_CORRELATION)]
    searches += [] if features is None else [([_centred(features.astype(np.float32))], LEAST_OF_FEATURES)]
    for number, (views, least) in enumerate(searches):
        for pairs in _similar_pairs(views, least, progress):
            for few in np.array_split(pairs, pairs.shape[1] // ROWS_PER_TILE + 1, axis=1):
                few = few[:, groups[few[0]] != groups[few[1]]]
                if number == 0 and few.size:
                    few = few[:, _correlations(grey, few) >= LEAST_CORRELATION]
                groups = joined(groups, *few) if few.size else groups
    return groups


def _similar_pairs(views: Sequence[np.ndarray], least: float, progress: Progress) -> Iterator[np.ndarray]:
    """Yield the pairs (2, k) of rows (n, d) of the first view whose product, or that with another view, is `least`.

    The products are computed in tiles of ROWS_PER_TILE rows and columns, so memory is bounded. Of more than MOST_ROWS
    rows, only those are multiplied whose first principal component is most similar, so time is bounded too.
    """
    vectors, order, reach = views[0], np.arange(len(views[0])), len(views[0])
    if len(vectors) > MOST_ROWS:
        both = vectors + views[-1]  # does not change if an image is mirrored
        sample, reach = both[:: -(-len(both) // SAMPLED_ROWS)], MOST_ROWS**2 // len(both)
        order = np.argsort(both @ np.linalg.eigh(sample.T @ sample)[1][:, -1], kind="stable")
        views = [view[order] for view in views]
        vectors = views[0]
    if (count := len(vectors) ** 2 / 2) > MOST_CANDIDATES:
        sample = vectors[:: -(-len(vectors) // SAMPLED_ROWS)]
        products = (sample @ sample.T)[np.triu_indices(len(sample), 1)]
        least = max(least, float(np.quantile(products, 1 - MOST_CANDIDATES / count)))
    for start in range(0, len(vectors), ROWS_PER_TILE):
        progress("compare images", start, len(vectors))
        for other in range(start, min(start + reach, len(vectors)), ROWS_PER_TILE):
            tile = vectors[other : other + ROWS_PER_TILE].T
            products = reduce(np.maximum, (view[start : start + ROWS_PER_TILE] @ tile for view in views))
            first, second = np.divmod(np.flatnonzero(products >= least), tile.shape[1])
            yield order[np.stack([first + start, second + other])]


def _correlations(grey: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The largest correlation (k,) of the images of each pair (2, k), whole or without a part of one, and mirrored."""
    rows, places = np.unique(pairs, return_inverse=True)
    images, whole, kept = grey[rows], _shares(0, 1, LARGE_SIDE), 1 - CROPPED_SHARE
    parts = [_shares(place * CROPPED_SHARE, place * CROPPED_SHARE + kept, LARGE_SIDE) for place in PLACES]
    boxes = [down @ images @ across.T for down, across in [(whole, whole), *product(parts, parts)]]
    wholes, (first, second) = [_centred(boxes[0]), _centred(boxes[0][:, :, ::-1])], places.reshape(2, -1)
    correlations = [
        np.einsum("kd,kd->k", view[one], other_view[other])
        for view, other_view in product(map(_centred, boxes), wholes)
        for one, other in ((first, second), (second, first))
    ]
    return np.max(correlations, axis=0)


def _shares(start: float, stop: float, side: int) -> np.ndarray:
    """The shares (side, GREY_SIDE) of pixels in `side` equal parts of their row from `start` to `stop`, 0 to 1."""
    ends, pixels = np.linspace(start * GREY_SIDE, stop * GREY_SIDE, side + 1)[:, None], np.arange(GREY_SIDE)
    overlaps = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    return (np.maximum(overlaps, 0) / (ends[1:] - ends[:-1])).astype(np.float32)


def _centred(values: np.ndarray) -> np.ndarray:
    """Values (n, ...) as rows (n, d) of length 1 without their mean: products of rows are correlations."""
    rows = values.reshape(len(values), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)


def joined(groups: np.ndarray, first: Sequence[int] = (), second: Sequence[int] = ()) -> np.ndarray:
    """The position (n,) of the first member of each group, after the members `first` and `second` are joined, pairwise.

    `groups` (n,) has any values: members with equal ones are in one group before.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, nodes = np.unique(groups, return_inverse=True)
    edges = (np.ones(len(first), bool), nodes[np.array([first, second], int)])
    parts = connected_components(coo_array(edges, shape=(len(names), len(names))), directed=False)[1][nodes]
    return np.unique(parts, return_index=True)[1][parts]


def mixed_groups(groups: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    """The positions of the members of each group that has members in several parts; `part` (n,) is theirs."""
    order = np.argsort(groups, kind="stable")
    sets = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [rows for rows in sets if len(rows) > 1 and len(set(part[rows].tolist())) > 1]


def duplicate_lines(lock: Lock, groups: np.ndarray) -> list[str]:
    """How many validation and test images have near-duplicates that make their scores too good, with examples.

    `groups` (n + m,) are those of `near_duplicates`, of the labelled and then the test images.
    """
    ids = np.concatenate([lock.train_ids, lock.test_ids])
    is_test = np.arange(len(ids)) >= len(lock.train_ids)
    kinds = [
        ("validation", "on the other side of the split", lock.folds >= 0, lock.folds),
        ("test", "among the labelled images", is_test, is_test),
    ]
    lines = []
    for name, where, is_scored, part in kinds:
        mixed = mixed_groups(groups[: len(part)], part)
        if count := sum(is_scored[rows].sum() for rows in mixed):
            examples = []
            for rows in mixed[:MOST_EXAMPLES]:
                scored = next(row for row in rows if is_scored[row])
                examples.append(f"{ids[scored]} ({next(ids[row] for row in rows if part[row] != part[scored])})")
            lines.append(
                f"{count:,} of {is_scored.sum():,} {name} images have a near-duplicate {where}, so scores may be too "
                f"good: {', '.join(examples)}{', ...' if len(mixed) > MOST_EXAMPLES else ''}"
            )
    return lines
