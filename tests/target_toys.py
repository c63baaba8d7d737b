"""Competitions with other targets than a class, from images and a table on: the brighter an image, the higher."""

import csv
import io

import numpy as np
from PIL import Image

from podium.data.prepare import prepare
from podium.ensemble.write import write_ensemble
from podium.predictions.importing import import_predictions
from podium.report.page import write_report
from podium.submission import check_submission
from podium.workspace import Workspace, open_workspace

ROWS, TESTS = 60, 20
RECIPE = """
architecture = "timm:test_resnet"
epochs = 2
learning_rate = 0.01
batch_size = 16
stored_pixels = 16
"""
SETTINGS = """
title = "toy"
metric = "{metric}"
[data]
source = "csv"
train = "train"
test = "test"
target = "{target}"
{data}
[validation]
{validation}
[submission]
kind = "{kind}"
{submission}
"""


def brightness(rows: int, *, seed: int) -> np.ndarray:
    """The grey of each image (rows,), 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, rows)


def table(columns: dict[str, list]) -> str:
    """A CSV of columns."""
    text = io.StringIO()
    csv.writer(text).writerows([columns, *zip(*columns.values(), strict=True)])
    return text.getvalue()


def write_images(folder, greys: np.ndarray) -> None:
    """Images of 16 x 16 pixels of these greys with noise, called 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    for name, grey in enumerate(greys):
        noise = np.random.default_rng(name).integers(-9, 10, (16, 16, 3))
        Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")


def toy_workspace(root, labels: dict[str, list], *, target: str, metric: str, kind: str, **settings: str) -> Workspace:
    """A prepared competition whose table has the columns `labels` beside the ids."""
    folder = root / "competitions" / "toy"
    folder.mkdir(parents=True)
    parts = {"data": "", "validation": 'kind = "k-fold"\nfolds = 3', "submission": ""} | settings
    (folder / "competition.toml").write_text(SETTINGS.format(target=target, metric=metric, kind=kind, **parts))
    (folder / "tiny.toml").write_text(RECIPE)
    write_images(root / "images" / "train", brightness(ROWS, seed=0))
    write_images(root / "images" / "test", brightness(TESTS, seed=1))
    (root / "images" / "train.csv").write_text(table({"id": list(range(ROWS)), **labels}))
    prepare(open_workspace("toy", root), data=str(root / "images"))
    return open_workspace("toy", root)


def import_runs(
    workspace: Workspace, truths: np.ndarray, tests: np.ndarray, columns: list[str], *, runs=3, scale=1.0
) -> None:
    """Import runs that predict the `truths` (rows, columns) and `tests`, with noise of their own."""
    root = workspace.paths.root
    for run in range(runs):
        draw = np.random.default_rng([7, run])
        files = {}
        for part, values in (("oof", truths), ("test", tests)):
            noisy = values + draw.normal(size=values.shape) * scale
            cells = {name: noisy[:, place].tolist() for place, name in enumerate(columns)}
            files[part] = root / f"{part}{run}.csv"
            files[part].write_text(table({"id": list(range(len(values))), **cells}))
        import_predictions(workspace, f"other{run}.s1", oof=files["oof"], test=files["test"])


def check_everything_after(workspace: Workspace, **options: str) -> tuple[dict[str, list], str]:
    """Write ensemble and report; returns the columns of the submission, which is valid, and the page."""
    written = write_ensemble(workspace, **options)
    settings = workspace.competition.submission
    assert check_submission(written.csv_file, lock=workspace.lock, settings=settings) == []
    page = write_report(workspace).read_text(encoding="utf-8")
    rows = list(csv.DictReader(written.csv_file.read_text().splitlines()))
    return {name: [row[name] for row in rows] for name in rows[0]}, page
