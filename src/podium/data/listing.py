"""Images and what is known of them, as one table: whatever it was that listed them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from podium.data.archives import Files


@dataclass(frozen=True)
class Row:
    """One labelled image: its id, the name of its file, its class and its group."""

    id: str
    file: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """Images and what is known of them: n labelled ones by id, m others in submission order."""

    classes: tuple[str, ...]
    train: Files
    train_names: list[str]
    train_ids: list[str]
    train_labels: np.ndarray  # (n,) int64
    groups: list[str] | None
    test: Files
    test_names: list[str]
    test_ids: list[str]
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was left out without being a fault


def make_listing(
    rows: Sequence[Row],
    train: Files,
    test: Files,
    test_images: dict[str, str],
    *,
    grouped: bool = False,
    faults: Sequence[str] = (),
) -> Listing:
    """Put a listing together from rows sorted by id and the test images (id -> file name) in order."""
    classes = tuple(natural_order({row.label for row in rows}))
    index = {label: i for i, label in enumerate(classes)}
    few = [f"{train.where()}: {len(classes)} class(es) with images; expected 2 or more"] if len(classes) < 2 else []
    return Listing(
        classes=classes,
        train=train,
        train_names=[row.file for row in rows],
        train_ids=[row.id for row in rows],
        train_labels=np.array([index[row.label] for row in rows], np.int64),
        groups=[row.group for row in rows] if grouped else None,
        test=test,
        test_names=list(test_images.values()),
        test_ids=list(test_images),
        faults=(*faults, *few),
    )


def natural_order(texts: Iterable[str]) -> list[str]:
    """Sorted, by value if all are integers: 2 before 10."""
    texts = list(texts)
    if all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
        return sorted(texts, key=lambda text: (int(text), text))
    return sorted(texts)
