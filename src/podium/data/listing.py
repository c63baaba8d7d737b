"""The images of a competition with their ids, labels and groups; checks of names."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from podium.data.archives import Folder, Joined, Memory, Zip

# Files that are often beside images and are not images.
HARMLESS_NAMES = {"thumbs.db", "desktop.ini"}
HARMLESS_SUFFIXES = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html")
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# How Python represents bytes of a file name that are not UTF-8.
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)

ImageFiles = Folder | Zip | Memory | Joined


@dataclass(frozen=True)
class LabelledImage:
    """Id, file name, label and group of one labelled image."""

    id: str
    file: str
    label: str  # the class name; with several labels, their names with podium.targets.BETWEEN_NAMES between them
    group: str = ""
    is_held_out: bool = False  # an image of [validation] folder


@dataclass(frozen=True)
class Listing:
    """All images of a competition, and the faults of its files and labels."""

    train: ImageFiles
    rows: Sequence[LabelledImage]  # sorted by id
    test: ImageFiles
    test_images: Mapping[str, str]  # id -> file name, in submission order
    faults: tuple[str, ...] = ()
    target: str = "class"
    columns: tuple[str, ...] = ()  # the classes, where columns give their order; of a number, the label column

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them. Of several labels, the names of the columns."""
        return self.columns or tuple(natural_order({row.label for row in self.rows}))


def natural_order(texts: Iterable[str]) -> list[str]:
    """The texts sorted; by value if all are integers, so that 2 is before 10; Python reads 4,300 digits."""
    texts = list(texts)
    if all(re.fullmatch(r"-?[0-9]{1,4000}", text) for text in texts):
        return sorted(texts, key=lambda text: (int(text), text))
    return sorted(texts)


def numbers_in(texts: Collection[str]) -> list[float]:
    """The texts as numbers; empty unless each of them is a number."""
    return [float(text) for text in texts] if all(map(NUMBER.fullmatch, texts)) else []


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
