"""Guesses the settings of a new competition from its files: layout, sample submission, image sizes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from podium.config.keys import Competition, Submission, Validation
from podium.data.archives import open_folder, read_file
from podium.data.images import image_sides
from podium.data.listing import Listing, numbers_in
from podium.data.locate import Source
from podium.data.scan import scan
from podium.data.tables import Table, read_table
from podium.errors import DataError, examples
from podium.scaffold.layout import guess_data, without_wrapping_folder
from podium.targets.base import BETWEEN_NAMES

# With fewer labelled images, k-fold validation.
FEW_ROWS = 5000
MOST_HELD_OUT = 10_000
SAMPLED_IMAGES = 48
MOST_CLASSES = 6
METRIC_OF_KIND = {"labels": "accuracy", "number": "rmse", "probability": "log_loss", "probabilities": "log_loss"}


@dataclass(frozen=True, eq=False)
class CompetitionGuess:
    """The guessed settings, the images that they list, and what a person should check."""

    competition: Competition
    listing: Listing
    median_side: int  # median of the shorter sides, pixels
    sampled: int  # number of images of which the sides are known
    sides: tuple[int, int]  # their shortest and longest side, pixels
    to_check: tuple[str, ...]
    format_reason: str  # why the submission has this format

    @property
    def class_counts(self) -> dict[str, int]:
        """Class -> number of labelled images, largest first."""
        counts = Counter(name for row in self.listing.rows for name in row.label.split(BETWEEN_NAMES))
        return {name: counts[name] for name in sorted(self.listing.classes, key=lambda name: -counts[name])}

    @property
    def labels_text(self) -> str:
        """The classes with their numbers of images, or the range of the numbers."""
        if self.competition.data.target == "number":
            numbers = [float(row.label) for row in self.listing.rows]
            return f"numbers from {min(numbers):g} to {max(numbers):g}"
        counts = [f"{name} {count:,}" for name, count in self.class_counts.items()]
        shown = counts if len(counts) <= MOST_CLASSES else [*counts[:3], "...", counts[-1]]
        return f"{len(counts)} classes: {', '.join(shown)}"


def guess_competition(source: Path, cache: Path, *, title: str) -> CompetitionGuess:
    """Guess the settings of the folder or archive `source`; raises DataError where labels or test are not found."""
    to_check: list[str] = []
    root = without_wrapping_folder(open_folder(source, cache))
    data, by_folder = guess_data(root, source, cache, to_check)
    sample = read_table(root / data.sample_submission, [])  # the listing has its faults
    competition = Competition(
        title=title,
        data=data,
        validation=by_folder or Validation(),
        submission=_format_by_header(sample.header, data.target),
    )
    listing = scan(competition, Source(source, data, cache))
    if not listing.rows:
        raise DataError("There is no labelled image.", file=root / data.train, faults=listing.faults)
    submission, reason, doubt = competition.submission, "none is written", ""
    if data.test:
        submission, reason, doubt = _format_by_values(submission, sample, listing.classes)
    to_check += [f"the format of the submission: {doubt}"] if doubt else []
    metric = "auc" if data.target == "multi-label" else METRIC_OF_KIND[submission.kind]
    to_check.append(f"the metric: {metric} is usual for {submission.kind}; compare it with the competition's page")
    sides = _sample_sides(listing, to_check)
    rows = len(listing.rows)
    by_rows = Validation(kind="k-fold") if rows < FEW_ROWS else Validation(rows=min(MOST_HELD_OUT, rows // 5))
    return CompetitionGuess(
        competition=replace(competition, metric=metric, submission=submission, validation=by_folder or by_rows),
        listing=listing,
        median_side=int(np.median([min(size) for size in sides])),
        sampled=len(sides),
        sides=(min(map(min, sides)), max(map(max, sides))),
        to_check=tuple(to_check),
        format_reason=reason,
    )


def _format_by_header(header: Sequence[str], target: str) -> Submission:
    """The format of a sample by its header and the target alone: several columns hold probabilities, one labels."""
    columns = dict(zip(("id_column", "label_column"), header, strict=False)) if len(header) == 2 else {}
    if target == "number":
        return Submission(kind="number", **columns)
    if target == "multi-label" or len(header) > 2:
        return Submission(kind="probabilities", **({"id_column": header[0]} if header else {}))
    return Submission(**columns)


def _format_by_values(by_header: Submission, sample: Table, classes: Sequence[str]) -> tuple[Submission, str, str]:
    """The format of a sample by its header and values, the reason, and what they do not decide or ""."""
    columns = sample.header[1:]
    if not columns:
        reason = "there is no sample submission, so the columns have usual names"
        return by_header, reason, "compare it with the leaderboard's"
    if by_header.kind == "number":
        return by_header, "the labels are numbers", ""
    if len(columns) > 1:
        doubt = "" if set(columns) == set(classes) else f"a column per class, but the classes are {examples(classes)}"
        return by_header, f"the sample has the columns {examples(map(repr, columns), most=6)}", doubt
    kind, reason, doubt = _kind_of_values(set(sample.columns[columns[0]]), classes)
    if kind == "probability":
        by_header = replace(by_header, kind=kind, positive_class=classes[1])
        if not doubt and set(classes) != {"0", "1"}:
            doubt = f"the probability is that of {classes[1]!r}; positive_class can be {classes[0]!r}"
    return by_header, reason, doubt


def _kind_of_values(values: set[str], classes: Sequence[str]) -> tuple[str, str, str]:
    """The kind of a submission whose sample has these values in one column, the reason, and a doubt or ""."""
    numbers = numbers_in(values)
    shown = f"the column of the sample has {'only ' if len(values) == 1 else ''}{examples(map(repr, sorted(values)))}"
    may_be_probability = bool(numbers) and min(numbers) >= 0 and max(numbers) <= 1 and len(classes) == 2
    is_integral = all(number.is_integer() for number in numbers)
    if values and values <= set(classes):
        doubt = 'with AUC or log loss, set kind = "probability"'
        return "labels", f"{shown}, of the class names", doubt if may_be_probability and len(values) == 1 else ""
    if may_be_probability and (len(values) == 1 or not is_integral):
        doubt = 'with names of classes, set kind = "labels"' if is_integral else ""
        return "probability", f"{shown}, a number from 0 to 1 and no class name", doubt
    return "labels", f"{shown}: neither class names nor probabilities of one of two classes", "set its kind"


def _sample_sides(listing: Listing, to_check: list[str]) -> list[tuple[int, int]]:
    """Width and height of a sample of the labelled images; raises DataError where none can be read."""
    step = max(1, len(listing.rows) // SAMPLED_IMAGES)
    sampled = {row.file: image_sides(read_file(row.file)) for row in listing.rows[::step]}
    sides = [size for size in sampled.values() if size is not None]
    unreadable = [name for name, size in sampled.items() if size is None]
    if not sides:
        raise DataError("No image can be read.", file=unreadable[0])
    if unreadable:
        text = f"{len(unreadable)} of {len(sampled)} sampled images cannot be read, such as {unreadable[0]}"
        to_check.append(f"damaged images: {text}; make prepare lists all of them")
    if any(max(size) > 1.5 * min(size) for size in sides):
        to_check.append('the shape: images are not square; shape = "crop" cuts their ends off, the others do not')
    return sides
