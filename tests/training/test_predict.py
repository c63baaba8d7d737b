"""New images are predicted by the blend of an ensemble as the competition's own test images were."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from digits_toys import RECIPE, digits_workspace
from podium.cli.app import main
from podium.data.cache import open_images
from podium.ensemble.write import read_blend, write_ensemble
from podium.errors import DataError, TrainingError
from podium.training import predict as predict_module
from podium.training.predict import open_predictor
from podium.training.run import train_run

FIRST = 40


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two runs of other sizes and views, their ensemble, and a folder with the first test images."""
    folder = tmp_path_factory.mktemp("digits")
    workspace = digits_workspace(folder, recipe=RECIPE.replace("epochs = 2", "epochs = 1") + "refit = true\n")
    (run,) = workspace.runs
    views = replace(run.recipe, test_time_augmentation="flip", training_pixels=24)
    for changed in (run, replace(run, run="views.s1", recipe=views)):
        train_run(workspace, changed)
    write_ensemble(workspace, strategy="uniform", threshold=0.0)
    images = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop").test_images[:FIRST]
    (folder / "new").mkdir()
    for id_, image in zip(workspace.lock.test_ids, images, strict=False):
        Image.fromarray(np.asarray(image)).save(folder / "new" / f"{id_}.png")
    return workspace


def predictor_of(workspace):
    members, blend = read_blend(workspace)
    return open_predictor(workspace, members, blend.of_rows)


def expected_of(workspace):
    """Id -> label, and probabilities, of the ensemble's files."""
    file = workspace.paths.submissions / "ensemble.csv"
    labels = dict(line.split(",") for line in file.read_text().splitlines()[1 : FIRST + 1])
    with np.load(file.with_suffix(".probabilities.npz")) as beside:
        return labels, dict(zip(beside["ids"].tolist(), beside["probabilities"], strict=True))


def test_predict_ensemble_prints_the_labels_of_the_submission(project, monkeypatch, capsys):
    root = project.paths.root
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["podium", "predict", "--ensemble", "new", "--competition", "digits"])
    with pytest.raises(SystemExit) as end:
        main()
    header, *rows = capsys.readouterr().out.splitlines()
    labels, probabilities = expected_of(project)
    assert end.value.code == 0 and header == "id,label,probability" and len(rows) == FIRST
    for name, label, probability in (row.split(",") for row in rows):
        id_ = name.removesuffix(".png")
        assert label == labels[id_] and float(probability) == pytest.approx(probabilities[id_].max(), abs=1e-5)


def test_blocks_and_several_devices_change_no_order(project, monkeypatch):
    files = [project.paths.root / "new" / f"{id_}.png" for id_ in project.lock.test_ids[:FIRST]]
    _, probabilities = expected_of(project)
    monkeypatch.setattr(predict_module, "IMAGES_AT_A_TIME", 7)
    predictor = predictor_of(project)
    predictor = replace(predictor, networks=[*predictor.networks, *predictor_of(project).networks])
    rows = np.concatenate(list(predictor.predict(files)))
    assert rows == pytest.approx(np.stack([probabilities[file.stem] for file in files]), abs=1e-5)


def test_images_that_cannot_be_predicted_get_what_is_given_for_them(project, tmp_path, monkeypatch):
    predictor, otherwise = predictor_of(project), np.arange(10) / 45
    (good,) = (project.paths.root / "new" / f"{project.lock.test_ids[0]}.png",)
    Image.new("CMYK", (300, 7)).save(tmp_path / "other.jpg")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    files = [tmp_path / "cut.png", good, tmp_path / "missing.png", tmp_path / "other.jpg", tmp_path]
    (rows,) = predictor.predict(files, otherwise=otherwise)
    assert (rows[[0, 2, 4]] == otherwise).all() and (rows[[1, 3]].sum(axis=1) == pytest.approx(1))
    assert list(predictor.predict([], otherwise=otherwise)) == []
    assert (next(predictor.predict(files[:1], otherwise=otherwise)) == otherwise).all()
    with pytest.raises(DataError, match=r"cut\.png"):
        list(predictor.predict(files))
    monkeypatch.setattr(predict_module, "logits_of", lambda network, store, rows: np.full((len(rows), 10), np.inf))
    assert (next(predictor.predict([good], otherwise=otherwise)) == otherwise).all()
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: .*not finite.*1 of 1 images"):
        list(predictor.predict([good]))


def test_members_without_parameters_or_of_other_data_are_named(project, monkeypatch):
    file = project.paths.parameters_file("views.s1")
    with monkeypatch.context() as patch:
        patch.setattr(type(project.paths), "parameters_file", lambda paths, run: paths.root / run)
        with pytest.raises(TrainingError, match=r"tiny\.s1, views\.s1 have no trained parameters here"):
            predictor_of(project)
    assert file.is_file()
    other = project.with_lock(replace(project.lock, fingerprint="other"))
    members, blend = read_blend(project)
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: .*other data.*fingerprint other"):
        open_predictor(other, members, blend.of_rows)


@pytest.mark.parametrize("names", [["--ensemble", "tiny.s1", "new"], ["new"]])
def test_predict_needs_a_run_or_the_ensemble(project, monkeypatch, capsys, names):
    monkeypatch.chdir(project.paths.root)
    monkeypatch.setattr(sys, "argv", ["podium", "predict", *names, "--competition", "digits"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "RUN IMAGES, --ensemble IMAGES" in capsys.readouterr().err
