"""What lies in a folder or an archive that nobody has described yet: parts, table of labels, sample submission."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from podium.config.keys import Competition, Data, Submission, Validation
from podium.data.archives import Files, is_archive, open_files, without_archive_suffix
from podium.data.images import image_sides, is_image
from podium.data.listing import Listing
from podium.data.locate import Found
from podium.data.scan import names_by_id, scan
from podium.errors import DataError

LIKELY_LABELS = ("label", "class", "category", "breed", "species", "target", "diagnosis", "y")
FEW_ROWS = 5000
MOST_HELD_OUT = 10_000
FOLDS = 5
SAMPLED_IMAGES = 48
SAMPLED_ROWS = 50
MOST_NAMED = 3


@dataclass(frozen=True, eq=False)
class Looked:
    """What was found and guessed: settings, the listing that they give, image sides, and what was unsure."""

    competition: Competition
    listing: Listing
    median_side: int  # pixels, of the shorter sides
    sides: tuple[int, int]  # smallest and largest, pixels
    unsure: tuple[str, ...]

    @property
    def class_counts(self) -> dict[str, int]:
        """Class -> labelled images, most first."""
        counts = np.bincount(self.listing.train_labels, minlength=len(self.listing.classes)).tolist()
        return dict(sorted(zip(self.listing.classes, counts, strict=True), key=lambda pair: -pair[1]))


def look(place: Path, cache: Path, *, title: str) -> Looked:
    """Guess a competition's settings from its files; raises DataError where there is no train or test to be seen."""
    files = open_files(place, cache)
    unsure: list[str] = []
    if not _is_there(files, "train") and len(files.folders()) == 1:
        inner = files.below(files.folders()[0])
        files = inner if _is_there(inner, "train") else files
    parts = {name: _part_called(files, name, place) for name in ("train", "test")}
    archive = Path(os.path.abspath(place)).name  # "." has none
    found = Found(place, Data(source="folders", **parts), cache)
    train = found.open_part(files, parts["train"])
    tables = {name: _table(files, name) for name in files.names() if "/" not in name and name.endswith(".csv")}
    sample = next((name for name in tables if "sample" in name.lower()), "")
    if len(_class_folders(train)) >= 2:
        data = Data(source="folders", archive=archive, sample_submission=sample, **parts)
    else:
        others = {name: table for name, table in tables.items() if name != sample}
        labels, id_column, label_column = _labels(train, others, place, unsure)
        columns = {"labels": labels, "id_column": id_column, "label_column": label_column}
        data = Data(source="csv", archive=archive, sample_submission=sample, **parts, **columns)
    submission = _submission(tables.get(sample, []), data, unsure)
    probabilities = submission.kind == "probabilities"
    unsure.append("the metric: see the competition's page, and metric in competition.toml")
    settings = Competition(
        title=title, metric="log_loss" if probabilities else "accuracy", data=data, submission=submission
    )
    listing = scan(settings, Found(place, data, cache))
    settings = Competition(
        title=title,
        metric=settings.metric,
        data=data,
        submission=submission,
        validation=_validation(listing, unsure),
    )
    return _with_sides(settings, listing, unsure)


def _with_sides(settings: Competition, listing: Listing, unsure: list[str]) -> Looked:
    if not listing.train_names:
        raise DataError("There is no labelled image.", file=listing.train.where(), faults=listing.faults)
    step = max(1, len(listing.train_names) // SAMPLED_IMAGES)
    sides = {name: image_sides(listing.train.read(name)) for name in listing.train_names[::step]}
    known = [one for one in sides.values() if one is not None]
    unreadable = [name for name, one in sides.items() if one is None]
    if not known:
        raise DataError("No image can be opened.", file=listing.train.where(listing.train_names[0]))
    if unreadable:
        shown = ", ".join(unreadable[:MOST_NAMED]) + (", ..." if len(unreadable) > MOST_NAMED else "")
        unsure.append(
            f"{len(unreadable)} of {len(sides)} labelled images looked at cannot be read ({shown}): "
            "make prepare names all of them"
        )
    shorter = [min(one) for one in known]
    if any(max(one) > 1.5 * min(one) for one in known):
        unsure.append('images are not square: shape = "crop" in a recipe loses their ends; "squash" or "pad" do not')
    ends = (min(shorter), max(max(one) for one in known))
    return Looked(settings, listing, int(np.median(shorter)), ends, tuple(unsure))


def _tops(files: Files) -> list[str]:
    archives = [name for name in files.names() if "/" not in name and is_archive(name)]
    return [*files.folders(), *archives]


def _is_there(files: Files, part: str) -> bool:
    return any(part in name.lower() for name in _tops(files))


def _part_called(files: Files, part: str, place: Path) -> str:
    """The folder or archive at the top whose name says `part`: exactly, else the shortest."""
    names = [name for name in _tops(files) if part in without_archive_suffix(name).lower()]
    if not names:
        raise DataError(
            f"There is nothing that is called like '{part}'.",
            file=place,
            expected=f"a folder or an archive with '{part}' in its name",
            found=", ".join(_tops(files)[:20]) or "no folder and no archive",
            fix="rename it, or write competition.toml by hand",
        )
    return min(names, key=lambda name: (len(without_archive_suffix(name)), name))


def _class_folders(train: Files) -> set[str]:
    return {name.split("/", 1)[0] for name in train.names() if "/" in name and is_image(name)}


def _table(files: Files, name: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(files.read(name).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return []


def _labels(train: Files, tables: dict[str, list[list[str]]], place: Path, unsure: list[str]) -> tuple[str, str, str]:
    """The table of labels, its column of ids and its column of labels."""
    by_id = names_by_id([name for name in train.names() if is_image(name)])
    for name, (header, *rows) in ((name, table) for name, table in tables.items() if len(table) > 1):
        columns = list(zip(*(row for row in rows[:SAMPLED_ROWS] if len(row) == len(header)), strict=True))
        ids = [title for title, cells in zip(header, columns, strict=False) if _are_ids(cells, by_id)]
        others = [title for title in header if title not in ids]
        if ids and others:
            likely = [title for title in others if title.strip().lower() in LIKELY_LABELS] or others
            if len(others) > 1:
                unsure.append(f"the column of labels: '{likely[0]}' was taken, of {', '.join(others)} in {name}")
            return name, ids[0], likely[0]
    raise DataError(
        "There are neither class folders nor a table of labels.",
        file=place,
        expected=f"{train.where()}/<class>/..., or a CSV with a column of image names and one of labels",
        found=", ".join(tables) or "no CSV",
    )


def _are_ids(cells: Sequence[str], by_id: Mapping[str, str]) -> bool:
    """Whether each cell is another image's."""
    return len(set(cells)) == len(cells) and all(one.strip() in by_id for one in cells)


def _submission(table: Sequence[Sequence[str]], data: Data, unsure: list[str]) -> Submission:
    """The form of the sample submission: one column beside the ids holds labels, several hold probabilities."""
    if not table or len(table[0]) < 2:
        unsure.append("the form of a submission: there is no sample submission; id,label was taken")
        return Submission()
    header = table[0]
    if len(header) == 2:
        return Submission(id_column=header[0], label_column=header[1])
    return Submission(kind="probabilities", id_column=header[0])


def _validation(listing: Listing, unsure: list[str]) -> Validation:
    rows = len(listing.train_names)
    unsure.append("whether rows belong together (a patient, a video): then name [data] group_column")
    if rows < FEW_ROWS:
        return Validation(kind="k-fold", folds=FOLDS)
    return Validation(rows=min(MOST_HELD_OUT, rows // 5))
