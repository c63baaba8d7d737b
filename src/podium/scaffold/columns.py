"""Which columns of a table have the ids, labels and groups of images, and what kind of target the labels are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podium.data.listing import numbers_in
from podium.data.tables import Table
from podium.errors import examples

LABEL_COLUMNS = ("label", "class", "category", "breed", "species", "target", "diagnosis", "y")
# Columns of such names whose values repeat are groups: images of one patient or plant are alike.
GROUP_COLUMN = re.compile("patient|subject|lesion|plant|person|animal|individual|participant|group|video", re.I)
FEWEST_GROUPS = 10
# More integers than these may be a number, fewer may be grades.
MOST_GRADES = 10


def find_columns(
    name: str, table: Table, by_id: dict[str, str], images: Path, sample: Table, to_check: list[str]
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
        example = examples(sorted(by_id.values())[:1])
        return f"column {ids!r} names {known[ids]:,} images; {cell!r} has no image in {images}, such as {example}"
    others = [title for title in header if title and title != ids]
    if not others:
        return f"no column beside {ids!r}: expected a column of labels"
    columns = _label_columns(name, table, others, sample, to_check)
    labels = columns.get("label_columns", (columns.get("label_column"),))
    rest = [title for title in others if title not in labels]
    return {"id_column": ids, **columns, "group_column": _group_column(table, labels[0], rest, to_check)}


def _label_columns(
    name: str, table: Table, titles: Sequence[str], sample: Table, to_check: list[str]
) -> dict[str, Any]:
    """The keys of [data] for the labels in a table: their column or columns, and the target."""
    of_sample = sample.header[1:]
    if len(of_sample) > 1 and set(of_sample) <= set(titles):
        sums = [sum(numbers_in(row)) for row in zip(*(table.columns[title] for title in of_sample), strict=True)]
        several = sum(total != 1 for total in sums)
        found = f"{several:,} of {len(sums):,} rows have several 1 or none" if several else "each row has one 1"
        target = "multi-label" if several else "class"
        to_check.append(f"the target: {target}: in the {len(of_sample)} columns of the sample, {found}")
        return {"label_columns": tuple(of_sample), **({"target": target} if several else {})}
    by_name = {title.lower(): title for title in titles}
    known = (by_name[title.lower()] for title in (*of_sample, *LABEL_COLUMNS) if title.lower() in by_name)
    label = next(known, titles[0])
    if len(titles) > 1 and label not in of_sample:
        to_check.append(f"the column of labels: '{label}', chosen from {examples(titles, most=6)} in {name}")
    target = _target_of(table.columns[label], sample.columns[of_sample[0]] if of_sample else [], to_check)
    return {"label_column": label, **({} if target == "class" else {"target": target})}


def _target_of(labels: Sequence[str], of_sample: Sequence[str], to_check: list[str]) -> str:
    """The target of labels in one column: number where they cannot be classes, else class; `to_check` gets a doubt."""
    numbers = sorted(numbers_in(set(labels) - {""}))
    if len(numbers) <= 2:
        return "class"
    is_integral = all(number.is_integer() for number in numbers)
    outside = [value for value in numbers_in(set(of_sample)) if value not in numbers]
    if len(numbers) > MOST_GRADES and (not is_integral or outside):
        found = f"the sample has {outside[0]:g}" if is_integral else "not all of them are integers"
        to_check.append(f"the target: number: the labels are {len(numbers):,} different numbers, and {found}")
        return "number"
    is_grade = is_integral and len(numbers) <= MOST_GRADES
    meaning, other = ("grades in an order", "ordinal") if is_grade else ("a number", "number")
    shown = examples([f"{number:g}" for number in numbers], most=5)
    to_check.append(f'the target: {shown} are taken for classes; if they are {meaning}, set target = "{other}"')
    return "class"


def _group_column(table: Table, label: str, titles: Sequence[str], to_check: list[str]) -> str:
    """The column of groups; empty where no column has the name of one and values that repeat."""
    fewest, rows, asked = max(FEWEST_GROUPS, len(set(table.columns[label])) + 1), len(table.lines), []
    for title in titles:
        values = set(table.columns[title])
        if not fewest <= len(values) < rows or "" in values:
            continue
        if GROUP_COLUMN.search(title):
            text = f"{len(values):,} different values in {rows:,} rows"
            to_check.append(f"the groups: group_column = '{title}', {text}; rows of one stay on one side of a split")
            return title
        if title.lower().endswith("id") or not numbers_in(values):
            asked.append(title)
    advice = "if several images show the same patient, video or object, set group_column in [data]"
    repeated = f"; values repeat in {examples(map(repr, asked))}" if asked else ""
    to_check.append(f"the groups: {advice}{repeated}")
    return ""
