"""List the images, ids, labels and groups of a competition, with all faults."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from podium.config.competition import expected_columns, separator_of
from podium.config.keys import Competition, Data
from podium.data.archives import NO_FILES, Files, Joined
from podium.data.digits import digits_listing
from podium.data.images import is_image
from podium.data.labels import label_columns, read_labels
from podium.data.listing import LabelledImage, Listing, name_fault, name_faults, natural_order, numbers_in
from podium.data.locate import Source
from podium.data.names import base_name, names_by_id, repeated_ids, shared_files, stem, unreadable_files
from podium.data.tables import read_table
from podium.errors import DataError, examples
from podium.lock import EXTRA


def data_faults(name: str, faults: Sequence[str]) -> DataError:
    """The error that lists the faults of a competition's images and labels."""
    printable = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in fault) for fault in faults]
    return DataError(f"The data of '{name}' have {len(faults)} fault(s).", faults=printable, fix="fix or remove these")


def scan(competition: Competition, source: Source | None) -> Listing:
    """List images, labels, ids and faults.

    Raises DataError where a part is missing or the labels look like a number, ConfigError as `expected_columns` does.
    """
    listing = digits_listing() if source is None else _scan_files(competition, source)
    return replace(listing, faults=(*listing.faults, *_name_faults(listing, competition)))


def _scan_files(competition: Competition, source: Source) -> Listing:
    data, faults = competition.data, []
    files = source.open()
    train = source.open_part(files, data.train)
    rows, columns = _labelled_images(files, train, data, faults)
    parts = {data.train: (train, rows)}
    test = source.open_part(files, data.test) if data.test else NO_FILES
    if folder := competition.validation.folder:
        held_out = source.open_part(files, folder)
        others, _ = _labelled_images(files, held_out, data, faults)
        faults += [] if others else [f"{held_out.where()}: no labelled images"]
        parts[folder] = held_out, [replace(row, id=f"{folder}/{row.id}", is_held_out=True) for row in others]
        faults += [*shared_files(train, held_out, "held-out"), *shared_files(held_out, test, "test")]
    if not data.is_mixed:
        faults += shared_files(train, test, "test")
    faults += unreadable_files(test, test.names())
    test_images = _test_images(test, _test_names(test, data, rows, faults), data, faults)
    ordered = _test_order(files, test, test_images, competition, faults)
    faults += [f"{row.id!r}: an id that begins with {EXTRA!r}" for row in rows if row.id.startswith(EXTRA)]
    classes = {row.label for row in rows}
    for name in data.extra:
        part = source.open_extra(files, name)
        parts[f"{EXTRA}{name}"] = part, _extra_images(part, name, classes, faults)
        faults += shared_files(part, test, "test")
    labelled, rows = _joined(parts)
    if len(parts) > 1:
        faults += repeated_ids((row.id, labelled.where(row.file)) for row in rows)
    rows = sorted(rows, key=lambda row: row.id)
    listing = Listing(labelled, rows, test, ordered, target=data.target, columns=columns)
    if competition.submission.kind == "probabilities":  # columns of the sample in an order of its own are the classes'
        header = read_table(files, data.sample_submission, []).header  # its faults are known
        names = [name for name in header if name != competition.submission.id_column]
        listing = replace(listing, columns=tuple(names) if set(names) == set(listing.classes) else columns)
    if len(listing.classes) < 2 and data.target != "number":
        faults.append(f"{train.where()}: {len(listing.classes)} class(es) with images; expected 2 or more")
    else:
        faults += _column_faults(files, competition, listing.classes)
    return replace(listing, faults=tuple(faults))


def _labelled_images(
    files: Files, train: Files, data: Data, faults: list[str]
) -> tuple[list[LabelledImage], tuple[str, ...]]:
    """The images of one part with their labels and groups, and what `read_labels` gives; adds to `faults`."""
    columns: tuple[str, ...] = ()
    if data.source == "csv":
        (rows, columns), names = _labels(files, train, data, faults), []
    elif data.source == "names":
        rows, names = _labels_in_names(train, data, faults), train.names()
    else:
        rows = _class_folders(train, faults)
        classes = {row.label for row in rows}
        names = [name for name in train.names() if "/" in name and name.split("/", 1)[0] in classes]
    faults += unreadable_files(train, names)
    if data.group_pattern:
        groups = _in_names(train, [row.file for row in rows], "group_pattern", data, faults)
        rows = [replace(row, group=groups.get(row.file, "")) for row in rows]
    return rows, columns


