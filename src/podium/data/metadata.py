"""Metadata: columns of tables beside the images, such as age and sex, kept in `metadata.csv` beside `data.lock`."""

from collections.abc import Callable, Sequence

import numpy as np

from podium.data.labels import label_columns, without_missing
from podium.data.listing import numbers_in
from podium.data.locate import Source
from podium.data.tables import image_cells, read_table
from podium.errors import DataError
from podium.files import write_file
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.text import csv_text
from podium.workspace import Workspace


def prepare_metadata(
    workspace: Workspace, lock: Lock, source: Source | None, *, accept: bool, note: Callable[[str], object]
) -> None:
    """Write the columns that the tables of [data] metadata share, but for labels, and check those that recipes name.

    Without the original files, `source`, what was written before is used. Raises DataError where it has not all
    images, and without `accept` where it changes.
    """
    paths, tables = workspace.paths, workspace.competition.data.metadata
    named = [recipe.metadata_columns for recipe in workspace.recipes.values()]
    if not tables:
        paths.metadata_file.unlink(missing_ok=True)
    elif source:
        columns, content = _read_tables(lock, source)
        if not any(named):
            note(f"no recipe uses the metadata; metadata_columns can be {', '.join(columns)}")
        _write_if_accepted(paths, content, accept=accept)
    for columns in named:
        read_metadata(paths, lock, columns)


def _read_tables(lock: Lock, source: Source) -> tuple[list[str], bytes]:
    """The names of the shared columns, and a table of them with a row for each image, in the order of the lock.

    External images have empty cells.
    """
    data, root, faults = source.data, source.open(), []
    tables = [read_table(root / name, faults) for name in data.metadata]
    first, last = tables[0], tables[-1]
    left_out = [data.id_column, *(label_columns(data, first.header) if data.source == "csv" else [])]
    columns = [name for name in first.header if name in last.header and name not in left_out]
    of_train, of_test = (
        image_cells(table, [data.id_column, *columns], ids.tolist(), faults, may_be_empty=columns)
        for table, ids in ((first, lock.train_ids[~lock.is_extra]), (last, lock.test_ids))
    )
    if faults:
        fix = "correct the tables, or [data] metadata in competition.toml"
        raise DataError("The tables of metadata do not fit the images.", faults=faults, fix=fix)
    own = iter(of_train)
    cells = [[""] * len(columns) if is_extra else next(own) for is_extra in lock.is_extra] + of_test
    rows = ([id_, *row] for id_, row in zip(_ids(lock), cells, strict=True))
    return columns, csv_text([["id", *columns], *rows]).encode()


def _write_if_accepted(paths: Paths, content: bytes, *, accept: bool) -> None:
    file = paths.metadata_file
    if file.is_file() and file.read_bytes() != content and not accept:
        raise DataError(
            "The metadata are not those that the runs were trained on.",
            file=file,
            expected="the same columns and cells",
            fix="restore the old tables, or accept the new ones (runs that use them become stale): "
            f"podium prepare --competition {paths.name} --accept-data",
        )
    write_file(file, content)


def read_metadata(paths: Paths, lock: Lock, columns: Sequence[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The cells of some columns for the labelled and the test images, (n, columns) and (m, columns); None without any.

    A column of numbers has floats, NaN for a missing one; any other has texts. Raises DataError where `metadata.csv`
    is missing, has other images than the lock, or lacks a column.
    """
    if not columns:
        return None, None
    faults: list[str] = []
    table = read_table(paths.metadata_file, faults)
    if not faults and list(table.columns[table.header[0]]) != _ids(lock):
        faults.append("it is not about the images of data.lock")
    unknown = [name for name in columns if name not in table.header[1:]]
    if faults or unknown:
        raise DataError(
            "A recipe names metadata that the images do not have.",
            file=paths.metadata_file,
            expected=f"metadata_columns of {', '.join(table.header[1:]) or '[data] metadata'}",
            found=", ".join(unknown),
            faults=faults,
            fix='correct them in the recipe; or [data] metadata = ["train.csv", "test.csv"], then make prepare',
        )
    cells = np.empty((len(table.lines), len(columns)), object)
    for place, name in enumerate(columns):
        cells[:, place] = _values(table.columns[name])
    return cells[: len(lock.train_ids)], cells[len(lock.train_ids) :]


def _values(cells: Sequence[str]) -> Sequence[float] | Sequence[str]:
    """The cells of a column as numbers, NaN for missing ones; as they are if others are no finite numbers."""
    known = without_missing(cells)
    numbers = numbers_in(known)
    if not numbers or not np.isfinite(numbers).all():
        return cells
    return [float(cell) if cell in known else np.nan for cell in cells]


def _ids(lock: Lock) -> list[str]:
    return [*lock.train_ids.tolist(), *lock.test_ids.tolist()]
