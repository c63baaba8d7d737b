"""The parts of a competition in its files: labelled, test and validation images, and tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from podium.data.archives import file_names, folder_names, is_archive, open_folder, without_archive_suffix
from podium.data.images import is_image
from podium.data.tables import Table, read_table
from podium.errors import DataError

# How the folders and archives of a part are called.
PARTS = {"train": "train(?!s$)", "test": "(^|[^a-z])test", "val": "^val(id|idation)?([^a-z]|$)"}


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