def _name_faults(listing: Listing, competition: Competition) -> list[str]:
    """Faults of ids, classes and groups that cannot be written to a CSV or to data.lock and read back."""
    train, test, submission = listing.train.where(), listing.test.where(), competition.submission
    bad_labels = {label for label in listing.classes if name_fault(label)}
    # With class folders an id contains its class name; a bad class name is reported once.
    ids = [row.id for row in listing.rows if not (row.label in bad_labels and row.id.startswith(f"{row.label}/"))]
    faults = [
        *name_faults(train, "class", listing.classes),
        *name_faults(train, "id", ids),
        *name_faults(train, "group", sorted({row.group for row in listing.rows} - {""})),
        *name_faults(test, "test id", listing.test_images),
    ]
    column = submission.id_column
    if submission.kind != "probabilities" and column == submission.label_column:
        faults.append(f"[submission] id_column and label_column are both {column!r}")
    if submission.kind == "probabilities" and column in listing.classes:
        faults.append(f"the class {column!r} has the name of the submission's id column")
    separator = separator_of(submission, competition.data.target)
    if divided := [name for name in listing.classes if separator and separator in name]:
        faults.append(f"[submission] separator = {separator!r} is in the class names {examples(divided)}: name another")
    if competition.metric == "qwk" and not numbers_in(listing.classes):
        faults.append(f'metric = "qwk" needs classes in an order: expected integers, found {examples(listing.classes)}')
    if column in listing.test_images:
        faults.append(f"the test id {column!r} has the name of the submission's id column")
    return faults


def _images(files: Files) -> list[str]:
    return list(filter(is_image, files.names()))


def _class_folders(train: Files, faults: list[str]) -> list[LabelledImage]:
    images = _images(train)
    faults += [f"{train.where(name)}: this image is not in a class folder" for name in images if "/" not in name]
    rows = [LabelledImage(stem(name), name, name.split("/", 1)[0]) for name in images if "/" in name]
    others: dict[str, list[str]] = {}
    for name in train.names():
        others.setdefault(name.split("/", 1)[0], []).append(name)
    for folder in sorted(set(train.folders()) - {row.label for row in rows}):
        names = others.get(folder)
        rest = f"; it holds {len(names)} other file(s), such as {names[0]}" if names else ""
        faults.append(f"{train.where(folder)}: a class without images{rest}")
    faults += repeated_ids((row.id, train.where(row.file)) for row in rows)
    return rows


def _labels_in_names(train: Files, data: Data, faults: list[str]) -> list[LabelledImage]:
    labels = _in_names(train, _images(train), "label_pattern", data, faults)
    faults += repeated_ids((stem(name), train.where(name)) for name in labels)
    return [LabelledImage(stem(name), name, label) for name, label in labels.items()]


def _in_names(train: Files, names: Sequence[str], key: str, data: Data, faults: list[str]) -> dict[str, str]:
    """File name -> what the group of the pattern under `key` matches in it; a name that does not match is a fault."""
    pattern = re.compile(getattr(data, key))
    matches = {name: pattern.search(base_name(name)) for name in names}
    found = {name: match[1] for name, match in matches.items() if match and match[1]}
    faults += [f"{train.where(name)}: {key} finds nothing in this name" for name in names if name not in found]
    return found


def _extra_images(files: Files, name: str, classes: set[str], faults: list[str]) -> list[LabelledImage]:
    """The images in the class folders of the external data `name`; the others must have these `classes`."""
    rows = _class_folders(files, faults)
    for label in sorted({row.label for row in rows} - classes):
        nearest = get_close_matches(label, classes, n=1) or sorted(classes)[:10]
        faults.append(f"{files.where(label)}: not a class of the labelled images; these are {', '.join(nearest)}")
    faults += unreadable_files(files, files.names())
    return [replace(row, id=f"{EXTRA}{name}/{row.id}") for row in rows]


