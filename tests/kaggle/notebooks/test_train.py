"""A notebook's output is checked against its manifest, the plan and the lock before it enters oof/."""

import json
from dataclasses import replace

import numpy as np
import pytest

from podium.kaggle.notebooks.follow import read_manifest
from podium.kaggle.notebooks.train import import_output
from podium.predictions.artefact import save_predictions


def output_folder(toy, **options):
    """The downloaded output."""
    folder = toy.folder / "output"
    for name, content in toy.output("abc", **options).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def imported(toy, folder):
    manifest = json.loads((folder / "podium-output.json").read_text())
    return import_output(toy.workspace, folder, manifest)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "No such file"),
        ('{"trained": [', "Expecting value"),
        ("[]", "list indices"),
        ('{"trained": []}', "files"),
        ('{"files": []}', "items"),
    ],
)
def test_a_missing_or_damaged_manifest_is_refused(tmp_path, text, found):
    if text is not None:
        (tmp_path / "podium-output.json").write_text(text)
    manifest, (fault,) = read_manifest(tmp_path)
    assert manifest == {} and "has no manifest" in fault and found in fault


def test_a_file_that_is_missing_or_has_another_byte_is_damaged(toy):
    folder = output_folder(toy, runs=("net.s1",))
    manifest, faults = read_manifest(folder)
    assert manifest["trained"] == ["net.s1"] and faults == []
    (folder / "oof/tiny/net.s1.npz").unlink()
    (folder / "reports/tiny/history/net.s1.csv").write_bytes(b"epoch\n2\n")
    damaged = ("oof/tiny/net.s1.npz", "reports/tiny/history/net.s1.csv")
    assert read_manifest(folder)[1] == [f"{name}: not as the notebook wrote it" for name in damaged]


def test_a_run_that_no_recipe_has_is_refused(toy):
    folder = output_folder(toy, runs=("net.s1",))
    manifest = read_manifest(folder)[0] | {"trained": ["other.s1"]}
    assert import_output(toy.workspace, folder, manifest).refused == {"other.s1": "no recipe here has this run"}


@pytest.mark.parametrize("key", ["fingerprint", "fold_sha256"])
def test_a_run_on_other_data_or_folds_is_refused(toy, key):
    folder = output_folder(toy, runs=("net.s1",), **{key: "another"})
    assert f"{key}: expected" in imported(toy, folder).refused["net.s1"] and toy.oof == []


def test_a_run_with_other_rows_or_classes_is_refused(toy):
    folder, predictions = output_folder(toy, runs=("net.s1",)), toy.predictions("net.s1")
    names = tuple(f"digit {name}" for name in predictions.classes)
    save_predictions(folder / "oof/tiny/net.s1.npz", replace(predictions, classes=names))
    assert "found digit 0" in imported(toy, folder).refused["net.s1"]
    ids = np.array([f"other-{name}" for name in predictions.test_ids])
    save_predictions(folder / "oof/tiny/net.s1.npz", replace(predictions, test_ids=ids))
    assert "500 test ids are missing" in imported(toy, folder).refused["net.s1"] and toy.oof == []


def test_a_file_that_is_not_predictions_is_refused(toy):
    folder = output_folder(toy, runs=("net.s1",))
    (folder / "oof/tiny/net.s1.npz").write_bytes(b"no zip")
    assert "BadZipFile" in imported(toy, folder).refused["net.s1"]


def test_a_run_that_started_from_another_weights_file_is_refused(toy):
    recipe = toy.home / "net.toml"
    recipe.write_text('pretrained = "net.pth"\n' + recipe.read_text())
    (toy.folder / "net.pth").write_bytes(b"weights")
    folder = output_folder(toy, runs=("net.s1",), weights_sha256="another")
    assert imported(toy, folder).refused == {"net.s1": "its recipe, seed, weights or data changed since the push"}


def test_a_run_without_a_history_is_imported(toy):
    folder = output_folder(toy, runs=("net.s1",))
    (folder / "reports/tiny/history/net.s1.csv").unlink()
    assert imported(toy, folder).imported == ("net.s1",) and toy.oof == ["net.s1"]
    assert json.loads((folder / "podium-output.json").read_text())["push"] == "abc"
