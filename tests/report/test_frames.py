"""podium.load: the frames say what the ensemble says, row by row, and need no torch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import podium
from podium.ensemble.write import write_ensemble
from podium.errors import ConfigError, SubmissionError
from podium.metrics import softmax
from toy_runs import CLASSES, SETTINGS, make_project, random_run, save

ROOT = Path(__file__).parents[2]
RUNS = ("resnet34.s1", "resnet34.s2", "vgg19.s1")


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, [random_run(name, seed=place) for place, name in enumerate(RUNS)])


@pytest.mark.parametrize("strategy", ["accuracy", "greedy", "stack", "best", "auto"])
def test_the_blend_of_the_frames_is_the_blend_of_the_ensemble_and_cross_fitted(tmp_path, strategy):
    settings = f'{SETTINGS}strategy = "{strategy}"\n'
    runs = [random_run(name, seed=place) for place, name in enumerate(RUNS)]
    project = make_project(tmp_path, runs, settings=settings)
    made = write_ensemble(project).result
    frames = podium.load("toy", tmp_path)
    assert frames.predictions["blend"].tolist() == [CLASSES[label] for label in made.cross_fitted.argmax(axis=1)]
    np.testing.assert_array_equal(frames.predictions["blend_probability"], made.cross_fitted.max(axis=1))
    with (project.paths.submissions / "ensemble.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == frames.test.index.tolist()
    assert [row["label"] for row in rows] == frames.test["label"].tolist()
    assert frames.test["probability"].between(1 / 3, 1).all()


def test_each_run_has_its_row_its_columns_and_its_weight(project):
    write_ensemble(project)
    frames = podium.load("toy", project.paths.root)
    record = json.loads((project.paths.submissions / "ensemble.json").read_text())
    assert frames.scores["weight"].to_dict() == pytest.approx({run["run"]: run["weight"] for run in record["runs"]})
    assert frames.scores["accuracy"].is_monotonic_decreasing and set(frames.scores.index) == set(RUNS)
    for place, name in enumerate(RUNS):
        run = random_run(name, seed=place)
        row, column = run.oof_ids.tolist().index("v7"), frames.predictions.loc["v7"]
        probabilities = softmax(run.oof_logits)[row]
        assert column["label"] == run.classes[run.oof_labels[row]]
        assert column[name] == run.classes[probabilities.argmax()]
        assert column[f"{name}_probability"] == pytest.approx(probabilities.max())
        assert frames.scores.loc[name, "architecture"] == name.split(".")[0]
    assert repr(frames) == "podium.load('toy'): .scores .predictions .test .errors"


def test_errors_are_the_mistakes_of_the_blend_by_falling_loss(project):
    write_ensemble(project)
    frames = podium.load("toy", project.paths.root)
    errors, wrong = frames.errors, frames.predictions["blend"] != frames.predictions["label"]
    assert 0 < len(errors) == wrong.sum() and set(errors.index) == set(wrong.index[wrong])
    assert errors["loss"].is_monotonic_decreasing and (errors["loss"] > np.log(2)).all()


def test_frames_need_no_written_ensemble_but_runs(tmp_path):
    project = make_project(tmp_path, [])
    with pytest.raises(SubmissionError, match="no predictions"):
        podium.load("toy", tmp_path).scores  # noqa: B018
    save(project, random_run("densenet121.s1", seed=9))
    assert list(podium.load("toy", tmp_path).scores.index) == ["densenet121.s1"]
    with pytest.raises(ConfigError, match="COMPETITION=toy"):
        podium.load("tyo", project.paths.root)


def test_podium_load_imports_no_torch():
    code = (
        "import sys, podium; first = 'pandas' in sys.modules; podium.load('cifar10-scratch').errors; "
        "print(first, [name for name in ('torch', 'fastai', 'sklearn') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "False []", done.stderr


def test_the_notebook_runs_on_the_committed_predictions_and_is_committed_without_outputs(monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "notebooks" / "look.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    shown = [cell.outputs[-1]["data"]["text/plain"] for cell in cells]
    assert "fastnet-deep.s1" in shown[0] and "cat" in shown[1] and "loss" in shown[2]
