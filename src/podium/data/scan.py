"""List the images, ids, labels and groups of a competition, with all faults."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from podium.config.competition import expected_columns, separator_of
from podium.config.keys import Competition, Data
from podium.data.archives import file_names, folder_names, read_file
from podium.data.images import is_image
from podium.data.labels import label_columns, read_labels
from podium.data.listing import (
    LabelledImage,
    Listing,
    base_name,
    name_fault,
    names_by_id,
    natural_order,
    numbers_in,
    repeated_ids,
    stem,
)
from podium.data.locate import Source
from podium.data.tables import Table, image_cells, image_rows, read_table
from podium.errors import examples
from podium.lock import EXTRA
from podium.targets.target import BETWEEN_NAMES

# Files that are often beside images and are not images.
HARMLESS_SUFFIXES = ("thumbs.db", "desktop.ini", ".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html")


def scan(competition: Competition, source: Source) -> Listing:
    """List images, labels, ids and faults.

    Raises DataError where a part is missing or the labels look like a number, ConfigError as `expected_columns` does.
    """
    data, faults, root = competition.data, [], source.open()
    train = test = source.open_part(root, data.train)
    labelled, columns = _labelled_images(root, train, data, faults)
    classes = {*columns} or {row.label for row in labelled}
    known = examples(sorted(classes), most=10)
    faults += [f"{row.id!r}: an id that begins with {EXTRA!r}" for row in labelled if row.id.startswith(EXTRA)]
    rows = list(labelled)
    if folder := competition.validation.folder:
        part = source.open_part(root, folder)
        held_out, _ = _labelled_images(root, part, data, faults)
        faults += [] if held_out else [f"{part}: no labelled images"]
        rows += [replace(row, id=f"{folder}/{row.id}", is_held_out=True) for row in held_out]
    for name in data.extra:
        part = source.open_extra(root, name)
        extra = _external_images(part, data, columns, faults)
        names = {name for row in extra for name in row.label.split(BETWEEN_NAMES)} - {""}
        for label in sorted(names - classes if data.target != "number" else ()):
            faults.append(f"{part}: {label!r} is not a class of the labelled images; these are {known}")
        rows += [replace(row, id=f"{EXTRA}{name}/{row.id}") for row in extra]
    sample, tests = Table(), {}
    if data.test:
        test, file = source.open_part(root, data.test), root / data.sample_submission
        # In hash order the ids are known without a sample submission: public copies of the images have none.
        if data.sample_submission and (data.test_ids != "hash-order" or file.is_file()):
            sample = read_table(file, faults)
        tests = _test_images(test, sample, labelled, competition, faults)
    faults += repeated_ids(dict.fromkeys((row.id, row.file) for row in rows))
    listing = Listing(sorted(rows, key=lambda row: row.id), tests, target=data.target, columns=columns)
    if competition.submission.kind == "probabilities":  # columns of the sample in an order of its own are the classes'
        names = tuple(name for name in sample.header if name != competition.submission.id_column)
        listing = replace(listing, columns=names if set(names) == set(listing.classes) else columns)
    if len(listing.classes) < 2 and data.target != "number":
        faults.append(f"{train}: {len(listing.classes)} class(es) with images; expected 2 or more")
    else:
        faults += _column_faults(sample, expected_columns(competition.submission, listing.classes))
    faults += _name_faults(listing, competition, train=train, test=test)
    return replace(listing, faults=tuple(faults))


def scan_test(competition: Competition, source: Source) -> tuple[dict[str, str], list[str]]:
    """Id -> file of each test image, in the order of the sample submission of `source` if it has one; and the faults.

    The file is "" for an id of the sample without an image. Raises DataError where the part of the test is missing.
    """
    data, faults, root = competition.data, [], source.open()
    part, file = source.open_part(root, data.test), root / data.sample_submission
    sample = read_table(file, faults) if data.sample_submission and file.is_file() else Table()
    labelled, _ = _labelled_images(root, part, data, faults) if data.is_mixed and not sample.header else ([], ())
    images = _test_images(part, sample, labelled, competition, faults)
    ids = sample.columns.get(competition.submission.id_column, images)
    return {id_: images.get(id_, "") for id_ in ids}, faults


def _labelled_images(
    root: Path, part: Path, data: Data, faults: list[str]
) -> tuple[list[LabelledImage], tuple[str, ...]]:
    """The images of one part with their labels and groups, and what `read_labels` gives; adds to `faults`."""
    names, columns = file_names(part), ()
    images = list(filter(is_image, names))
    if data.source == "names":
        rows = [LabelledImage(stem(name), f"{part}/{name}", "") for name in images]
        labels = _in_names(rows, "label_pattern", data, faults)
        rows = [replace(row, label=labels[row.file]) for row in rows if row.file in labels]
    elif data.source == "folders":
        rows = _class_folders(part, images, faults)
        classes = {row.label for row in rows}
        names = [name for name in names if "/" in name and name.split("/", 1)[0] in classes]
    else:
        (rows, columns), names = _table_images(root, part, images, data, faults), []
    faults += _unreadable_files(part, names)
    if data.group_column and data.source != "csv":
        table, keys = read_table(root / data.labels, faults), [data.id_column, data.group_column]
        groups = image_cells(table, keys, [row.id for row in rows], faults)
        rows = [replace(row, group=group) for row, (group,) in zip(rows, groups, strict=True)]
    if data.group_pattern:
        groups = _in_names(rows, "group_pattern", data, faults)
        rows = [replace(row, group=groups.get(row.file, "")) for row in rows]
    return rows, columns


def _external_images(part: Path, data: Data, columns: Sequence[str], faults: list[str]) -> list[LabelledImage]:
    """The images of a part of external data: in class folders, or named by a table like that of the competition.

    The table has its name and `columns`, and is in the part. Without one, only classes can have folders.
    """
    table = base_name(data.labels)
    if data.source == "csv" and (data.target in ("multi-label", "number") or (part / table).is_file()):
        # Grades are read as classes, because these images need not have every grade.
        changes = {"labels": table, "test": "", "target": "class" if data.target == "ordinal" else data.target}
        changes |= {"label_columns": columns} if data.target == "multi-label" and not data.label_separator else {}
    else:
        changes = {"source": "folders", "group_column": ""}
    return _labelled_images(part, part, replace(data, **changes, group_pattern=""), faults)[0]


def _class_folders(part: Path, images: Sequence[str], faults: list[str]) -> list[LabelledImage]:
    faults += [f"{part}/{name}: this image is not in a class folder" for name in images if "/" not in name]
    in_folders = [name for name in images if "/" in name]
    rows = [LabelledImage(stem(name), f"{part}/{name}", name.split("/", 1)[0]) for name in in_folders]
    for folder in sorted(set(folder_names(part)) - {row.label for row in rows}):
        others = file_names(part / folder)
        rest = f"; it holds {len(others)} other file(s), such as {folder}/{others[0]}" if others else ""
        faults.append(f"{part}/{folder}: a class without images{rest}")
    return rows


def _in_names(rows: Sequence[LabelledImage], key: str, data: Data, faults: list[str]) -> dict[str, str]:
    """File -> what the group of the pattern under `key` matches in its name; a name that does not match is a fault."""
    pattern = re.compile(getattr(data, key))
    matches = {row.file: pattern.search(base_name(row.file)) for row in rows}
    found = {file: match[1] for file, match in matches.items() if match and match[1]}
    faults += [f"{file}: {key} finds nothing in this name" for file in matches if file not in found]
    return found


def _table_images(
    root: Path, part: Path, images: Sequence[str], data: Data, faults: list[str]
) -> tuple[list[LabelledImage], tuple[str, ...]]:
    """The labelled images of a table, and the names of their labels if an image may have several."""
    table = read_table(root / data.labels, faults)
    faults += repeated_ids((stem(base_name(name)), f"{part}/{name}") for name in images)
    labels = label_columns(data, table.header)
    groups = [data.group_column] if data.group_column else []
    may_be_empty = [data.label_column] if data.label_separator else []  # an image without any of the labels
    columns, unknown = [data.id_column, *labels, *groups], f"has no image in {part}"
    rows = image_rows(table, columns, names_by_id(images), faults, unknown=unknown, may_be_empty=may_be_empty)
    if rows and not data.is_mixed:
        unused = sorted(set(images) - {name for name, _ in rows})
        faults += [f"{part}/{name}: an image without a label" for name in unused]
    rows = [(name, cells) for name, cells in rows if all(cells) or may_be_empty]
    label_cells = [(id_, cells[: len(labels)]) for _, (id_, *cells) in rows]
    texts, names = read_labels(data, labels, label_cells, table=str(table.file), faults=faults)
    labelled = [
        LabelledImage(cells[0], f"{part}/{name}", text, cells[-1] if groups else "")
        for (name, cells), text in zip(rows, texts, strict=True)
        if text is not None
    ]
    return labelled, names


def _test_images(
    part: Path, sample: Table, labelled: Sequence[LabelledImage], competition: Competition, faults: list[str]
) -> dict[str, str]:
    """Id -> file of each test image, in the order of a sample submission, else by id; subfolders are ignored.

    Where one folder has all images, those of the test are the ones that are not `labelled`.
    """
    data, names = competition.data, file_names(part)
    faults += _unreadable_files(part, names)
    others = {row.file for row in labelled} if data.is_mixed else set()
    names = [name for name in names if is_image(name) and f"{part}/{name}" not in others]
    kind = " without a label" if data.is_mixed else ""
    faults += [] if names else [f"{part}: no images{kind}"]
    if data.test_ids == "hash-order":
        names.sort(key=lambda name: hashlib.sha256(read_file(part / name)).digest())
        images = by_id = {str(i): name for i, name in enumerate(names, 1)}
    else:
        faults += repeated_ids((stem(base_name(name)), f"{part}/{name}") for name in names)
        images, by_id = {stem(base_name(name)): name for name in names}, names_by_id(names)
        images = {id_: images[id_] for id_ in natural_order(images)}
    columns, unknown = [competition.submission.id_column], f"has no image{kind} in {part}"
    if rows := image_rows(sample, columns, by_id, faults, unknown=unknown):
        unused = sorted(set(names) - {name for name, _ in rows})
        faults += [f"{part}/{name}: a test image that is not in {sample.file}" for name in unused]
        images = {id_: name for name, (id_,) in rows}
    return {id_: f"{part}/{name}" for id_, name in images.items()}


def _unreadable_files(part: Path, names: Sequence[str]) -> list[str]:
    others = [name for name in names if not is_image(name) and not name.lower().endswith(HARMLESS_SUFFIXES)]
    return [f"{part}/{name}: not an image that Podium can read" for name in others]


def _column_faults(sample: Table, columns: Sequence[str]) -> list[str]:
    """The fault of a sample submission that has other columns than the submission's `columns`."""
    if columns[0] not in sample.header or set(sample.header) == {column.strip() for column in columns}:
        return []  # a table without ids has a fault already
    found, expected = examples(sample.header, most=6), examples(columns, most=6)
    return [f"{sample.file}: its columns are {found}; a submission would have {expected}"]


