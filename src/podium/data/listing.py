"""The images of a competition with their ids, labels and groups; those of no competition; names, and their faults."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.data.images import is_image
from podium.errors import DataError

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# How Python represents bytes of a file name that are not UTF-8.
NOT_UTF8 = re.compile(r"[\ud800-\udfff]")

NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)  # there may be a million
class LabelledImage:
    """Id, file, label and group of one labelled image."""

    id: str
    file: str
    label: str  # the class name; with several labels, their names with podium.targets.BETWEEN_NAMES between them
    group: str = ""
    is_held_out: bool = False  # an image of [validation] folder


@dataclass(frozen=True)
class Listing:
    """All images of a competition, and the faults of its files and labels."""

    rows: Sequence[LabelledImage]  # sorted by id
    test_images: Mapping[str, str]  # id -> file, in submission order
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


def base_name(name: str) -> str:
    """A file name without its folders."""
    return name.rsplit("/", 1)[-1]


def stem(name: str) -> str:
    """The name of an image without its suffix."""
    return name.rsplit(".", 1)[0] if is_image(name) else name


def names_by_id(names: Iterable[str]) -> dict[str, str]:
    """Each way in which a table may name an image (path or file name, with or without suffix) -> its path."""
    by_id = {name: name for name in names}
    for name in list(by_id):
        by_id.setdefault(stem(name), name)
        by_id.setdefault(base_name(name), name)
        by_id.setdefault(stem(base_name(name)), name)
    return by_id


def repeated_ids(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Faults for ids that occur several times, from pairs (id, place)."""
    places: dict[str, list[str]] = {}
    for id_, place in pairs:
        places.setdefault(id_, []).append(place)
    repeated = {id_: where for id_, where in places.items() if len(where) > 1}
    return [f"{', '.join(where)}: the id {id_!r} occurs {len(where)} times" for id_, where in repeated.items()]


def name_fault(name: str) -> str:
    """Why a name would change when it is written to a text file and read again; empty if it would not."""
    if not name.strip():
        return "is blank"
    if NOT_UTF8.search(name):
        return "is not UTF-8"
    if CONTROL_CHARACTER.search(name):
        return "contains a control character"
    return "starts or ends with a space" if name != name.strip() else ""


def find_new_images(place: Path) -> dict[str, Path]:
    """Name -> file of one image, or of all images below a folder, by name; raises DataError where there is none."""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    root = place if place.is_dir() else place.parent
    images = {file.relative_to(root).as_posix(): file for file in files if is_image(file.name) and file.is_file()}
    if not images:
        found = "a folder without images" if place.is_dir() else "another file" if place.exists() else "nothing"
        raise DataError("There are no images.", file=place, expected="an image, or a folder of images", found=found)
    return images


def ids_of(names: Iterable[str], *, with_suffix: bool) -> list[str]:
    """The ids of images of these names, as a submission has them: without folders, and without a suffix such as .jpg.

    Folders, or else suffixes, stay where ids would be repeated without them.
    """
    names = list(names)
    whole = names if with_suffix else [stem(name) for name in names]
    for ids in (list(map(base_name, whole)), whole):
        if len({*ids}) == len(names):
            return ids
    return names
