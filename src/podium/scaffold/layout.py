"""Finds the parts of a competition in its files: labelled, test and validation images, and where the labels are."""

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from podium.config.keys import Data, Validation
from podium.data.archives import file_names, folder_names, is_archive, without_archive_suffix
from podium.data.images import is_image
from podium.data.listing import names_by_id
from podium.data.locate import Source
from podium.data.tables import read_table
from podium.errors import DataError
from podium.scaffold.columns import find_columns

# cat.0.jpg and cat_0.jpg: a class, and a number.
LABEL_PATTERN = "^(.+)[._][0-9]+[.]"
# How the folders and archives of a part are called.
PARTS = {"train": "train(?!s$)", "test": "(^|[^a-z])test", "val": "^val(id|idation)?([^a-z]|$)"}


def without_wrapping_folder(root: Path) -> Path:
    """The only folder in a folder, where a part of labelled images or a table is in it and not beside it."""
    folders = folder_names(root)
    if len(folders) != 1 or _tables(root):
        return root
    inside = root / folders[0]
    return inside if _tables(inside) or any("/" not in name for name in _named_like(inside, "train")) else root


def guess_data(root: Path, source: Path, cache: Path, to_check: list[str]) -> tuple[Data, Validation | None]:
    """The settings of [data], and those of [validation] where a folder has the validation images; raises DataError."""
    train, test = _labelled_part(root, source), next(iter(_named_like(root, "test")), "")
    sample = next((name for name in _tables(root) if "sample" in name.lower()), "")
    archive = Path(os.path.abspath(source)).name  # "." has no name
    data = Data(source="folders", archive=archive, sample_submission=sample, train=train, test=test)
    place = Source(source, data, cache)
    data = _guess_labels(root, place.open_part(root, train), data, to_check)
    if not data.test:
        unused = f"; {sample} is not used" if sample else ""
        to_check.append(f'the test images: there are none (test = ""), so no submission is written{unused}')
        data = replace(data, sample_submission="")
    if data.source != "csv":
        to_check.append("the groups: if several images show the same object, and their names tell, set group_pattern")
    folder = next((name for name in _named_like(root, "val") if name not in (data.train, data.test)), "")
    if not folder:
        return data, None
    names = [name for name in file_names(place.open_part(root, folder)) if is_image(name)]
    has_class = _class_in if data.source == "names" else lambda name: "/" in name
    if data.source != "csv" and all(map(has_class, names)):
        to_check.append(f"the validation: the {len(names):,} images of {folder} are held out, and train no model")
        return data, Validation(kind="folder", folder=folder)
    to_check.append(f"the validation: the {len(names):,} images of {folder} are not used: their labels are not known")
    return data, None


def _guess_labels(root: Path, images: Path, data: Data, to_check: list[str]) -> Data:
    """The settings with the place of the labels: class folders, a table, or file names; raises DataError."""
    names, reasons = [name for name in file_names(images) if is_image(name)], []
    has_classes = len({name.split("/", 1)[0] for name in names if "/" in name}) >= 2
    if data.train and has_classes:
        return data
    by_id, sample = names_by_id(names), read_table(root / data.sample_submission, [])  # the listing has its faults
    for name in sorted(_tables(root), key=len):
        if name == data.sample_submission or "test" in name.lower():
            continue
        table = read_table(root / name, reasons)
        if not table.lines:
            continue
        columns = find_columns(name, table, by_id, images, sample, to_check)
        if isinstance(columns, dict):
            data = replace(data, source="csv", labels=name, **columns)
            labelled = {by_id[cell] for cell in table.columns[data.id_column] if cell in by_id}
            if data.train and not data.test and len(labelled) < len(names):
                count = f"{len(names) - len(labelled):,} of {len(names):,} images in {data.train}"
                to_check.append(f"the test images: {count} have no label in {name}, so they are the test")
                return replace(data, test=data.train)
            return data
        reasons.append(f"{table.file}: {columns}")
    if has_classes:
        return data
    words = Counter(map(_class_in, names))
    if "" not in words and 2 <= len(words) <= len(names) // 2:
        return replace(data, source="names", label_pattern=LABEL_PATTERN)
    raise DataError(
        "There are no class folders, no table of labels, and no classes in the file names.",
        file=root,
        expected=f"{images}/<class>/..., or a CSV with a column of image names and a column of labels, or names "
        "such as cat.0.jpg",
        found=f"{len(names):,} images in {images}" + ("" if reasons else ", and no CSV"),
        faults=reasons,
    )


def _tables(root: Path) -> list[str]:
    return [name for name in file_names(root) if "/" not in name and name.lower().endswith(".csv")]


def _class_in(name: str) -> str:
    """The class in the name of an image; empty if it has none."""
    match = re.search(LABEL_PATTERN, name.rsplit("/", 1)[-1])
    return match[1] if match else ""


def _named_like(root: Path, part: str) -> list[str]:
    """The folders with images and the archives, at most one folder deep, that are called like a part, best first."""
    stems = {name: without_archive_suffix(name.rsplit("/", 1)[-1]).lower() for name in _parts(root)}
    names = [name for name, stem in stems.items() if re.search(PARTS[part], stem)]
    return sorted(names, key=lambda name: (name.count("/"), len(stems[name]), name))


def _parts(root: Path) -> list[str]:
    """The folders that have images in them, and the archives, at most one folder deep."""
    names = [name.split("/") for name in file_names(root)]
    folders = {"/".join(path[:depth]) for path in names if is_image(path[-1]) for depth in range(1, min(len(path), 3))}
    return sorted(folders | {"/".join(path) for path in names if len(path) <= 2 and is_archive(path[-1])})


def _labelled_part(root: Path, source: Path) -> str:
    """The folder or archive of the labelled images; empty where class folders are at the top. Raises DataError."""
    if names := _named_like(root, "train"):
        return names[0]
    others = {name for part in ("test", "val") for name in _named_like(root, part) if "/" not in name}
    parts = [name for name in _parts(root) if "/" not in name and name not in others]
    is_at_top = any(is_image(name) for name in file_names(root) if "/" not in name)
    if len(parts) == 1 and not is_at_top:
        return parts[0]
    if (is_at_top or parts) and not others and not any(map(is_archive, parts)):
        return ""
    raise DataError(
        "There is no folder or archive of labelled images.",
        file=source,
        expected="a folder or an archive with 'train' in its name, one folder of images, or class folders",
        found=", ".join(parts[:20]) or "no image and no archive",
        fix="rename it, or write competition.toml by hand",
    )
