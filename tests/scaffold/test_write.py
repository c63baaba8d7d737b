"""make new: settings are guessed from the files, written, and can be read and prepared."""

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import podium
from podium.config.keys import read_competition
from podium.data.prepare import prepare
from podium.errors import ConfigError, DataError
from podium.plan.paths import Paths
from podium.plan.runs import read_recipes
from podium.scaffold.guess import guess_competition
from podium.scaffold.write import write_competition
from podium.workspace import open_workspace


def picture(number, size=(40, 32)):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def folders(place, *, classes=("cat", "dog"), size=(40, 32), wrapped=""):
    for number in range(24):
        name = classes[number % len(classes)]
        write(place / wrapped / "train" / name / f"{number}.png", picture(number, size))
    for number in range(100, 104):
        write(place / wrapped / "test" / f"{number}.png", picture(number, size))
    return place


def table(place, sample="image,cat,dog\n100,0.5,0.5\n101,0.5,0.5\n102,0.5,0.5\n103,0.5,0.5\n"):
    for number in range(24):
        write(place / "train_images" / f"{number}.png", picture(number))
    for number in range(100, 104):
        write(place / "test_images" / f"{number}.png", picture(number))
    rows = "".join(f"{number},{number % 7},{'cat' if number % 2 else 'dog'}\n" for number in range(24))
    write(place / "labels.csv", f"image,age,breed\n{rows}".encode())
    write(place / "sample_submission.csv", sample.encode())
    return place


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def zipped(place):
    target = place.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(place.rglob("*.*")):
            archive.write(file, file.relative_to(place))
    return target


def make_new(tmp_path, place, *, gpu=False, slug=""):
    root = tmp_path / "project"
    paths = Paths("pets", root, root)
    guess = guess_competition(place, paths.cache, title="Pets")
    write_competition(paths, guess, slug=slug, gpu=gpu)
    return paths, guess


@pytest.mark.parametrize("wrapped", ["", "pets-main"])
def test_class_folders_are_recognised_and_can_be_prepared(tmp_path, wrapped):
    place = folders(tmp_path / "pets", wrapped=wrapped)
    paths, guess = make_new(tmp_path, place)
    settings = read_competition(paths.folder)
    assert (settings.data.source, settings.data.train, settings.data.test) == ("folders", "train", "test")
    assert settings.validation.kind == "k-fold" and settings.metric == "accuracy"
    assert (settings.ensemble.select, settings.ensemble.strategy) == (
        "all",
        "auto",
    )  # no fixed threshold suits every task
    assert guess.class_counts == {"cat": 12, "dog": 12} and guess.median_side == 32 and guess.sides == (32, 40)
    assert any("no sample submission" in item for item in guess.to_check)
    lock = prepare(open_workspace("pets", paths.root), data=str(place))
    assert len(lock.train_ids) == 24 and lock.test_ids.tolist() == ["100", "101", "102", "103"]


@pytest.mark.parametrize("pack", [lambda place: place, zipped])
def test_a_table_of_labels_and_a_sample_of_probabilities_are_recognised(tmp_path, pack):
    place = pack(table(tmp_path / "pets"))
    paths, guess = make_new(tmp_path, place, slug="pets-of-kaggle")
    settings = read_competition(paths.folder)
    assert (settings.data.labels, settings.data.id_column, settings.data.label_column) == (
        "labels.csv",
        "image",
        "breed",
    )
    assert (settings.submission.kind, settings.submission.id_column) == ("probabilities", "image")
    assert settings.metric == "log_loss" and settings.kaggle.competition == "pets-of-kaggle"
    assert any("'breed', chosen from age, breed" in item for item in guess.to_check)
    lock = prepare(open_workspace("pets", paths.root), data=str(place))
    assert lock.classes == ("cat", "dog") and len(lock.test_ids) == 4


def test_a_sample_of_labels_gives_the_columns(tmp_path):
    rows = "".join(f"{number},cat\n" for number in range(100, 104))
    paths, _ = make_new(tmp_path, table(tmp_path / "pets", sample=f"file,animal\n{rows}"))
    submission = read_competition(paths.folder).submission
    assert (submission.kind, submission.id_column, submission.label_column) == ("labels", "file", "animal")


