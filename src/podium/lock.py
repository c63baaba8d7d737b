"""`data.lock`: what a competition's data are, without the images; committed beside its settings.

A text file, so that a change can be read: one line of JSON, then `id,label_index,fold` for each labelled row
(and its group, where rows have one), then one id a line for the test. The ensemble and `podium check` read it;
only NumPy is imported.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from podium.errors import DataError
from podium.files import atomic_write

FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """Ids, labels and folds of a competition: n labelled rows sorted by id, m others in submission order."""

    fingerprint: str
    classes: tuple[str, ...]
    train_ids: np.ndarray  # (n,) str
    train_labels: np.ndarray  # (n,) int64
    folds: np.ndarray  # (n,) int64: the fold whose model is judged on the row; -1: it always trains
    test_ids: np.ndarray  # (m,) str
    validation: Mapping[str, Any] = field(default_factory=dict)  # what the folds were made by
    groups: np.ndarray | None = None  # (n,) str: rows of one group stay on one side of every split

    @property
    def fold_sha256(self) -> str:
        """SHA-256 over ids and folds."""
        lines = (f"{one}\0{fold}\n" for one, fold in zip(self.train_ids.tolist(), self.folds.tolist(), strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def rows_sha256(self) -> str:
        """SHA-256 over class names and all that the rows say: labels, groups and test ids too."""
        return hashlib.sha256(f"{json.dumps(self.classes)}\n{_rows(self)}".encode()).hexdigest()


def lock_text(lock: Lock) -> str:
    """The content of the file."""
    head = {
        "format": FORMAT,
        "fingerprint": lock.fingerprint,
        "classes": list(lock.classes),
        "validation": dict(lock.validation),
        "train": len(lock.train_ids),
        "test": len(lock.test_ids),
        "fold_sha256": lock.fold_sha256,
        "rows_sha256": lock.rows_sha256,
    }
    return json.dumps(head, ensure_ascii=False) + "\n" + _rows(lock)


def _rows(lock: Lock) -> str:
    """Everything below the first line."""
    lines: list[str] = []
    # The writer quotes only what is in its line's end: it is told of \r, which would else end a line unseen.
    writer = csv.writer(SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n")))
    rows = (lock.train_ids, lock.train_labels, lock.folds, *([] if lock.groups is None else [lock.groups]))
    writer.writerows(zip(*(column.tolist() for column in rows), strict=True))
    writer.writerows([one] for one in lock.test_ids.tolist())
    return "".join(lines)


def write_lock(file: Path, lock: Lock) -> None:
    """Write a lock, unless the file says the same already."""
    content = lock_text(lock).encode()
    if not file.is_file() or file.read_bytes() != content:
        with atomic_write(file) as stream:
            stream.write(content)


def read_lock(file: Path) -> Lock:
    """Read a lock; raises DataError where it is missing, damaged or edited by hand."""
    fix = f"make prepare COMPETITION={file.parent.name}"
    try:
        first, _, rows = file.read_bytes().decode().partition("\n")
    except FileNotFoundError:
        raise DataError("The data are not prepared yet.", file=file, fix=fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("The lock of the data cannot be read.", file=file, found=str(error)) from None
    try:
        head = json.loads(first)
        lock = _parse(head, list(csv.reader(io.StringIO(rows, newline=""))))
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        found = str(error) or type(error).__name__
        raise DataError("Not a lock of the data.", file=file, found=found, fix=f"rm {file} && {fix}") from None
    for key in ("fold_sha256", "rows_sha256"):
        sha256 = getattr(lock, key)
        if head.get(key, sha256) != sha256:  # locks of before have no rows_sha256
            raise DataError(
                "The rows of a lock are not those it was written with.",
                file=file,
                expected=f"{key} {head[key]}",
                found=sha256,
                fix=f"restore {file}, or rm {file} && {fix}",
            )
    return lock


def _parse(head: dict[str, Any], rows: list[list[str]]) -> Lock:
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}; this Podium reads format {FORMAT}")
    if "fold_sha256" not in head:
        raise ValueError("no fold_sha256")
    if len(rows) != head["train"] + head["test"]:
        raise ValueError(f"{len(rows)} rows; expected {head['train']} + {head['test']}")
    train, test = rows[: head["train"]], rows[head["train"] :]
    cells = {len(row) for row in train}
    if len(cells) > 1 or cells - {3, 4} or any(len(row) != 1 for row in test):
        raise ValueError("rows with more or fewer cells than expected")
    ids, labels, folds, *groups = zip(*train, strict=True) if train else ((), (), ())
    lock = Lock(
        fingerprint=head["fingerprint"],
        classes=tuple(head["classes"]),
        train_ids=np.array(ids, str),
        train_labels=np.array(labels, np.int64),
        folds=np.array(folds, np.int64),
        test_ids=np.array([row[0] for row in test], str),
        validation=head["validation"],
        groups=np.array(groups[0], str) if groups else None,
    )
    if train and not 0 <= lock.train_labels.min() <= lock.train_labels.max() < len(lock.classes):
        raise ValueError(f"label indices outside 0 to {len(lock.classes) - 1}")
    return lock
