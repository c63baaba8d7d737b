"""From where the images are to a listing: images, ids, labels, groups, and every fault that they can show."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from podium.config.keys import Competition, Data
from podium.data.archives import Files, broken_links
from podium.data.digits import digits_listing
from podium.data.images import is_image
from podium.data.listing import (
    Listing,
    Row,
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
    """The error that lists what is wrong with a competition's images and labels."""
    what = f"The data of '{name}' have {len(faults)} fault(s)."
    return DataError(what, faults=[printable(fault) for fault in faults], fix="fix or remove these")


def scan(competition: Competition, source: Source | None) -> Listing:
    """List images, labels, ids and their faults; raises DataError where nothing can be listed."""
    listing = digits_listing() if source is None else _scan_files(competition, source)
    return replace(listing, faults=(*listing.faults, *_names_faults(listing, competition)))


def _scan_files(competition: Competition, source: Source) -> Listing:
    data, faults = competition.data, []
    files = source.open()
    train = source.open_part(files, data.train)
    rows = _class_folders(train, faults) if data.source == "folders" else _labels(files, train, data, faults)
    rows.sort(key=lambda row: row.id)
    test = source.open_part(files, data.test)
    faults += _not_images(train, test, rows if data.source == "folders" else [])
    ordered = _test_order(files, _test_images(test, data, faults), competition, faults)
    listing = make_listing(rows, train, test, ordered, grouped=bool(data.group_column), faults=faults)
    return replace(listing, notes=_left_out(train) if data.source == "csv" else ())


def _names_faults(listing: Listing, competition: Competition) -> list[str]:
    """Faults of names that come out of a CSV or the lock as others, after hours of training."""
    train, test = listing.train.where(), listing.test.where()
    bad = {label for label in listing.classes if name_fault(label)}
    labels = [listing.classes[label] for label in listing.train_labels]
    # Ids begin with their class where classes are folders: what is wrong with it is told once.
    pairs = zip(listing.train_ids, labels, strict=True)
    ids = [one for one, label in pairs if not (label in bad and one.startswith(f"{label}/"))]
    return [
        *name_faults(train, "class", listing.classes),
        *name_faults(train, "id", ids),
        *name_faults(train, "group", sorted(set(listing.groups or []))),
        *name_faults(test, "test id", listing.test_ids),
        *column_faults(competition.submission, listing.classes, listing.test_ids),
    ]


def _not_images(train: Files, test: Files, rows: Sequence[Row]) -> list[str]:
    """Faults of files that may be images and would be left out: in the folders of `rows`, and in the test."""
    classes = {row.label for row in rows}
    names = [(train, name) for name in train.names() if "/" in name and name.split("/", 1)[0] in classes]
    names += [(test, name) for name in test.names()]
    others = [(files, name) for files, name in names if not is_image(name) and not is_harmless(name)]
    links = [(files, name) for files in (train, test) for name in broken_links(files) if not is_harmless(name)]
    return [
        *(f"{files.where(name)}: a file that is no image Podium reads" for files, name in others),
        *(f"{files.where(name)}: a link that leads to no file" for files, name in links),
    ]


def _left_out(train: Files) -> tuple[str, ...]:
    """A note of files beside labelled images that no table speaks of: no fault, as every labelled image is there."""
    others = [train.where(name) for name in train.names() if not is_image(name) and not is_harmless(name)]
    if not others:
        return ()
    verb = (
        "is no image Podium reads" if len(others) == 1 else f"and {len(others) - 1:,} more are no images Podium reads"
    )
    return (printable(f"{others[0]} {verb}: left out"),)


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if is_image(name) else name


def _class_folders(train: Files, faults: list[str]) -> list[Row]:
    names = train.names()
    images = [name for name in names if is_image(name)]
    faults += [f"{train.where(name)}: an image in no class folder" for name in images if "/" not in name]
    rows = [Row(_stem(name), name, name.split("/", 1)[0]) for name in images if "/" in name]
    for folder in sorted(set(train.folders()) - {row.label for row in rows}):
        others = [name for name in names if name.startswith(f"{folder}/")]
        rest = f"; it holds {len(others)} other file(s), such as {others[0]}" if others else ""
        faults.append(f"{train.where(folder)}: a class without images{rest}")
    faults += _twice([(row.id, train.where(row.file)) for row in rows])
    return rows


def _twice(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Faults for ids that several places have."""
    places: dict[str, list[str]] = {}
    for one, place in pairs:
        places.setdefault(one, []).append(place)
    return [f"{', '.join(found)}: the id {one!r} {len(found)} times" for one, found in places.items() if len(found) > 1]


def _labels(files: Files, train: Files, data: Data, faults: list[str]) -> list[Row]:
    images = [name for name in train.names() if is_image(name)]
    by_id = names_by_id(images)
    faults += _twice([(_stem(name.rsplit("/", 1)[-1]), train.where(name)) for name in images])
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
                rows.append(Row(cells[0], name, cells[1], cells[2] if len(cells) > 2 else ""))
    places = [(by_id.get(cells[0], cells[0]), f"{files.where(data.labels)} line {line}") for line, cells in table]
    faults += _twice(places)
    if table:
        faults += [f"{train.where(name)}: an image without a label" for name in images if name not in labelled]
    return rows


def names_by_id(names: Sequence[str]) -> dict[str, str]:
    """File names by everything that a table may call them: path, base name, and base name without suffix."""
    found = {name: name for name in names}
    for name in names:
        base = name.rsplit("/", 1)[-1]
        found.setdefault(base, name)
        found.setdefault(_stem(base), name)
    return found


def _table(files: Files, name: str, columns: Sequence[str], faults: list[str]) -> list[tuple[int, list[str]]]:
    """Line numbers and the cells of the named columns; nothing, and a fault, where they cannot be had."""
    where = files.where(name)
    if name not in files.names():
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
    """Id -> file name, in natural order. Folders below are looked into; their names say nothing."""
    images = [name for name in test.names() if is_image(name)]
    if not images:
        faults.append(f"{test.where()}: no images")
    if data.test_ids == "hash-order":
        images.sort(key=lambda name: hashlib.sha256(test.read(name)).digest())
        return {str(i): name for i, name in enumerate(images, 1)}
    ids = [_stem(name.rsplit("/", 1)[-1]) for name in images]
    faults += _twice([(one, test.where(name)) for one, name in zip(ids, images, strict=True)])
    by_id = dict(zip(ids, images, strict=True))
    return {one: by_id[one] for one in natural_order(by_id)}


def _test_order(files: Files, images: dict[str, str], competition: Competition, faults: list[str]) -> dict[str, str]:
    """The test images under the ids of the sample submission and in its order, where there is one."""
    sample, data = competition.data.sample_submission, competition.data
    # Numbered by content, a test needs no sample: the images' public home has none.
    if not sample or (data.test_ids == "hash-order" and sample not in files.names()):
        return images
    where = files.where(sample)
    table = _table(files, sample, [competition.submission.id_column], faults)
    by_id = images if data.test_ids == "hash-order" else names_by_id(list(images.values()))
    ids = [cells[0] for _, cells in table]
    faults += [f"{where} line {line}: {one!r} has no image" for line, (one,) in table if one not in by_id]
    faults += [f"{where}: the id {one!r} {count} times" for one, count in Counter(ids).items() if count > 1]
    ordered = {one: by_id[one] for one in ids if one in by_id}
    if table:
        rest = sorted(set(images.values()) - set(ordered.values()))
        faults += [f"{name}: a test image that is not in {where}" for name in rest]
    return ordered
