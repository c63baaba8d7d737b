"""The parts of a competition in its files: labelled, test and validation images, tables, and the labels.

Labels are in class folders, in a table with columns of ids, labels and groups, or in the names of files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from podium.config.keys import Data
from podium.data.archives import file_names, folder_names, is_archive, open_folder, without_archive_suffix
from podium.data.images import is_image
from podium.data.listing import base_name, names_by_id, numbers_in
from podium.data.tables import Table, read_table
from podium.errors import DataError, examples

# How the folders and archives of a part are called.
PARTS = {"train": "train(?!s$)", "test": "(^|[^a-z])test", "val": "^val(id|idation)?([^a-z]|$)"}
# cat.0.jpg and cat_0.jpg: a class, and a number.
LABEL_PATTERN = "^(.+)[._][0-9]+[.]"
LABEL_COLUMNS = ("label", "class", "category", "breed", "species", "target", "diagnosis", "y")
# Columns of such names whose values repeat are groups: images of one patient or plant are alike.
GROUP_COLUMN = re.compile("patient|subject|lesion|plant|person|animal|individual|participant|group|video", re.I)
FEWEST_GROUPS = 10


@dataclass(frozen=True)
class Layout:
    """The folder of a competition, the keys that the user has `given`, and what a person should check."""

    root: Path
    given: Mapping[str, Any]
    to_check: list[str] = field(default_factory=list)

    @cached_property
    def names(self) -> list[str]:
        """The names of all files."""
        return file_names(self.root)

    @cached_property
    def tables(self) -> list[str]:
        """The CSV files beside the images."""
        return [name for name in self.names if "/" not in name and name.lower().endswith(".csv")]

    @cached_property
    def sample_name(self) -> str:
        """The sample submission; empty if there is none."""
        return next((name for name in self.tables if "sample" in name.lower()), "")

    @cached_property
    def sample(self) -> Table:
        """The cells of the sample submission, whose faults are those of the listing."""
        return read_table(self.root / self.sample_name, [])

    @cached_property
    def parts(self) -> list[str]:
        """The folders that have images in them, and the archives, at most one folder deep."""
        names = [name.split("/") for name in self.names]
        depths = ((path, depth) for path in names if is_image(path[-1]) for depth in range(1, min(len(path), 3)))
        folders = {"/".join(path[:depth]) for path, depth in depths}
        return sorted(folders | {"/".join(path) for path in names if len(path) <= 2 and is_archive(path[-1])})

    def named_like(self, part: str) -> list[str]:
        """The parts that are called like train, test or val, best first."""
        stems = {name: without_archive_suffix(name.rsplit("/", 1)[-1]).lower() for name in self.parts}
        names = [name for name, stem in stems.items() if re.search(PARTS[part], stem)]
        return sorted(names, key=lambda name: (name.count("/"), len(stems[name]), name))

    def labelled_part(self) -> str:
        """The folder or archive of labelled images; empty where class folders are at the top. Raises DataError."""
        if names := self.named_like("train"):
            return names[0]
        others = {name for part in ("test", "val") for name in self.named_like(part) if "/" not in name}
        parts = [name for name in self.parts if "/" not in name and name not in others]
        is_at_top = any(is_image(name) for name in self.names if "/" not in name)
        if len(parts) == 1 and not is_at_top:
            return parts[0]
        if (is_at_top or parts) and not others and not any(map(is_archive, parts)):
            return ""
        raise DataError(
            "There is no folder or archive of labelled images.",
            file=self.root,
            expected="a folder or an archive with 'train' in its name, one folder of images, or class folders",
            found=", ".join(parts[:20]) or "no image and no archive",
            fix="rename it, or write competition.toml by hand",
        )


def open_layout(source: Path, cache: Path, given: Mapping[str, Any]) -> Layout:
    """The files of a folder or archive; the only folder is left out where a labelled part or a table is in it."""
    layout = Layout(open_folder(source, cache), given)
    folders = folder_names(layout.root)
    if len(folders) != 1 or layout.tables:
        return layout
    inside = Layout(layout.root / folders[0], given)
    return inside if inside.tables or any("/" not in name for name in inside.named_like("train")) else layout


def class_of(name: str, source: str) -> str:
    """The class in the name of an image, by its folder or, with the source `names`, its file name; empty without."""
    if source == "names":
        match = re.search(LABEL_PATTERN, base_name(name))
        return match[1] if match else ""
    return name.split("/", 1)[0] if "/" in name else ""


def find_labels(layout: Layout, images: Path, data: Data) -> tuple[Data, Sequence[str]]:
    """The settings with the place of the labels, and their texts; none of labels in several columns.

    Raises DataError where there are no labels.
    """
    names, reasons = list(filter(is_image, file_names(images))), []
    folders, words = ([class_of(name, source) for name in names] for source in ("folders", "names"))
    has_folders = len({*folders} - {""}) > 1
    if data.train and has_folders:
        return data, folders
    if found := _find_table(layout, images, names, data, reasons):
        return found
    if has_folders:
        return data, folders
    if "" not in words and 2 <= len(set(words)) <= len(names) // 2:
        return replace(data, source="names", label_pattern=LABEL_PATTERN), words
    raise DataError(
        "There are no class folders, no table of labels, and no classes in the file names.",
        file=layout.root,
        expected=f"{images}/<class>/..., or a CSV with a column of image names and a column of labels, or names "
        "such as cat.0.jpg",
        found=f"{len(names):,} images in {images}" + ("" if reasons else ", and no CSV"),
        faults=reasons,
    )


def _find_table(
    layout: Layout, images: Path, names: Sequence[str], data: Data, reasons: list[str]
) -> tuple[Data, Sequence[str]] | None:
    """The settings of the first table that has the labels of images, and their texts; why others have not."""
    by_id = names_by_id(names)
    for name in sorted(layout.tables, key=len):
        if name == layout.sample_name or "test" in name.lower():
            continue
        table = read_table(layout.root / name, reasons)
        columns = _find_columns(layout, name, table, by_id, images) if table.lines else {}
        if isinstance(columns, str):
            reasons.append(f"{table.file}: {columns}")
        elif columns:
            labelled = {by_id[cell] for cell in table.columns[columns["id_column"]] if cell in by_id}
            if data.train and not data.test and len(labelled) < len(names):
                count = f"{len(names) - len(labelled):,} of {len(names):,} images in {data.train}"
                layout.to_check.append(f"the test images: {count} have no label in {name}, so they are the test")
                data = replace(data, test=data.train)
            data = replace(data, source="csv", labels=name, **columns)
            return data, [] if data.label_columns else table.columns[data.label_column]
    return None


def _find_columns(
    layout: Layout, name: str, table: Table, by_id: Mapping[str, str], images: Path
) -> dict[str, Any] | str:
    """The keys of [data] for the columns of a table of labels; or why the table is none."""
    header = table.header
    if len(header) == 1 and (separator := next((mark for mark in ";\t|" if mark in header[0]), "")):
        return f"its columns are separated by {separator!r}; expected commas"
    if named := [cell for cell in header if cell in by_id]:
        return f"its first line names the image {named[0]!r}; expected a header with the names of the columns"
    known = {title: len(set(table.columns[title]) & by_id.keys()) for title in header}
    ids = max(known, key=lambda title: known[title])
    if known[ids] < len(table.lines) / 2:
        cell = next(cell for cell in table.columns[ids] if cell not in by_id)
        missing = f"{cell!r} has no image in {images}, such as {examples(sorted(by_id.values())[:1])}"
        return f"column {ids!r} names {known[ids]:,} images; {missing}"
    others = [title for title in header if title and title != ids]
    if not others:
        return f"no column beside {ids!r}: expected a column of labels"
    if (label := layout.given.get("data.label_column", others[0])) not in others:
        return f"no column {label!r} beside {ids!r}; it has {examples(map(repr, others), most=6)}"
    columns = {"id_column": ids, **_label_columns(layout, name, table, others)}
    if "data.group_column" not in layout.given:
        columns["group_column"] = _group_column(layout, table, columns, others)
    return columns


def _label_columns(layout: Layout, name: str, table: Table, titles: Sequence[str]) -> dict[str, Any]:
    """The keys of [data] for the labels in a table: their column; or columns of 0 and 1, and the target."""
    of_sample = layout.sample.header[1:]
    if label := layout.given.get("data.label_column"):
        return {"label_column": label}
    if len(of_sample) > 1 and set(of_sample) <= set(titles):
        sums = [sum(numbers_in(row)) for row in zip(*(table.columns[title] for title in of_sample), strict=True)]
        several = sum(total != 1 for total in sums)
        found = f"{several:,} of {len(sums):,} rows have several 1 or none" if several else "each row has one 1"
        target = "multi-label" if several else "class"
        layout.to_check.append(f"the target: {target}: in the {len(of_sample)} columns of the sample, {found}")
        return {"label_columns": tuple(of_sample), "target": target}
    by_name = {title.lower(): title for title in titles}
    known = (by_name[title.lower()] for title in (*of_sample, *LABEL_COLUMNS) if title.lower() in by_name)
    label = next(known, titles[0])
    if len(titles) > 1 and label not in of_sample:
        layout.to_check.append(f"the column of labels: '{label}', chosen from {examples(titles, most=6)} in {name}")
    return {"label_column": label}


def _group_column(layout: Layout, table: Table, keys: Mapping[str, Any], titles: Sequence[str]) -> str:
    """The column of groups; empty where no column has the name of one and values that repeat."""
    labels = keys.get("label_columns") or (keys["label_column"],)
    fewest, rows, asked = max(FEWEST_GROUPS, len(set(table.columns[labels[0]])) + 1), len(table.lines), []
    for title in titles:
        values = set(table.columns[title])
        if title in labels or not fewest <= len(values) < rows or "" in values:
            continue
        if GROUP_COLUMN.search(title):
            text = f"group_column = '{title}', {len(values):,} different values in {rows:,} rows"
            layout.to_check.append(f"the groups: {text}; rows of one stay on one side of a split")
            return title
        if title.lower().endswith("id") or not numbers_in(values):
            asked.append(title)
    advice = "if several images show the same patient, video or object, set group_column in [data]"
    repeated = f"; values repeat in {examples(map(repr, asked))}" if asked else ""
    layout.to_check.append(f"the groups: {advice}{repeated}")
    return ""
