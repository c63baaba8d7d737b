"""List the images, ids, labels and groups of a competition, with all faults."""

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import replace

from podium.config.competition import expected_columns
from podium.config.keys import Competition, Data
from podium.data.archives import Files, Folder
from podium.data.digits import digits_listing
from podium.data.images import is_image
from podium.data.listing import LabelledImage, Listing, is_harmless, name_fault, name_faults, natural_order, numbers_in
from podium.data.locate import Source
from podium.errors import DataError, examples

# More labels than these are not classes if all of them are numbers and not all of them integers.
MOST_NUMBERS = 10


def data_faults(name: str, faults: Sequence[str]) -> DataError:
    """The error that lists the faults of a competition's images and labels."""
    printable = ["".join(c if c.isprintable() else repr(c)[1:-1] for c in fault) for fault in faults]
    what = f"The data of '{name}' have {len(faults)} fault(s)."
    return DataError(what, faults=printable, fix="fix or remove these")


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
    rows = _class_folders(train, faults) if data.source == "folders" else _labels(files, train, data, faults)
    test = source.open_part(files, data.test)
    faults += _shared_files(train, test)
    faults += _unreadable_files(train, test, rows if data.source == "folders" else [])
    ordered = _test_order(files, test, _test_images(test, data, faults), competition, faults)
    listing = Listing(train, sorted(rows, key=lambda row: row.id), test, ordered)
    if len(listing.classes) < 2:
        faults.append(f"{train.where()}: {len(listing.classes)} class(es) with images; expected 2 or more")
    else:
        faults += _column_faults(files, competition, listing.classes)
    return replace(listing, faults=tuple(faults))


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
    if competition.metric == "qwk" and not numbers_in(listing.classes):
        faults.append(f'metric = "qwk" needs classes in an order: expected integers, found {examples(listing.classes)}')
    if column in listing.test_images:
        faults.append(f"the test id {column!r} has the name of the submission's id column")
    return faults


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


def _shared_files(train: Files, test: Files) -> list[str]:
    """Faults of files that are in both parts, because a link leads from one into the other."""
    if not (isinstance(train, Folder) and isinstance(test, Folder)):
        return []  # an archive with links is refused
    return [
        f"{files.where(name)}: a link to the {title} images"
        for files, other, title in ((train, test, "test"), (test, train, "labelled"))
        for name in files.names_inside(other)
    ]


def _images(files: Files) -> list[str]:
    return [name for name in files.names() if is_image(name)]


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0] if is_image(name) else name


def _base_stem(name: str) -> str:
    return _stem(name.rsplit("/", 1)[-1])


def _class_folders(train: Files, faults: list[str]) -> list[LabelledImage]:
    images = _images(train)
    faults += [f"{train.where(name)}: this image is not in a class folder" for name in images if "/" not in name]
    rows = [LabelledImage(_stem(name), name, name.split("/", 1)[0]) for name in images if "/" in name]
    others: dict[str, list[str]] = {}
    for name in train.names():
        others.setdefault(name.split("/", 1)[0], []).append(name)
    for folder in sorted(set(train.folders()) - {row.label for row in rows}):
        names = others.get(folder)
        rest = f"; it holds {len(names)} other file(s), such as {names[0]}" if names else ""
        faults.append(f"{train.where(folder)}: a class without images{rest}")
    faults += _repeated_ids((row.id, train.where(row.file)) for row in rows)
    return rows


