"""Images to predict that are of no competition: one file, or those of a folder."""

from collections.abc import Iterable
from pathlib import Path

from podium.data.images import is_image
from podium.data.listing import base_name, stem
from podium.errors import DataError


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
