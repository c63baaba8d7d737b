"""Pseudo-labels: test images with the labels that the blend gives them, for recipes that also train on these images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from podium.errors import DataError, SubmissionError, examples
from podium.files import os_error_as, read_json, write_file
from podium.lock import Lock
from podium.plan.stamp import ensemble_is_fresh
from podium.targets.target import LARGEST_NUMBER, Target
from podium.text import csv_rows, csv_text
from podium.workspace import Workspace


class PseudoLabels(NamedTuple):
    """Rows of the lock's test images, (p,), and their labels as the target has them, (p, ...)."""

    rows: np.ndarray
    labels: np.ndarray


def write_pseudo_labels(workspace: Workspace, threshold: float) -> tuple[Path, PseudoLabels, float]:
    """Write the test images of which the blend's probability of each label is `threshold` or more.

    Returns the file, `submissions/<competition>/pseudo.csv`, its content, and how many labels in it are probably wrong.
    Raises SubmissionError where there are no test images or no probabilities, the blend is stale, or it is less sure of
    every image.
    """
    paths, lock, target = workspace.paths, workspace.lock, workspace.lock.target
    if not len(lock.test_ids):
        raise SubmissionError("Pseudo-labels are for test images.", file=paths.settings_file, found="no test images")
    if not target.has_probabilities:
        what, fix = "A grade or a number has no probability.", "write a table of ids and labels yourself"
        expected, found = '[data] target = "class" or "multi-label"', f'"{target.name}"'
        raise SubmissionError(what, file=paths.settings_file, expected=expected, found=found, fix=fix)
    if not ensemble_is_fresh(paths, workspace.competition):
        raise SubmissionError(
            "There is no blend of the present runs and settings.",
            file=paths.submissions / "ensemble.csv",
            fix=f"make ensemble COMPETITION={workspace.name}",
        )
    probabilities = _blend_probabilities(workspace)
    # Of each label, or else of the one class.
    largest = np.maximum(probabilities, 1 - probabilities) if target.has_columns else probabilities.max(axis=1)[:, None]
    confidences = largest.min(axis=1)
    sure = np.flatnonzero(confidences >= threshold)
    if not len(sure):
        raise SubmissionError(
            "The blend is less sure of every test image.",
            expected=f"a confidence of {threshold:g} or more",
            found=f"{confidences.max():.4f} at most",
            fix="a lower THRESHOLD=",
        )
    labels, file = target.predicted_labels(probabilities)[sure], paths.submissions / "pseudo.csv"
    cells = labels.tolist() if target.has_columns else [[lock.classes[label]] for label in labels]
    rows = [[id_, *row] for id_, row in zip(lock.test_ids[sure].tolist(), cells, strict=True)]
    write_file(file, csv_text([_header(lock), *rows]).encode())
    return file, PseudoLabels(sure, labels), float((1 - largest)[sure].sum())


def _blend_probabilities(workspace: Workspace) -> np.ndarray:
    """The probabilities (m, classes) of the blend of test images, before F1's cut points shift them to 1/2."""
    paths = workspace.paths
    with np.load(paths.submissions / "ensemble.probabilities.npz", allow_pickle=False) as blend:
        probabilities = blend["probabilities"].astype(np.float64)  # in the order of the lock, as the stamp has its hash
    if not workspace.lock.target.has_columns:
        return probabilities
    yes = probabilities * np.exp(read_json(paths.submissions / "ensemble.json").get("cut_points", 0.0))
    return yes / (yes + 1 - probabilities)


def read_pseudo_labels(root: Path, name: str, lock: Lock) -> PseudoLabels:
    """The pseudo-labels in the table `name` below `root`, by id; none where the name is empty.

    Raises DataError for a table that does not fit the competition.
    """
    if not name:
        return PseudoLabels(np.zeros(0, np.int64), lock.train_labels[:0])
    file, fix, expected = root / name, "make pseudo, or correct `pseudo_labels` in the recipe", _header(lock)
    with os_error_as(DataError, "The pseudo-labels cannot be read.", file=file, fix=fix):
        content = file.read_bytes()
    try:
        (_, header), *rows = [*csv_rows(content)] or [(1, [])]
    except ValueError as error:
        raise DataError("Not a table of pseudo-labels.", file=file, found=str(error), fix=fix) from None
    places = {id_: row for row, id_ in enumerate(lock.test_ids.tolist())}
    texts_of_names = {name: str(label) for label, name in enumerate(lock.classes)}
    faults, known = [], {}
    for line, row in rows:
        id_, *cells = row or [""]
        text = _lock_text(cells, lock.target, texts_of_names) if len(cells) == len(expected) - 1 else ""
        if not text or id_ not in places or places[id_] in known:
            faults.append(f"line {line}: {','.join([id_, *cells])}")
        else:
            known[places[id_]] = text
    if faults or header != expected or not rows:
        cells = {"multi-label": "0 or 1 in each column", "number": "a number"}.get(lock.target_name, "names of classes")
        raise DataError(
            "These pseudo-labels do not fit the competition.",
            file=file,
            expected=f"{examples(expected)}; then test ids, each once, with {cells}",
            found=None if header == expected and rows else ",".join(header) or "no header",
            faults=faults,
            fix=fix,
        )
    return PseudoLabels(np.array([*known], np.int64), lock.target.read_lock_texts([*known.values()]))


def _header(lock: Lock) -> list[str]:
    return ["id", *(lock.classes if lock.target.has_columns else ["label"])]


def _lock_text(cells: Sequence[str], target: Target, texts_of_names: Mapping[str, str]) -> str:
    """What data.lock has for the label in these cells; empty if it is none."""
    if target.has_columns:
        return "".join(cells) if {*cells} <= {"0", "1"} else ""
    if target.has_classes:
        return texts_of_names.get(cells[0], "")
    with suppress(ValueError):
        return cells[0] if abs(float(cells[0])) <= LARGEST_NUMBER else ""
    return ""
