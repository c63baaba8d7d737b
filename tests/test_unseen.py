"""The submission of a test set that was not there at training: larger, empty, damaged, of other sizes."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from podium.cli.app import main
from podium.config.keys import Submission
from podium.data.prepare import prepare
from podium.ensemble.write import write_ensemble
from podium.errors import DataError
from podium.submission import read_probabilities
from podium.training.run import train_run
from podium.unseen import predict_submission
from podium.workspace import open_workspace

SETTINGS = """
title = "pets"
[data]
source = "folders"
archive = "pets"
sample_submission = "sample.csv"
[validation]
rows = 12
"""
RECIPE = """
architecture = "timm:test_resnet"
epochs = 1
learning_rate = 0.01
batch_size = 8
stored_pixels = 16
"""
IDS = ("t3", "t1", "t2", "t10")


def draw(file, value, *, size=(16, 16)):
    pixels = np.random.default_rng(value).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def write_sample(folder, ids):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sample.csv").write_text("".join(f"{row}\n" for row in ["id,label", *(f"{id_},cat" for id_ in ids)]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The competition `pets`, with one run and its ensemble."""
    folder = tmp_path_factory.mktemp("unseen")
    data = folder / "data" / "pets"
    for row in range(40):
        draw(data / "train" / ("dog" if row % 4 else "cat") / f"{row}.png", row)
    for number, id_ in enumerate(IDS):
        draw(data / "test" / f"{id_}.png", 100 + number)
    write_sample(data, IDS)
    settings = folder / "competitions" / "pets"
    settings.mkdir(parents=True)
    (settings / "competition.toml").write_text(SETTINGS)
    (settings / "tiny.toml").write_text(RECIPE)
    prepare(open_workspace("pets", folder))
    workspace = open_workspace("pets", folder)
    train_run(workspace, workspace.runs[0])
    write_ensemble(workspace)
    return workspace


def predicted(workspace, place, file):
    """The rows of the CSV, without its header, and the notes."""
    notes = []
    count = predict_submission(workspace, str(place), file, note=notes.append)
    header, *rows = file.read_text().splitlines()
    assert header == "id,label" and len(rows) == count
    return rows, notes


def test_the_visible_test_images_give_the_csv_of_the_ensemble(trained, tmp_path):
    rows, notes = predicted(trained, trained.paths.root / "data" / "pets", tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes() == (trained.paths.submissions / "ensemble.csv").read_bytes()
    assert [row.split(",")[0] for row in rows] == list(IDS) and notes == []


def test_probabilities_are_those_of_the_ensemble(trained, tmp_path):
    settings = Submission(kind="probabilities")
    workspace = replace(trained, competition=replace(trained.competition, metric="log_loss", submission=settings))
    (workspace.paths.root / "data" / "columns" / "test").parent.mkdir(exist_ok=True)
    place = workspace.paths.root / "data" / "columns"
    shutil.copytree(workspace.paths.root / "data" / "pets" / "test", place / "test", dirs_exist_ok=True)
    (place / "sample.csv").write_text("id,cat,dog\n" + "".join(f"{id_},0.5,0.5\n" for id_ in IDS))
    expected = write_ensemble(workspace, out="columns").csv_file
    predict_submission(workspace, str(place), tmp_path / "submission.csv", note=print)
    values = [
        read_probabilities(file, lock=trained.lock, settings=settings)
        for file in (expected, tmp_path / "submission.csv")
    ]
    assert values[1] == pytest.approx(values[0], abs=1e-5) and values[0].std() > 1e-3
    write_ensemble(trained)


def test_a_hidden_test_set_may_have_other_images_sizes_order_and_faults(trained, tmp_path):
    hidden = tmp_path / "hidden"  # without labelled images
    ids = [f"h{number}" for number in range(30)]
    for number, id_ in enumerate(ids):
        draw(hidden / "test" / f"{id_}.png", 200 + number, size=(9 + number, 40 - number))
    Image.new("L", (300, 2)).save(hidden / "test" / "grey.tif")
    (hidden / "test" / "cut.png").write_bytes((hidden / "test" / "h0.png").read_bytes()[:80])
    (hidden / "test" / "notes.doc").write_text("not an image")
    order = ["cut", *ids[::-1], "absent", "grey"]
    write_sample(hidden, order)
    rows, notes = predicted(trained, hidden, tmp_path / "submission.csv")
    assert [row.split(",")[0] for row in rows] == order
    labels = dict(row.split(",") for row in rows)
    assert labels["cut"] == labels["absent"] == "dog"  # three of four labelled images
    assert any("2 of 33 images are missing or damaged" in note for note in notes)
    assert any(note.startswith("2 faults of the test files") for note in notes)


def test_an_empty_test_set_gives_a_header(trained, tmp_path):
    (tmp_path / "hidden" / "test").mkdir(parents=True)
    write_sample(tmp_path / "hidden", [])
    assert predicted(trained, tmp_path / "hidden", tmp_path / "submission.csv")[0] == []


def test_without_a_sample_the_ids_are_those_of_the_files(trained, tmp_path):
    for name in ("10", "9", "2"):
        draw(tmp_path / "hidden" / "test" / f"{name}.png", int(name))
    rows, _ = predicted(trained, tmp_path / "hidden", tmp_path / "submission.csv")
    assert [row.split(",")[0] for row in rows] == ["2", "9", "10"]


def test_a_place_without_a_part_for_the_test_is_refused(trained, tmp_path):
    (tmp_path / "hidden" / "others").mkdir(parents=True)
    with pytest.raises(DataError, match="were not found"):
        predict_submission(trained, str(tmp_path / "hidden"), tmp_path / "submission.csv", note=print)


def test_the_command_prints_its_time_and_memory(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.paths.root)
    words = ["predict", "--ensemble", "data/pets", "--submission", str(tmp_path / "a.csv"), "--competition", "pets"]
    monkeypatch.setattr(sys, "argv", ["podium", *words])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr().out
    assert end.value.code == 0 and "4 images in" in printed and "GB of memory" in printed
    assert "s per 1,000 images" in printed and "in the 12 hours of a session" in printed
