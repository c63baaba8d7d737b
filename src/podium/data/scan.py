"""List the images, ids, labels and groups of a competition, with all faults."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from podium.config.keys import Competition, Data
from podium.data.archives import Files
from podium.data.digits import digits_listing
from podium.data.images import is_image
from podium.data.listing import (
    LabelledImage,
    Listing,
    column_faults,
    is_harmless,
    make_listing,
    name_fault,
    name_faults,
    natural_order,
    printable,
)
from podium.data.locate import Source
from podium.errors import DataError


def data_faults(name: str, faults: Sequence[str]) -> DataError:
    """The error that lists the faults of a competition's images and labels."""
    what = f"The data of '{name}' have {len(faults)} fault(s)."
    return DataError(what, faults=[printable(fault) for fault in faults], fix="fix or remove these")


def scan(competition: Competition, source: Source | None) -> Listing:
    """List images, labels, ids and faults; raises DataError if the train or test part is missing."""
    listing = digits_listing() if source is None else _scan_files(competition, source)
    return replace(listing, faults=(*listing.faults, *_names_faults(listing, competition)))


def _scan_files(competition: Competition, source: Source) -> Listing:
    data, faults = competition.data, []
    files = source.open()
    train = source.open_part(files, data.train)
    rows = _class_folders(train, faults) if data.source == "folders" else _labels(files, train, data, faults)
    rows.sort(key=lambda row: row.id)
    test = source.open_part(files, data.test)
    faults += _unreadable_files(train, test, rows if data.source == "folders" else [])
    ordered = _test_order(files, _test_images(test, data, faults), competition, faults)
    return make_listing(rows, train, test, ordered, grouped=bool(data.group_column), faults=faults)


def _names_faults(listing: Listing, competition: Competition) -> list[str]:
    """Faults of ids, classes and groups that would be changed by a CSV or by data.lock."""
    train, test = listing.train.where(), listing.test.where()
    bad_labels = {label for label in listing.classes if name_fault(label)}
    labels = [listing.classes[label] for label in listing.train_labels]
    # With class folders an id starts with its class: a fault of the class is reported once.
    pairs = zip(listing.train_ids, labels, strict=True)
    ids = [id_ for id_, label in pairs if not (label in bad_labels and id_.startswith(f"{label}/"))]
    return [
        *name_faults(train, "class", listing.classes),
        *name_faults(train, "id", ids),
        *name_faults(train, "group", sorted(set(listing.groups or []))),
        *name_faults(test, "test id", listing.test_ids),
        *column_faults(competition.submission, listing.classes, listing.test_ids),
    ]


def _unreadable_files(train: Files, test: Files, rows: Sequence[LabelledImage]) -> list[str]:
    """Faults of files that Podium cannot read as images, in the class folders of `rows` and in the test part."""
    classes = {row.label for row in rows}
    names = [(train, name) for name in train.names() if "/" in name and name.split("/", 1)[0] in classes]
    names += [(test, name) for name in test.names()]
    others = [(files, name) for files, name in names if not is_image(name) and not is_harmless(name)]
    links = [(files, name) for files in (train, test) for name in files.broken_links() if not is_harmless(name)]
    return [
        *(f"{files.where(name)}: not an image that Podium can read" for files, name in others),
        *(f"{files.where(name)}: a broken link" for files, name in links),
    ]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if is_image(name) else name


def _class_folders(train: Files, faults: list[str]) -> list[LabelledImage]:
    names = train.names()
    images = [name for name in names if is_image(name)]
    faults += [f"{train.where(name)}: an image in no class folder" for name in images if "/" not in name]
    rows = [LabelledImage(_stem(name), name, name.split("/", 1)[0]) for name in images if "/" in name]
    for folder in sorted(set(train.folders()) - {row.label for row in rows}):
        others = [name for name in names if name.startswith(f"{folder}/")]
        rest = f"; it holds {len(others)} other file(s), such as {others[0]}" if others else ""
        faults.append(f"{train.where(folder)}: a class without images{rest}")
    faults += _repeated_ids([(row.id, train.where(row.file)) for row in rows])
    return rows