def _labels(files: Files, train: Files, data: Data, faults: list[str]) -> list[LabelledImage]:
    images = _images(train)
    faults += _repeated_ids((_base_stem(name), train.where(name)) for name in images)
    columns = [data.id_column, data.label_column, *([data.group_column] if data.group_column else [])]
    rows = _table_rows(files, data.labels, columns, train, names_by_id(images), "an image without a label", faults)
    labels = sorted({label for _, (_, label, *_) in rows if label})
    if len(labels) > MOST_NUMBERS and not all(number.is_integer() for number in numbers_in(labels)):
        raise DataError(
            "The labels look like a number. Podium predicts classes, not numbers.",
            file=files.where(data.labels),
            expected="[data] label_column with class names",
            found=f"{len(labels)} distinct numbers in {data.label_column!r}, such as {examples(labels)}",
            fix="name a column of classes, or add one to the table, such as ranges of the number",
        )
    return [LabelledImage(id_, name, *cells) for name, (id_, *cells) in rows if all(cells)]


def _test_images(test: Files, data: Data, faults: list[str]) -> dict[str, str]:
    """Id -> file name, in natural order; names of subfolders are ignored."""
    images = _images(test)
    if not images:
        faults.append(f"{test.where()}: no images")
    if data.test_ids == "hash-order":
        images.sort(key=lambda name: hashlib.sha256(test.read(name)).digest())
        return {str(i): name for i, name in enumerate(images, 1)}
    faults += _repeated_ids((_base_stem(name), test.where(name)) for name in images)
    by_id = {_base_stem(name): name for name in images}
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
    rows = _table_rows(files, sample, [competition.submission.id_column], test, by_id, missing, faults)
    return {id_: name for name, (id_,) in rows}


def _column_faults(files: Files, competition: Competition, classes: Sequence[str]) -> list[str]:
    """The fault of a sample submission that has other columns than the submissions written for these classes."""
    sample, columns = competition.data.sample_submission, expected_columns(competition.submission, classes)
    if not sample or not files.has_file(sample):
        return []
    text = files.read(sample).decode("utf-8-sig", errors="replace")
    header = [cell.strip() for cell in next(csv.reader(io.StringIO(text, newline="")), [])]
    if columns[0] not in header or set(header) == {column.strip() for column in columns}:
        return []  # a table without ids has a fault already
    found, expected = examples(header, most=6), examples(columns, most=6)
    return [f"{files.where(sample)}: its columns are {found}; a submission would have {expected}"]


def names_by_id(names: Sequence[str]) -> dict[str, str]:
    """Each way in which a table may name an image (path, file name, file name without suffix) -> its path."""
    by_id = {name: name for name in names}
    for name in names:
        base = name.rsplit("/", 1)[-1]
        by_id.setdefault(base, name)
        by_id.setdefault(_stem(base), name)
    return by_id


def _repeated_ids(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Faults for ids that occur several times, from pairs (id, place)."""
    places: dict[str, list[str]] = {}
    for id_, place in pairs:
        places.setdefault(id_, []).append(place)
    repeated = {id_: where for id_, where in places.items() if len(where) > 1}
    return [f"{', '.join(where)}: the id {id_!r} {len(where)} times" for id_, where in repeated.items()]


def _table_rows(
    files: Files,
    table: str,
    columns: Sequence[str],
    images: Files,
    by_id: dict[str, str],
    missing: str,
    faults: list[str],
) -> list[tuple[str, list[str]]]:
    """For each row of a table: the file name of its image, and its cells. The first column is the id.

    An image that has no row gets the fault `missing`.
    """
    rows, places = [], []
    for line, cells in _read_table(files, table, columns, faults):
        where, name = f"{files.where(table)} line {line}", by_id.get(cells[0])
        faults += [f"{where}: {column} is empty" for column, cell in zip(columns, cells, strict=True) if not cell]
        if name is not None:
            rows.append((name, cells))
        elif cells[0]:
            faults.append(f"{where}: {cells[0]!r} has no image in {images.where()}")
        places.append((name or cells[0], where))
    faults += _repeated_ids(places)
    if places:
        unused = sorted(set(by_id.values()) - {name for name, _ in rows})
        faults += [f"{images.where(name)}: {missing}" for name in unused]
    return rows


def _read_table(files: Files, name: str, columns: Sequence[str], faults: list[str]) -> list[tuple[int, list[str]]]:
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
