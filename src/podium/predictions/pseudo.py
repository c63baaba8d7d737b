"""Pseudo-labels: test images with the labels that the blend gives them, for recipes that also train on these images."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from podium.errors import DataError, SubmissionError, examples
from podium.files import DAMAGE, os_error_as, read_json, write_file
from podium.lock import Lock
from podium.plan.stamp import ensemble_is_fresh
from podium.predictions.align import load_runs
from podium.targets.target import LARGEST_NUMBER, Target
from podium.workspace import Workspace

# The confidence in a grade or a number is measured on so many validation rows.
MEASURED_ROWS = 50
# Of m test images: labels (m, ...), confidences (m,), and errors to expect (m,): wrong labels, of a number its square.
Judgement = tuple[np.ndarray, np.ndarray, np.ndarray]


class PseudoLabels(NamedTuple):
    """Rows of the lock's test images, (p,), and their labels as the target has them, (p, ...)."""

    rows: np.ndarray
    labels: np.ndarray


def write_pseudo_labels(workspace: Workspace, threshold: float) -> tuple[Path, PseudoLabels, str]:
    """Write the test images for which the blend's confidence in its label is `threshold` or more.

    Returns the file, `submissions/<competition>/pseudo.csv`, its content, and for people the errors to expect in it.
    Raises SubmissionError where the blend is stale, or is less sure of every image.
    """
    paths, lock, target = workspace.paths, workspace.lock, workspace.lock.target
    if not len(lock.test_ids):
        raise SubmissionError("Pseudo-labels are for test images.", file=paths.settings_file, found="no test images")
    if not ensemble_is_fresh(paths, workspace.competition):
        raise SubmissionError(
            "There is no blend of the present runs and settings.",
            file=paths.submissions / "ensemble.csv",
            fix=f"make ensemble COMPETITION={workspace.name}",
        )
    record = read_json(paths.submissions / "ensemble.json")
    with np.load(paths.submissions / "ensemble.probabilities.npz", allow_pickle=False) as blend:
        probabilities = blend["probabilities"]  # in the order of the lock, as the stamp has its hash
    judge = _judge_probabilities if target.has_probabilities else _judge_numbers
    labels, confidences, errors = judge(workspace, record, probabilities.astype(np.float64))
    sure = np.flatnonzero(confidences >= threshold)
    if not len(sure):
        raise SubmissionError(
            "The blend is less sure of every test image.",
            expected=f"a confidence of {threshold:g} or more",
            found=f"{confidences.max():.4f} at most",
            fix="a lower THRESHOLD=",
        )
    pseudo, text, file = PseudoLabels(sure, labels[sure]), io.StringIO(newline=""), paths.submissions / "pseudo.csv"
    texts = [[target.label_text(label, lock.classes)] for label in pseudo.labels]
    cells = pseudo.labels.tolist() if target.has_columns else texts
    rows = [[id_, *row] for id_, row in zip(lock.test_ids[sure].tolist(), cells, strict=True)]
    csv.writer(text, lineterminator="\n").writerows([_header(lock), *rows])
    write_file(file, text.getvalue().encode())
    if target.has_classes:
        return file, pseudo, f"{errors[sure].sum():.0f} of their {pseudo.labels.size:,} labels are probably wrong"
    rmse, rmse_of_all = np.sqrt([errors[sure].mean(), errors.mean()])
    return file, pseudo, f"their rmse is probably about {rmse:.4g}, that of all test images {rmse_of_all:.4g}"


def _judge_probabilities(workspace: Workspace, record: dict[str, Any], probabilities: np.ndarray) -> Judgement:
    """By the probability of the class; of columns, by that of the least certain one.

    The blend's probabilities of columns are shifted, so that F1's cut points are at 1/2: this is undone.
    """
    target, largest = workspace.lock.target, probabilities.max(axis=1, keepdims=True)
    if target.has_columns:
        yes = probabilities * np.exp(record.get("cut_points", 0.0))
        probabilities = yes / (yes + 1 - probabilities)
        largest = np.maximum(probabilities, 1 - probabilities)
    return target.predicted_labels(probabilities), largest.min(axis=1), (1 - largest).sum(axis=1)


def _judge_numbers(workspace: Workspace, record: dict[str, Any], predicted: np.ndarray) -> Judgement:
    """By validation rows that are like an image: of similar numbers if there are grades, else of similar agreement.

    The confidence in a grade is the share of these rows that have it. The confidence in a number is their R2, where the
    numbers of the blend's runs have a similar variance for them.
    """
    runs, target = load_runs(workspace), workspace.lock.target
    weight_of = {run["run"]: run["weight"] for run in record["runs"] if run["weight"]}
    members = [place for place, run in enumerate(runs.runs) if run in weight_of]
    weights = np.array([weight_of[runs.runs[place]] for place in members])
    tests, known = runs.test_logits[members, :, 0], runs.oof_logits[members, :, 0]
    labels, truth, blended = target.predicted_labels(predicted), runs.oof_labels, weights @ known
    if target.has_classes:
        shares = _means_around(weights @ tests, blended, np.eye(target.classes)[truth])
        confidences = shares[np.arange(len(labels)), labels]
        return labels, confidences, 1 - confidences
    if len(members) < 2:
        raise SubmissionError(
            "The confidence in a number is measured by how much the runs of the blend agree.",
            expected="two or more runs in the blend",
            found=str(len(members)),
            fix='train more runs, and strategy = "uniform" or "log-loss" under [ensemble]',
        )
    errors = _means_around(tests.var(axis=0), known.var(axis=0), np.square(blended - truth)[:, None])[:, 0]
    return labels, 1 - errors / (truth.var() or 1), errors


def _means_around(places: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The means (m, k) of `values` (n, k) over MEASURED_ROWS rows, those whose `known` (n,) are around a place (m,)."""
    order, count = np.argsort(known, kind="stable"), min(MEASURED_ROWS, len(known))
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(values[order], axis=0)])
    first = np.clip(np.searchsorted(known[order], places) - count // 2, 0, len(known) - count)
    return (sums[first + count] - sums[first]) / count


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
        header, *rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True)) or [[]]
    except DAMAGE as error:
        raise DataError("Not a table of pseudo-labels.", file=file, found=str(error), fix=fix) from None
    places = {id_: row for row, id_ in enumerate(lock.test_ids.tolist())}
    texts_of_names = {name: str(label) for label, name in enumerate(lock.classes)}
    faults, known = [], {}
    for line, (id_, *cells) in enumerate((row or [""] for row in rows), 2):
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