def _name_faults(listing: Listing, competition: Competition, *, train: Path, test: Path) -> list[str]:
    """Faults of ids, classes and groups that cannot be written to a CSV or to data.lock and read back."""
    submission, classes = competition.submission, listing.classes
    bad_labels = {label for label in classes if name_fault(label)}
    # With class folders an id contains its class name; a bad class name is reported once.
    ids = [row.id for row in listing.rows if not (row.label in bad_labels and row.id.startswith(f"{row.label}/"))]
    groups = sorted({row.group for row in listing.rows} - {""})
    kinds = [(train, "class", classes), (train, "id", ids), (train, "group", groups)]
    kinds.append((test, "test id", list(listing.test_images)))
    faults = [
        f"{place}: the {what} {name!r} {fault}"
        for place, what, names in kinds
        for name in names
        if (fault := name_fault(name))
    ]
    column = submission.id_column
    if submission.kind != "probabilities" and column == submission.label_column:
        faults.append(f"[submission] id_column and label_column are both {column!r}")
    if submission.kind == "probabilities" and column in classes:
        faults.append(f"the class {column!r} has the name of the submission's id column")
    separator = separator_of(submission, competition.data.target)
    if divided := [name for name in classes if separator and separator in name]:
        faults.append(f"[submission] separator = {separator!r} is in the class names {examples(divided)}: name another")
    if competition.metric == "qwk" and not numbers_in(classes):
        faults.append(f'metric = "qwk" needs classes in an order: expected integers, found {examples(classes)}')
    if column in listing.test_images:
        faults.append(f"the test id {column!r} has the name of the submission's id column")
    return faults
