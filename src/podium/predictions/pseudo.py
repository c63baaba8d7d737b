"""Pseudo-labels: test images with the labels that the blend gives them, for recipes that also train on these images."""

from pathlib import Path

import numpy as np

from podium.errors import SubmissionError
from podium.files import read_json, write_file
from podium.plan.stamp import ensemble_is_fresh
from podium.text import csv_text
from podium.workspace import Workspace


def write_pseudo_labels(workspace: Workspace, threshold: float) -> tuple[Path, tuple[np.ndarray, np.ndarray], float]:
    """Write the test images of which the blend's probability of each label is `threshold` or more.

    Returns the file, `submissions/<competition>/pseudo.csv`, the rows of the lock's test images in it and their labels,
    and how many labels are probably wrong.
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
    header = ["id", *(lock.classes if target.has_columns else ["label"])]
    write_file(file, csv_text([header, *rows]).encode())
    return file, (sure, labels), float((1 - largest)[sure].sum())


def _blend_probabilities(workspace: Workspace) -> np.ndarray:
    """The probabilities (m, classes) of the blend of test images, before F1's cut points shift them to 1/2."""
    paths = workspace.paths
    with np.load(paths.submissions / "ensemble.probabilities.npz", allow_pickle=False) as blend:
        probabilities = blend["probabilities"].astype(np.float64)  # in the order of the lock, as the stamp has its hash
    if not workspace.lock.target.has_columns:
        return probabilities
    yes = probabilities * np.exp(read_json(paths.submissions / "ensemble.json").get("cut_points", 0.0))
    return yes / (yes + 1 - probabilities)
