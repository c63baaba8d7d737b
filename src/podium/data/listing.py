"""The table of all images of a competition with their ids, labels and groups; checks of names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from podium.config.keys import Submission
from podium.data.archives import Folder, Memory, Zip

ImageFiles = Folder | Zip | Memory


@dataclass(frozen=True)
class LabelledImage:
    """Id, file name, class name and group of one labelled image."""

    id: str
    file: str
    label: str
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """All images of a competition: n labelled images sorted by id, m test images in submission order."""

    classes: tuple[str, ...]
    train: ImageFiles
    train_names: list[str]
    train_ids: list[str]
    train_labels: np.ndarray  # (n,) int64
    groups: list[str] | None
    test: ImageFiles
    test_names: list[str]
    test_ids: list[str]
    faults: tuple[str, ...] = ()


def make_listing(
    rows: Sequence[LabelledImage],
    train: ImageFiles,
    test: ImageFiles,
    test_images: dict[str, str],
    *,
    grouped: bool = False,
    faults: Sequence[str] = (),
) -> Listing:
    """A listing of labelled images sorted by id, and of test images (id -> file name) in submission order."""
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
    """The texts sorted; by value if all are integers, so that 2 is before 10."""
    texts = list(texts)
    if all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
        return sorted(texts, key=lambda text: (int(text), text))
    return sorted(texts)


# Files that are often beside images and are not images.
HARMLESS_NAMES = {"thumbs.db", "desktop.ini"}
HARMLESS_SUFFIXES = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html")
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# How Python represents bytes of a file name that are not UTF-8.
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")


def is_harmless(name: str) -> bool:
    """Whether a file that is not an image can be ignored."""
    base = name.rsplit("/", 1)[-1].lower()
    return base in HARMLESS_NAMES or base.endswith(HARMLESS_SUFFIXES)


def name_faults(where: str, what: str, names: Iterable[str]) -> list[str]:
    """Faults of names that would change when they are written to a text file and read again."""
    reasons = ((name, name_fault(name)) for name in names)
    return [f"{where}: the {what} {name!r} {reason}" for name, reason in reasons if reason]


def name_fault(name: str) -> str:
    """What is wrong with a name, as the end of a sentence; empty if nothing is."""
    if not name.strip():
        return "is blank"
    if NOT_UTF8.search(name):
        return "is not UTF-8"
    if CONTROL_CHARACTER.search(name):
        return "contains a control character"
    return "starts or ends with a space" if name != name.strip() else ""


def column_faults(submission: Submission, classes: Iterable[str], test_ids: Iterable[str]) -> list[str]:
    """Faults of ids and classes that are equal to the name of a submission column."""
    column, faults = submission.id_column, []
    if submission.kind == "labels" and column == submission.label_column:
        faults.append(f"[submission] id_column and label_column are both {column!r}")
    if submission.kind == "probabilities" and column in classes:
        faults.append(f"the class {column!r} has the name of the submission's id column")
    if column in test_ids:
        faults.append(f"the test id {column!r} has the name of the submission's id column")
    return faults


def printable(text: str) -> str:
    """The text with unprintable characters escaped."""
    return (
        text
        if text.isprintable()
        else "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    )
