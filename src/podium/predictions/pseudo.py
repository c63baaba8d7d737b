"""Pseudo-labels: test images with the class that the blend gives them, for recipes that also train on these images."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.errors import DataError, SubmissionError
from podium.files import DAMAGE, os_error_as, write_file
from podium.lock import Lock
from podium.plan.stamp import ensemble_is_fresh
from podium.workspace import Workspace

HEADER = ["id", "label"]


class PseudoLabels(NamedTuple):
    """Rows of the lock's test images, (p,), and their classes as labels, (p,)."""

    rows: np.ndarray
    labels: np.ndarray

    def added_to(self, values: np.ndarray, value: int) -> np.ndarray:
        """The values (n,) of the labelled rows, and `value` for each pseudo-label: (n + p,)."""
        return np.concatenate([values, np.full(len(self.rows), value, values.dtype)])


def write_pseudo_labels(workspace: Workspace, threshold: float) -> tuple[Path, np.ndarray, float]:
    """Write the test images whose most probable class has at least the probability `threshold` in the blend.

    Returns the file, `submissions/<competition>/pseudo.csv`, the number of images of each class, (classes,), and how
    many of them the blend expects to be wrong. Raises SubmissionError where the blend is stale, or none is that sure.
    """
    paths, lock = workspace.paths, workspace.lock
    if lock.target_name != "class" or not len(lock.test_ids):
        what = 'Pseudo-labels are for [data] target = "class", and for test images.'
        found = f'target = "{lock.target_name}", {len(lock.test_ids):,} test images'
        raise SubmissionError(what, file=paths.settings_file, found=found)
    if not ensemble_is_fresh(paths, workspace.competition):
        raise SubmissionError(
            "There is no blend of the present runs and settings.",
            file=paths.submissions / "ensemble.csv",
            fix=f"make ensemble COMPETITION={workspace.name}",
        )
    with np.load(paths.submissions / "ensemble.probabilities.npz", allow_pickle=False) as blend:
        ids, probabilities = blend["ids"], blend["probabilities"]  # in the order of the lock, as the stamp has its hash
    largest = probabilities.max(axis=1)
    sure = largest >= threshold
    if not sure.any():
        raise SubmissionError(
            "The blend is less sure of every test image.",
            expected=f"a probability of {threshold:g} or more",
            found=f"{largest.max():.4f} at most",
            fix="a lower THRESHOLD=",
        )
    labels = probabilities[sure].argmax(axis=1)
    text = io.StringIO(newline="")
    names = [lock.classes[label] for label in labels]
    csv.writer(text, lineterminator="\n").writerows([HEADER, *zip(ids[sure].tolist(), names, strict=True)])
    file = paths.submissions / "pseudo.csv"
    write_file(file, text.getvalue().encode())
    return file, np.bincount(labels, minlength=len(lock.classes)), float((1 - largest[sure]).sum())


def read_pseudo_labels(root: Path, name: str, lock: Lock) -> PseudoLabels:
    """The pseudo-labels in the table `name` below `root`, by id; none where the name is empty.

    Raises DataError for a table that does not fit the competition.
    """
    if not name:
        return PseudoLabels(np.zeros(0, np.int64), np.zeros(0, np.int64))
    file, fix = root / name, "make pseudo, or correct `pseudo_labels` in the recipe"
    with os_error_as(DataError, "The pseudo-labels cannot be read.", file=file, fix=fix):
        content = file.read_bytes()
    try:
        header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True)) or [[]]
    except DAMAGE as error:
        raise DataError("Not a table of pseudo-labels.", file=file, found=str(error), fix=fix) from None
    places = {id_: row for row, id_ in enumerate(lock.test_ids.tolist())}
    labels = {class_name: label for label, class_name in enumerate(lock.classes)}
    faults, known = [], {}
    for line, row in enumerate(rows, 2):
        if len(row) != 2 or row[0] not in places or row[1] not in labels or places[row[0]] in known:
            faults.append(f"line {line}: {','.join(row)}")
        else:
            known[places[row[0]]] = labels[row[1]]
    if faults or header != HEADER or not rows:
        raise DataError(
            "These pseudo-labels do not fit the competition.",
            file=file,
            expected="id,label, then test ids, each once, with names of classes",
            found=None if header == HEADER and rows else ",".join(header) or "no header",
            faults=faults,
            fix=fix,
        )
    return PseudoLabels(np.array([*known], np.int64), np.array([*known.values()], np.int64))
