"""`data.lock`: ids, labels and folds of a competition, without the images; committed with its settings.

A text file with readable differences: one line of JSON, then `id,label,fold[,group]` for each labelled row, then one
test id a line. A label is the index of a class, or a digit, 0 or 1, for each of several columns. Only NumPy is
imported, because the ensemble and `podium check` read it.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from podium.errors import DataError
from podium.files import DAMAGE, write_file
from podium.targets.target import Target

FORMAT = 1
# The ids of external data, of [data] extra, begin so; no other id may.
EXTRA = "extra:"


@dataclass(frozen=True)
class Lock:
    """Ids, labels and folds of a competition: n labelled rows sorted by id, m others in submission order."""

    fingerprint: str
    classes: tuple[str, ...]
    train_ids: np.ndarray  # (n,) str
    train_labels: np.ndarray  # (n,) int64; (n, columns) uint8 of a multi-label target
    folds: np.ndarray  # (n,) int64: the fold whose model is validated on the row; -1: only used for training
    test_ids: np.ndarray  # (m,) str
    validation: Mapping[str, Any] = field(default_factory=dict)  # the settings that decided the folds
    groups: np.ndarray | None = None  # (n,) str: rows of one group stay in one fold
    target_name: str = "class"
    files: Mapping[str, str] = field(default_factory=dict)  # downloaded file -> its digest; decides no prediction

    @cached_property
    def target(self) -> Target:
        """What the labels are."""
        return Target(self.target_name, len(self.classes))

    @property
    def is_extra(self) -> np.ndarray:
        """Which labelled rows are external data, (n,): they train in every fold."""
        return np.char.startswith(self.train_ids.astype(str), EXTRA)

    @cached_property
    def fold_sha256(self) -> str:
        """SHA-256 over ids and folds."""
        lines = (f"{id_}\0{fold}\n" for id_, fold in zip(self.train_ids.tolist(), self.folds.tolist(), strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def changed_files(self, digests: Mapping[str, str]) -> list[str]:
        """The names of files whose digest is another one than that of the files this lock was made from."""
        return [name for name, digest in digests.items() if digest != self.files.get(name, digest)]

    @property
    def unvalidated_classes(self) -> tuple[str, ...]:
        """The classes that no validation row has."""
        shares = self.target.shares(self.train_labels[self.folds >= 0])
        return tuple(name for name, share in zip(self.classes, shares, strict=True) if not share)


def lock_text(lock: Lock) -> str:
    """The content of `data.lock`."""
    lines: list[str] = []
    # csv.writer quotes \r only if the line terminator contains it, and an unquoted \r would end a line.
    writer = csv.writer(SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n")))
    groups = [] if lock.groups is None else [lock.groups.tolist()]
    labels = lock.target.lock_texts(lock.train_labels)
    writer.writerows(zip(lock.train_ids.tolist(), labels, lock.folds.tolist(), *groups, strict=True))
    writer.writerows([id_] for id_ in lock.test_ids.tolist())
    rows = "".join(lines)
    head = {
        "format": FORMAT,
        "fingerprint": lock.fingerprint,
        "classes": list(lock.classes),
        **({} if lock.target_name == "class" else {"target": lock.target_name}),  # older locks have none
        "validation": dict(lock.validation),
        "train": len(lock.train_ids),
        "test": len(lock.test_ids),
        "fold_sha256": lock.fold_sha256,
        "rows_sha256": _rows_sha256(lock.classes, rows),
        **({"files": dict(lock.files)} if lock.files else {}),
    }
    return json.dumps(head, ensure_ascii=False) + "\n" + rows


def _rows_sha256(classes: Sequence[str], rows: str) -> str:
    """SHA-256 over class names, and over ids, labels, folds, groups and test ids."""
    return hashlib.sha256(f"{json.dumps(classes)}\n{rows}".encode()).hexdigest()


def write_lock(file: Path, lock: Lock) -> None:
    """Write a lock, unless the file has the same content."""
    content = lock_text(lock).encode()
    if not file.is_file() or file.read_bytes() != content:
        write_file(file, content)


def read_lock(file: Path) -> Lock:
    """Read a lock; raises DataError where it is missing, damaged or edited by hand, OSError where it is unreadable."""
    fix = f"make prepare COMPETITION={file.parent.name}"
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise DataError("The data are not prepared yet.", file=file, fix=fix) from None
    try:
        first, _, rows = content.decode().partition("\n")
        head = json.loads(first)
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']}; this Podium reads format {FORMAT}")
        if head["rows_sha256"] != _rows_sha256(head["classes"], rows):
            raise ValueError("its classes or rows were changed after it was written")
        return _parse(head, list(csv.reader(io.StringIO(rows, newline=""))))
    except DAMAGE as error:
        found, fix = str(error) or type(error).__name__, f"restore {file}, or rm {file} && {fix}"
        raise DataError("Not a data.lock file as Podium wrote it.", file=file, found=found, fix=fix) from None


def _parse(head: dict[str, Any], rows: list[list[str]]) -> Lock:
    train, test = rows[: head["train"]], rows[head["train"] :]
    if len(test) != head["test"]:
        raise ValueError(f"{len(rows)} rows; expected {head['train']} + {head['test']}")
    ids, labels, folds, *groups = zip(*train, strict=True) if train else ((), (), ())
    target_name = head.get("target", "class")
    return Lock(
        fingerprint=head["fingerprint"],
        classes=tuple(head["classes"]),
        train_ids=np.array(ids, str),
        train_labels=Target(target_name, len(head["classes"])).read_lock_texts(labels),
        folds=np.array(folds, np.int64),
        test_ids=np.array([id_ for (id_,) in test], str),
        validation=head["validation"],
        groups=np.array(groups[0], str) if groups else None,
        target_name=target_name,
        files={name: str(digest) for name, digest in head.get("files", {}).items()},
    )
