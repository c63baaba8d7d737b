"""Guesses the settings of a new competition from its files: layout, labels, sample submission, image sizes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

from podium.config.keys import SCORED_BY, Competition, Data, Ensemble, Validation
from podium.config.schema import changed_keys, settings_of
from podium.config.search import set_values
from podium.data.archives import file_names, read_file
from podium.data.images import image_sides, is_image
from podium.data.listing import Listing, numbers_in
from podium.data.locate import Source
from podium.data.scan import scan
from podium.data.tables import Table
from podium.errors import ConfigError, DataError, examples
from podium.scaffold.layout import Layout, class_of, find_labels, open_layout
from podium.scaffold.readings import FIX, Texts, choose_reading
from podium.targets.target import BETWEEN_NAMES

# With fewer labelled images, k-fold validation.
FEW_ROWS = 5000
MOST_HELD_OUT = 10_000
SAMPLED_IMAGES = 48
MOST_CLASSES = 6


@dataclass(frozen=True, eq=False)
class CompetitionGuess:
    """The guessed settings, the images that they list, and what a person should check."""

    competition: Competition
    listing: Listing
    sides: list[tuple[int, int]]  # width and height of some of the images, pixels
    to_check: tuple[str, ...]
    format_reason: str  # what the format of the submission was decided by

    @property
    def median_side(self) -> int:
        """Median of the shorter sides, pixels."""
        return int(median(map(min, self.sides)))

    @property
    def lines(self) -> list[str]:
        """What was found, as lines of text."""
        listing, data, sides = self.listing, self.competition.data, [side for size in self.sides for side in size]
        rows = len(listing.rows)
        of_rows = f"all {rows:,}" if len(self.sides) == rows else f"{len(self.sides)} of {rows:,}"
        places = {"folders": "one folder per class", "names": f"classes in their names: {data.label_pattern}"}
        return [
            f"{rows:,} labelled images ({places.get(data.source, f'labels in {data.labels}')}), "
            f"{len(listing.test_images):,} test images",
            f"target: {data.target}; {self.labels_text}",
            f"sides of {of_rows} labelled images: "
            f"{min(sides)} to {max(sides)} pixels; median of the shorter sides: {self.median_side}",
            f"submission format: {self.competition.submission.kind} ({self.format_reason})",
        ]

    @property
    def labels_text(self) -> str:
        """The classes with their numbers of images, or the range of the numbers."""
        labels = [row.label for row in self.listing.rows]
        if self.competition.data.target == "number":
            numbers = [number for label in labels for number in numbers_in([label])]
            return f"numbers from {min(numbers, default=nan):g} to {max(numbers, default=nan):g}"
        counts = Counter(name for label in labels for name in label.split(BETWEEN_NAMES))
        names = sorted(self.listing.classes, key=lambda name: -counts[name])
        return f"{len(names)} classes: {examples((f'{name} {counts[name]:,}' for name in names), most=MOST_CLASSES)}"


def guess_competition(
    source: Path, cache: Path, *, title: str, given: Mapping[str, Any] | None = None, command: str = "make new"
) -> CompetitionGuess:
    """Guess the settings of the folder or archive `source`, but for the keys that are `given`, such as `data.target`.

    Raises DataError where labels or images are not found, and ConfigError for wrong values, or where the files do not
    decide; its fix is `command` with the words that do.
    """
    given = given or {}
    with_given(Competition(title=title, data=Data(source="folders")), given)  # wrong values are refused at once
    layout = open_layout(source, cache, given)
    to_check = layout.to_check
    data, labels, by_folder = _guess_data(layout, source, cache)
    texts = Texts(labels, layout.sample if data.test else Table())
    is_known = data.source != "csv" or data.label_columns
    known = {"data.target": data.target, **given} if is_known else given
    (target, kind), reason = choose_reading(texts, known, command=command)
    submission, doubt = texts.submission(target, kind)
    to_check += [f"the target: {target}: {reason}"] if reason else []
    to_check += [f"the format of the submission: {doubt}"] if doubt else []
    metric = SCORED_BY[target, kind][0]
    if "metric" not in given:
        to_check.append(f"the metric: {metric} is usual for {kind}; compare it with the competition's page")
    competition = Competition(
        title=title,
        metric=metric,
        data=replace(data, target=target, label_separator=texts.separator if target == "multi-label" else ""),
        validation=by_folder or Validation(),
        submission=submission,
        ensemble=Ensemble(select="all"),  # the strategy finds the weights
    )
    competition = with_given(competition, given)
    listing = scan(competition, Source(source, competition.data, cache))
    if not listing.rows:
        raise DataError("There is no labelled image.", file=layout.root / data.train, faults=listing.faults)
    sides, rows = _sample_sides(listing, to_check), len(listing.rows)
    by_rows = Validation(kind="k-fold") if rows < FEW_ROWS else Validation(rows=min(MOST_HELD_OUT, rows // 5))
    competition = with_given(replace(competition, validation=by_folder or by_rows), given)
    reason = texts.sample_text if data.test else "none is written"
    return CompetitionGuess(competition, listing, sides, tuple(to_check), reason)


def _guess_data(layout: Layout, source: Path, cache: Path) -> tuple[Data, Sequence[str], Validation | None]:
    """The settings of [data], the texts of the labels, and the [validation] of a folder of images, if there is one."""
    train, test = layout.labelled_part(), next(iter(layout.named_like("test")), "")
    archive = Path(os.path.abspath(source)).name  # "." has no name
    data = Data(source="folders", archive=archive, sample_submission=layout.sample_name, train=train, test=test)
    place = Source(source, data, cache)
    data, labels = find_labels(layout, place.open_part(layout.root, train), data)
    if not data.test:
        unused = f"; {layout.sample_name} is not used" if layout.sample_name else ""
        layout.to_check.append(f'the test images: there are none (test = ""), so no submission is written{unused}')
        data = replace(data, sample_submission="")
    if data.source != "csv":
        advice = "if several images show the same object, and their names tell, set group_pattern"
        layout.to_check.append(f"the groups: {advice}")
    folder = next((name for name in layout.named_like("val") if name not in (data.train, data.test)), "")
    if not folder:
        return data, labels, None
    names = list(filter(is_image, file_names(place.open_part(layout.root, folder))))
    has_labels = data.source != "csv" and all(class_of(name, data.source) for name in names)
    use = "held out, and train no model" if has_labels else "not used: their labels are not known"
    layout.to_check.append(f"the validation: the {len(names):,} images of {folder} are {use}")
    return data, labels, Validation(kind="folder", folder=folder) if has_labels else None


def with_given(competition: Competition, given: Mapping[str, Any]) -> Competition:
    """The settings with other values of the keys that the user has set; raises ConfigError for wrong ones."""
    table = changed_keys(competition)
    set_values(table, given)
    try:
        return settings_of(Competition, table, Path())
    except ConfigError as error:
        raise ConfigError("make new cannot use these values.", faults=error.faults, fix=FIX) from None


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
