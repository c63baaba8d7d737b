"""Guesses the settings of a new competition from its files: parts, table of labels, sample submission, image sizes."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from podium.config.keys import Competition, Data, Submission, Validation
from podium.data.archives import Files, is_archive, open_files, without_archive_suffix
from podium.data.images import image_sides, is_image
from podium.data.listing import Listing, numbers_in
from podium.data.locate import Source
from podium.data.scan import names_by_id, scan
from podium.errors import DataError, examples

LABEL_COLUMNS = ("label", "class", "category", "breed", "species", "target", "diagnosis", "y")
# With fewer labelled images, k-fold validation.
FEW_ROWS = 5000
MOST_HELD_OUT = 10_000
SAMPLED_IMAGES = 48
SAMPLED_ROWS = 50

Table = list[list[str]]


@dataclass(frozen=True, eq=False)
class CompetitionGuess:
    """The guessed settings, the images that they list, and what a person should check."""

    competition: Competition
    listing: Listing
    median_side: int  # median of the shorter sides, pixels
    sides: tuple[int, int]  # shortest and longest side of the sampled images, pixels
    to_check: tuple[str, ...]
    format_reason: str  # why the submission has this format

    @property
    def class_counts(self) -> dict[str, int]:
        """Class -> number of labelled images, largest first."""
        counts = Counter(row.label for row in self.listing.rows)
        return {name: counts[name] for name in sorted(self.listing.classes, key=lambda name: -counts[name])}


def guess_competition(source: Path, cache: Path, *, title: str) -> CompetitionGuess:
    """Guess the settings of the folder or archive `source`; raises DataError where labels or test are not found."""
    to_check: list[str] = []
    files = _without_wrapping_folder(open_files(source, cache))
    data = _guess_data(files, source, cache, to_check)
    sample = _read_table(files, data.sample_submission) if data.sample_submission else []
    competition = Competition(title=title, data=data, submission=_format_by_header(sample[0] if sample else []))
    listing = scan(competition, Source(source, data, cache))
    if not listing.rows:
        raise DataError("There is no labelled image.", file=listing.train.where(), faults=listing.faults)
    submission, reason = _format_by_values(competition.submission, sample, listing.classes, to_check)
    metric = "accuracy" if submission.kind == "labels" else "log_loss"
    to_check.append(f"the metric: {metric} is usual for {submission.kind}; compare it with the competition's page")
    to_check.append("groups: if several images show the same patient, video or object, set group_column in [data]")
    sides = _sample_sides(listing, to_check)
    rows = len(listing.rows)
    validation = Validation(kind="k-fold") if rows < FEW_ROWS else Validation(rows=min(MOST_HELD_OUT, rows // 5))
    return CompetitionGuess(
        competition=replace(competition, metric=metric, submission=submission, validation=validation),
        listing=listing,
        median_side=int(np.median([min(size) for size in sides])),
        sides=(min(map(min, sides)), max(map(max, sides))),
        to_check=tuple(to_check),
        format_reason=reason,
    )


def _without_wrapping_folder(files: Files) -> Files:
    folders = files.folders()
    is_wrapped = len(folders) == 1 and _named_like(files.below(folders[0]), "train") and not _named_like(files, "train")
    return files.below(folders[0]) if is_wrapped else files


def _top_names(files: Files) -> list[str]:
    """Names of the folders and archives at the top."""
    return [*files.folders(), *(name for name in files.names() if "/" not in name and is_archive(name))]


def _named_like(files: Files, part: str) -> list[str]:
    """The folders and archives at the top whose name contains `part`, the shortest name first."""
    names = [name for name in _top_names(files) if part in without_archive_suffix(name).lower()]
    return sorted(names, key=lambda name: (len(without_archive_suffix(name)), name))


def _guess_data(files: Files, source: Path, cache: Path, to_check: list[str]) -> Data:
    train, test = (_find_part(files, part, source) for part in ("train", "test"))
    tables = [name for name in files.names() if "/" not in name and name.endswith(".csv")]
    sample = next((name for name in tables if "sample" in name.lower()), "")
    archive = Path(os.path.abspath(source)).name  # "." has no name
    data = Data(source="folders", archive=archive, sample_submission=sample, train=train, test=test)
    train_files = Source(source, data, cache).open_part(files, train)
    names = [name for name in train_files.names() if is_image(name)]
    if len({name.split("/", 1)[0] for name in names if "/" in name}) >= 2:
        return data
    by_id = names_by_id(names)
    other_tables = [name for name in tables if name != sample]
    for name in other_tables:
        if columns := _id_and_label_columns(name, _read_table(files, name), by_id, to_check):
            return replace(data, source="csv", labels=name, id_column=columns[0], label_column=columns[1])
    raise DataError(
        "There are no class folders and no table of labels.",
        file=source,
        expected=f"{train_files.where()}/<class>/..., or a CSV with a column of image names and a column of labels",
        found=", ".join(other_tables) or "no CSV",
    )


def _find_part(files: Files, part: str, source: Path) -> str:
    """The folder or archive for the part "train" or "test"; raises DataError."""
    if names := _named_like(files, part):
        return names[0]
    raise DataError(
        f"There is no folder or archive named like '{part}'.",
        file=source,
        expected=f"a folder or an archive with '{part}' in its name",
        found=", ".join(_top_names(files)[:20]) or "no folder and no archive",
        fix="rename it, or write competition.toml by hand",
    )


def _read_table(files: Files, name: str) -> Table:
    """The rows of a CSV; empty where it cannot be read."""
    try:
        return list(csv.reader(io.StringIO(files.read(name).decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return []


def _id_and_label_columns(
    name: str, table: Table, by_id: dict[str, str], to_check: list[str]
) -> tuple[str, str] | None:
    """The column that names images and the column of labels; None where the table has none."""
    if len(table) < 2:
        return None
    header, rows = table[0], [row for row in table[1 : 1 + SAMPLED_ROWS] if len(row) == len(table[0])]
    columns = {title: {row[index].strip() for row in rows} for index, title in enumerate(header)}
    ids = [title for title, cells in columns.items() if len(cells) == len(rows) and cells <= by_id.keys()]
    others = [title for title in header if title not in ids]
    if not ids or not others:
        return None
    label_column = next((title for title in others if title.strip().lower() in LABEL_COLUMNS), others[0])
    if len(others) > 1:
        to_check.append(f"the column of labels: '{label_column}', chosen from {', '.join(others)} in {name}")
    return ids[0], label_column


def _format_by_header(header: list[str]) -> Submission:
    """The format of a sample by its header alone: one column beside the ids holds labels, several probabilities."""
    if len(header) == 2:
        return Submission(id_column=header[0], label_column=header[1])
    return Submission(kind="probabilities", id_column=header[0]) if header[2:] else Submission()


def _format_by_values(
    by_header: Submission, sample: Table, classes: Sequence[str], to_check: list[str]
) -> tuple[Submission, str]:
    """The format of a sample by its header and values, and the reason; `to_check` gets what they do not decide."""
    columns = [title.strip() for title in sample[0][1:]] if sample else []
    if len(columns) == 1:
        values = {row[1].strip() for row in sample[1:] if len(row) == 2}
        kind, reason, doubt = _kind_of_values(values, classes)
        if kind == "probability":
            if set(classes) != {"0", "1"}:
                to_check.append(f"the probability: it is that of {classes[1]!r}; positive_class can be {classes[0]!r}")
            by_header = replace(by_header, kind=kind, positive_class=classes[1])
    elif not columns:
        reason = doubt = "there is no sample submission, so the columns are id,label"
    elif columns == list(classes):
        reason, doubt = "the sample has a column per class", ""
    else:
        reason = f"the sample has the columns {examples(map(repr, columns))}"
        doubt = f"{reason}; the classes are {examples(classes)}, in this order"
    if doubt:
        to_check.append(f"the format of the submission: {doubt}")
    return by_header, reason


def _kind_of_values(values: set[str], classes: Sequence[str]) -> tuple[str, str, str]:
    """The kind of a submission whose sample has these values in one column, the reason, and a doubt or ""."""
    numbers = numbers_in(values)
    shown = f"the column of the sample has {'only ' if len(values) == 1 else ''}{examples(map(repr, sorted(values)))}"
    may_be_probability = bool(numbers) and min(numbers) >= 0 and max(numbers) <= 1 and len(classes) == 2
    is_integral = all(number.is_integer() for number in numbers)
    if values and values <= set(classes):
        doubt = f'{shown}: with AUC or log loss, set kind = "probability"'
        return "labels", f"{shown}, of the class names", doubt if may_be_probability and len(values) == 1 else ""
    if may_be_probability and (len(values) == 1 or not is_integral):
        doubt = f"{shown}: taken for probabilities, because it is no class name" if is_integral else ""
        return "probability", f"{shown}, a number from 0 to 1 and no class name", doubt
    return "labels", "it is not decided", f"{shown}: neither class names nor probabilities of one of two classes"


def _sample_sides(listing: Listing, to_check: list[str]) -> list[tuple[int, int]]:
    """Width and height of a sample of the labelled images; raises DataError where none can be read."""
    step = max(1, len(listing.rows) // SAMPLED_IMAGES)
    sampled = {row.file: image_sides(listing.train.read(row.file)) for row in listing.rows[::step]}
    sides = [size for size in sampled.values() if size is not None]
    unreadable = [name for name, size in sampled.items() if size is None]
    if not sides:
        raise DataError("No image can be read.", file=listing.train.where(unreadable[0]))
    if unreadable:
        text = f"{len(unreadable)} of {len(sampled)} sampled images cannot be read, such as {unreadable[0]}"
        to_check.append(f"damaged images: {text}; make prepare lists all of them")
    if any(max(size) > 1.5 * min(size) for size in sides):
        to_check.append('the shape: images are not square; shape = "crop" cuts their ends off, the others do not')
    return sides
