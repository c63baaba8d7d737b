"""What a kernel left is held against its manifest, the plan and the lock before it enters oof/."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fake.server import FakeServer
from fake.state import State

from kernel_bench import KernelHouse
from podium.errors import KaggleError
from podium.kaggle.notebooks.import_output import damaged, read_manifest, take_in
from podium.predictions.artefact import save_predictions


@pytest.fixture
def house(tmp_path):
    with FakeServer(State("", lambda _: None)) as server:
        yield KernelHouse(tmp_path, server)


def left(house, **options):
    """The output's folder, as it was fetched."""
    folder = house.folder / "output"
    for name, content in house.output("abc", **options).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def taken(house, folder):
    return take_in(house.project, "tiny", folder, read_manifest(folder))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ('{"trained": [', "Expecting value"),
        ("[]", "list indices"),
        ('{"trained": [1], "failed": [], "left": [], "files": {}}', "other values"),
    ],
)
def test_a_manifest_that_is_cut_or_none_is_refused(tmp_path, text, told):
    if text is not None:
        (tmp_path / "podium-output.json").write_text(text)
    with pytest.raises(KaggleError, match="has no manifest") as refusal:
        read_manifest(tmp_path)
    assert told in refusal.value.found


def test_a_file_that_is_missing_or_has_another_byte_is_damaged(house):
    folder = left(house, runs=("net.s1",))
    assert damaged(folder, read_manifest(folder)) == []
    (folder / "oof/tiny/net.s1.npz").unlink()
    (folder / "reports/tiny/history/net.s1.csv").write_bytes(b"epoch\n2\n")
    assert damaged(folder, read_manifest(folder)) == ["oof/tiny/net.s1.npz", "reports/tiny/history/net.s1.csv"]


def test_a_run_that_no_recipe_makes_is_refused(house):
    folder = left(house, runs=("net.s1",))
    manifest = read_manifest(folder) | {"trained": ["other.s1"]}
    assert take_in(house.project, "tiny", folder, manifest).refused == {"other.s1": "no recipe here makes it"}


def test_a_file_that_speaks_of_another_run_is_refused(house):
    folder = left(house, runs=("net.s1",), run="net.s2")
    assert taken(house, folder).refused == {"net.s1": "it says of itself that it is net.s2"} and house.oof == []


@pytest.mark.parametrize("key", ["fingerprint", "fold_sha256"])
def test_a_run_on_other_data_or_folds_is_refused(house, key):
    folder = left(house, runs=("net.s1",), **{key: "another"})
    assert f"{key} another instead of" in taken(house, folder).refused["net.s1"] and house.oof == []


def test_a_run_with_other_rows_or_classes_is_refused(house):
    folder, one = left(house, runs=("net.s1",)), house.predictions("net.s1")
    names = tuple(f"digit {name}" for name in one.classes)
    save_predictions(folder / "oof/tiny/net.s1.npz", replace(one, classes=names))
    assert "classes digit 0" in taken(house, folder).refused["net.s1"]
    ids = np.array([f"other-{name}" for name in one.test_ids])
    save_predictions(folder / "oof/tiny/net.s1.npz", replace(one, test_ids=ids))
    assert "lack test ids: 500" in taken(house, folder).refused["net.s1"] and house.oof == []


def test_a_file_that_is_no_predictions_is_refused(house):
    folder = left(house, runs=("net.s1",))
    (folder / "oof/tiny/net.s1.npz").write_bytes(b"no zip")
    assert "BadZipFile" in taken(house, folder).refused["net.s1"]


def test_a_run_that_started_from_another_weights_file_is_refused(house):
    recipe = house.project.competition_folder("tiny") / "net.toml"
    recipe.write_text('pretrained = "net.pth"\n' + recipe.read_text())
    (house.folder / "net.pth").write_bytes(b"weights")
    folder = left(house, runs=("net.s1",), weights_sha256="another")
    assert taken(house, folder).refused == {"net.s1": "it started from another weights file"}


def test_a_run_without_a_history_is_taken_in_all_the_same(house):
    folder = left(house, runs=("net.s1",))
    (folder / "reports/tiny/history/net.s1.csv").unlink()
    assert taken(house, folder).taken == ("net.s1",) and house.oof == ["net.s1"]
    assert json.loads((folder / "podium-output.json").read_text())["push"] == "abc"
