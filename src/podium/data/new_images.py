"""Images to predict that are of no competition: one file, those of a folder, or those that a list names."""

from collections.abc import Iterable
from pathlib import Path

from podium.data.images import is_image
from podium.data.listing import base_name, stem
from podium.data.tables import read_table
from podium.errors import DataError

LISTS = (".csv", ".txt")
PLACES = "an image, a folder of images, or a .txt or .csv file that lists images"


def find_new_images(place: Path) -> dict[str, Path]:
    """Name -> file of one image, of all images below a folder, by name, or of those that a list names.

    A list is a file with a path per line (.txt), or a table whose first column has the paths (.csv); they begin at its
    folder, or at the present one. Raises DataError where there is no image, or a listed one is missing.
    """
    if place.is_dir():
        files = [file for file in place.rglob("*") if is_image(file.name) and file.is_file()]
        images = {file.relative_to(place).as_posix(): file for file in sorted(files)}
    elif place.suffix.lower() in LISTS and place.is_file():
        images, faults = _listed_images(place)
        if faults:
            raise DataError("The list names files that are no images.", file=place, faults=faults)
    else:
        images = {place.name: place} if is_image(place.name) and place.is_file() else {}
    if not images:
        found = "a folder without images" if place.is_dir() else "another file" if place.exists() else "nothing"
        raise DataError("There are no images.", file=place, expected=PLACES, found=found)
    return images


def _listed_images(place: Path) -> tuple[dict[str, Path], list[str]]:
    """The images that a list names, and its faults."""
    faults: list[str] = []
    if place.suffix.lower() == ".csv":
        table = read_table(place, faults)
        names = list(zip(table.lines, table.columns.get((*table.header, "")[0], ()), strict=True))
    else:
        names = enumerate(
            map(str.strip, place.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()), start=1
        )
    images = {}
    for line, name in names:
        near = place.parent / name
        file = near if near.is_file() else Path(name)
        if name and not (is_image(name) and file.is_file()):
            faults.append(f"line {line}: {name}")
        elif name:
            images[name] = file
    return images, faults


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