def _repeated_ids(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Faults for ids that occur several times, from pairs (id, place)."""
    places: dict[str, list[str]] = {}
    for id_, place in pairs:
        places.setdefault(id_, []).append(place)
    repeated = {id_: where for id_, where in places.items() if len(where) > 1}
    return [f"{', '.join(where)}: the id {id_!r} {len(where)} times" for id_, where in repeated.items()]


def _labels(files: Files, train: Files, data: Data, faults: list[str]) -> list[LabelledImage]:
    images = [name for name in train.names() if is_image(name)]
    by_id = names_by_id(images)
    faults += _repeated_ids([(_stem(name.rsplit("/", 1)[-1]), train.where(name)) for name in images])
    columns = [data.id_column, data.label_column, *([data.group_column] if data.group_column else [])]
    table = _table(files, data.labels, columns, faults)
    rows, labelled = [], set()
    for line, cells in table:
        name = by_id.get(cells[0])
        where = f"{files.where(data.labels)} line {line}"
        faults += [f"{where}: {column} is empty" for column, cell in zip(columns, cells, strict=True) if not cell]
        if cells[0] and name is None:
            faults.append(f"{where}: {cells[0]!r} has no image in {train.where()}")
        elif name is not None:
            labelled.add(name)
            if all(cells):
                rows.append(LabelledImage(cells[0], name, cells[1], cells[2] if len(cells) > 2 else ""))
    places = [(by_id.get(cells[0], cells[0]), f"{files.where(data.labels)} line {line}") for line, cells in table]
    faults += _repeated_ids(places)
    if table:
        faults += [f"{train.where(name)}: an image without a label" for name in images if name not in labelled]
    return rows


def names_by_id(names: Sequence[str]) -> dict[str, str]:
    """File names by the spellings that a table may use: path, base name, base name without suffix."""
    by_id = {name: name for name in names}
    for name in names:
        base = name.rsplit("/", 1)[-1]
        by_id.setdefault(base, name)
        by_id.setdefault(_stem(base), name)
    return by_id


def _table(files: Files, name: str, columns: Sequence[str], faults: list[str]) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the columns; an empty list, and a fault, if the table cannot be read."""
    where = files.where(name)
    if not files.has_file(name):
        faults.append(f"{where}: missing")
        return []
    try:
        reader = csv.reader(io.StringIO(files.read(name).decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        if missing := [column for column in columns if column not in header]:
            faults.append(f"{where}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header))}")
            return []
        places = [header.index(column) for column in columns]
        lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        faults.append(f"{where}: not a CSV table in UTF-8: {error}")
        return []
    if not lines:
        faults.append(f"{where}: no rows")
    return [(line, [row[i].strip() if i < len(row) else "" for i in places]) for line, row in lines]


def _test_images(test: Files, data: Data, faults: list[str]) -> dict[str, str]:
    """Id -> file name, in natural order; names of subfolders are ignored."""
    images = [name for name in test.names() if is_image(name)]
    if not images:
        faults.append(f"{test.where()}: no images")
    if data.test_ids == "hash-order":
        images.sort(key=lambda name: hashlib.sha256(test.read(name)).digest())
        return {str(i): name for i, name in enumerate(images, 1)}
    ids = [_stem(name.rsplit("/", 1)[-1]) for name in images]
    faults += _repeated_ids([(id_, test.where(name)) for id_, name in zip(ids, images, strict=True)])
    by_id = dict(zip(ids, images, strict=True))
    return {id_: by_id[id_] for id_ in natural_order(by_id)}


def _test_order(files: Files, images: dict[str, str], competition: Competition, faults: list[str]) -> dict[str, str]:
    """The test images with the ids and in the order of the sample submission, if there is one."""
    sample, data = competition.data.sample_submission, competition.data
    # In hash order the ids are known without a sample submission: public copies of the images have none.
    if not sample or (data.test_ids == "hash-order" and not files.has_file(sample)):
        return images
    where = files.where(sample)
    table = _table(files, sample, [competition.submission.id_column], faults)
    by_id = images if data.test_ids == "hash-order" else names_by_id(list(images.values()))
    ids = [cells[0] for _, cells in table]
    faults += [f"{where} line {line}: {id_!r} has no image" for line, (id_,) in table if id_ not in by_id]
    faults += [f"{where}: the id {id_!r} {count} times" for id_, count in Counter(ids).items() if count > 1]
    ordered = {id_: by_id[id_] for id_ in ids if id_ in by_id}
    if table:
        rest = sorted(set(images.values()) - set(ordered.values()))
        faults += [f"{name}: a test image that is not in {where}" for name in rest]
    return ordered
