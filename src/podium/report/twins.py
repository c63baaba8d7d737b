"""Near-duplicates across training, validation and test, told for the page."""

from dataclasses import dataclass

import numpy as np

from podium.report.duplicates import Twin, near_duplicates
from podium.report.gallery import Images
from podium.report.gather import Gathered

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