@pytest.mark.parametrize(
    ("size", "gpu", "recipes"),
    [
        ((40, 32), False, {"fastnet": (32, 32), "resnet34": (32, 32)}),
        ((200, 200), False, {"lite0": (200, 200), "lite0-logistic": (200, 200)}),
        ((300, 240), True, {"lite0": (240, 224), "lite0-logistic": (224, 224)}),
    ],
)
def test_recipes_fit_the_images_and_the_device(tmp_path, size, gpu, recipes):
    paths, _ = make_new(tmp_path, folders(tmp_path / "pets", size=size), gpu=gpu)
    read = read_recipes(paths.folder)
    assert {name: (recipe.stored_pixels, recipe.network_pixels) for name, (recipe, _) in read.items()} == recipes


def test_a_cpu_trains_many_photos_at_a_smaller_size_and_computes_their_features_at_the_full_one(tmp_path, monkeypatch):
    monkeypatch.setattr("podium.scaffold.write.FEW_PHOTOS", 20)
    paths, _ = make_new(tmp_path, folders(tmp_path / "pets", size=(300, 240)))
    (fine_tuned, _), (logistic, _) = (read_recipes(paths.folder)[name] for name in ("lite0", "lite0-logistic"))
    assert (fine_tuned.stored_pixels, fine_tuned.network_pixels, logistic.network_pixels) == (160, 128, 224)


def test_missing_parts_and_labels_are_refused(tmp_path):
    write(tmp_path / "odd" / "pictures" / "1.png", picture(1))
    with pytest.raises(DataError, match="named like 'train'") as error:
        guess_competition(tmp_path / "odd", tmp_path / "cache", title="Odd")
    assert error.value.found == "pictures"
    place = table(tmp_path / "pets")
    (place / "labels.csv").unlink()
    with pytest.raises(DataError, match="no class folders and no table of labels"):
        guess_competition(place, tmp_path / "cache", title="Pets")


def test_images_that_cannot_be_read_are_counted(tmp_path):
    place = folders(tmp_path / "pets")
    write(place / "train" / "cat" / "0.png", b"no image")
    _, guess = make_new(tmp_path, place)
    expected = "damaged images: 1 of 24 sampled images cannot be read, such as cat/0.png"
    assert any(item.startswith(expected) for item in guess.to_check)


@pytest.mark.parametrize("place", [".", "../pets/."])
def test_the_archive_has_the_name_of_the_folder(tmp_path, monkeypatch, place):
    monkeypatch.chdir(folders(tmp_path / "pets"))
    assert guess_competition(Path(place), tmp_path / "cache", title="Pets").competition.data.archive == "pets"


def test_an_existing_or_invalid_name_is_refused_and_nothing_is_overwritten(tmp_path):
    paths, guess = make_new(tmp_path, folders(tmp_path / "pets"))
    with pytest.raises(ConfigError, match="exists already"):
        write_competition(paths, guess)
    with pytest.raises(ConfigError, match="cannot be the name"):
        write_competition(replace(paths, name="../pets"), guess)
    assert [folder.name for folder in (paths.folder.parent).iterdir()] == ["pets"]


def test_the_command_prints_its_guesses_and_what_to_check(tmp_path):
    folders(tmp_path / "pets")
    environment = os.environ | {"PYTHONPATH": str(Path(podium.__file__).parents[1])}
    command = [sys.executable, "-m", "podium", "new", "-c", "dogs"]

    def run(*arguments):
        return subprocess.run([*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = run()
    assert refused.returncode == 2 and "needs either KAGGLE= or DATA=" in refused.stderr
    done = run("--data", "pets")
    assert done.returncode == 0, done.stderr
    assert "24 labelled images (one folder per class), 4 test images" in done.stdout
    assert "2 classes: cat 12, dog 12" in done.stdout and "please check the metric" in done.stdout
    assert "next: check these files, then type make rehearse COMPETITION=dogs DATA=pets" in done.stdout