def _joined(parts: dict[str, tuple[Files, list[LabelledImage]]]) -> tuple[Files | Joined, list[LabelledImage]]:
    """The files and images of all parts, each with its name."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    images = [replace(row, file=f"{name}/{row.file}") for name, (_, rows) in parts.items() for row in rows]
    return Joined({name: files for name, (files, _) in parts.items()}), images


def _labels(files: Files, train: Files, data: Data, faults: list[str]) -> tuple[list[LabelledImage], tuple[str, ...]]:
    """The labelled images of a table, and the names of their labels if an image may have several."""
    images = _images(train)
    faults += repeated_ids((stem(base_name(name)), train.where(name)) for name in images)
    labels = label_columns(data, read_table(files, data.labels, []).header)
    groups = [data.group_column] if data.group_column else []
    columns = [data.id_column, *labels, *groups]
    may_be_empty = [data.label_column] if data.label_separator else []  # an image without any of the labels
    missing = "" if data.is_mixed else "an image without a label"
    rows = _table_rows(
        files, data.labels, columns, train, names_by_id(images), missing, faults, may_be_empty=may_be_empty
    )
    rows = [(name, cells) for name, cells in rows if all(cells) or may_be_empty]
    cells_of_labels = [(id_, cells[: len(labels)]) for _, (id_, *cells) in rows]
    texts, names = read_labels(data, labels, cells_of_labels, table=files.where(data.labels), faults=faults)
    listed = zip(rows, texts, (cells[-1] if groups else "" for _, cells in rows), strict=True)
    return [LabelledImage(id_, name, text, group) for (name, (id_, *_)), text, group in listed], names


def _test_names(test: Files, data: Data, rows: Sequence[LabelledImage], faults: list[str]) -> list[str]:
    """The file names of the test images; where one folder has all images, those without a label."""
    labelled = {row.file for row in rows} if data.is_mixed else set()
    names = [name for name in _images(test) if name not in labelled]
    if data.test and not names:
        faults.append(f"{test.where()}: no images{' without a label' if labelled else ''}")
    return names


def _test_images(test: Files, images: list[str], data: Data, faults: list[str]) -> dict[str, str]:
    """Id -> file name, in natural order; names of subfolders are ignored."""
    if data.test_ids == "hash-order":
        images = sorted(images, key=lambda name: hashlib.sha256(test.read(name)).digest())
        return {str(i): name for i, name in enumerate(images, 1)}
    faults += repeated_ids((stem(base_name(name)), test.where(name)) for name in images)
    by_id = {stem(base_name(name)): name for name in images}
    return {id_: by_id[id_] for id_ in natural_order(by_id)}


def _test_order(
    files: Files, test: Files, images: dict[str, str], competition: Competition, faults: list[str]
) -> dict[str, str]:
    """Id -> file name of each test image; a sample submission, if there is one, gives the ids and their order."""
    sample, hash_order = competition.data.sample_submission, competition.data.test_ids == "hash-order"
    # In hash order the ids are known without a sample submission: public copies of the images have none.
    if not sample or (hash_order and not files.has_file(sample)):
        return images
    by_id = images if hash_order else names_by_id(list(images.values()))
    missing = f"a test image that is not in {files.where(sample)}"
    kind = "image without a label" if competition.data.is_mixed else "image"
    rows = _table_rows(files, sample, [competition.submission.id_column], test, by_id, missing, faults, kind)
    return {id_: name for name, (id_,) in rows}


def _column_faults(files: Files, competition: Competition, classes: Sequence[str]) -> list[str]:
    """The fault of a sample submission that has other columns than the submissions written for these classes."""
    sample, columns = competition.data.sample_submission, expected_columns(competition.submission, classes)
    header = read_table(files, sample, []).header  # its faults are known
    if columns[0] not in header or set(header) == {column.strip() for column in columns}:
        return []  # a table without ids has a fault already
    found, expected = examples(header, most=6), examples(columns, most=6)
    return [f"{files.where(sample)}: its columns are {found}; a submission would have {expected}"]


def _table_rows(
    files: Files,
    table: str,
    columns: Sequence[str],
    images: Files,
    by_id: dict[str, str],
    missing: str,
    faults: list[str],
    kind: str = "image",
    may_be_empty: Sequence[str] = (),
) -> list[tuple[str, list[str]]]:
    """For each row of a table: the file name of its image, and its cells. The first column is the id.

    An image that has no row gets the fault `missing`, unless that is empty.
    """
    rows, places = [], []
    for line, cells in _cells(files, table, columns, faults):
        where, name = f"{files.where(table)} line {line}", by_id.get(cells[0])
        empty = [column for column, cell in zip(columns, cells, strict=True) if not cell and column not in may_be_empty]
        faults += [f"{where}: {column} is empty" for column in empty]
        if name is not None:
            rows.append((name, cells))
        elif cells[0]:
            faults.append(f"{where}: {cells[0]!r} has no {kind} in {images.where()}")
        places.append((name or cells[0], where))
    faults += repeated_ids(places)
    if places and missing:
        unused = sorted(set(by_id.values()) - {name for name, _ in rows})
        faults += [f"{images.where(name)}: {missing}" for name in unused]
    return rows


def _cells(files: Files, name: str, columns: Sequence[str], faults: list[str]) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the columns; an empty list, and a fault, if the table cannot be read."""
    table, where = read_table(files, name, faults), files.where(name)
    if not table.rows:
        return []
    if missing := [column for column in columns if column not in table.header]:
        header = ", ".join(map(repr, table.header))
        faults.append(f"{where}: no column {', '.join(map(repr, missing))}; it has {header}")
        return []
    if repeated := [column for column in dict.fromkeys(columns) if table.header.count(column) > 1]:
        faults.append(f"{where}: several columns are called {', '.join(map(repr, repeated))}")
    places = [table.header.index(column) for column in columns]
    return [(line, [row[place] for place in places]) for line, row in table.rows.items()]
