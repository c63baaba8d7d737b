"""Pseudo-labels: written from the blend's test predictions, read by id, and a part of the stamp by content."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Recipe
from podium.data.labels import read_pseudo_labels
from podium.ensemble.write import write_ensemble
from podium.errors import DataError, SubmissionError
from podium.lock import Lock
from podium.plan.runs import read_plan
from podium.predictions.artefact import Predictions, save_predictions
from podium.predictions.pseudo import write_pseudo_labels
from toy_runs import make_project, random_run

KEY = 'pseudo_labels = "submissions/toy/pseudo.csv"'
RECIPE = 'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\n'
SETTINGS = """
title = "toy"
metric = "{metric}"
[data]
source = "csv"
target = "{target}"
[validation]
rows = 3
[submission]
kind = "{kind}"
[ensemble]
strategy = "uniform"
"""
TARGETS = {  # classes, labels of three rows, metric, kind
    "multi-label": (("cat", "dog"), np.array([[0, 1], [1, 1], [0, 0]], np.uint8), "auc", "probabilities"),
    "ordinal": (("10", "20", "30"), np.array([0, 2, 1]), "qwk", "labels"),
    "number": (("age",), np.array([1.5, 3.0, -2.0]), "rmse", "number"),
}


def project_of(folder, target, *, labels=None, runs=(), metric=""):
    """A workspace of another target, and the blend of `runs`, which have logits of validation rows and of test rows."""
    classes, toy_labels, usual, kind = TARGETS[target]
    labels = toy_labels if labels is None else labels
    tests = len(runs[0][1]) if runs else 3
    lock = Lock(
        fingerprint="data",
        classes=classes,
        train_ids=np.array([f"v{row:04}" for row in range(len(labels))]),
        train_labels=labels,
        folds=np.zeros(len(labels), int),
        test_ids=np.array([f"t{row}" for row in range(tests)]),
        target_name=target,
    )
    kind = "labels" if metric == "macro_f1" else kind
    settings = SETTINGS.format(target=target, metric=metric or usual, kind=kind)
    workspace = make_project(folder, [], lock=lock, settings=settings)
    for place, (oof, test) in enumerate(runs):
        name = f"net{place}.s1"
        about = {"run": name, "architecture": f"net{place}", "target": target}
        about |= {"fingerprint": "data", "fold_sha256": lock.fold_sha256}
        logits = (values.reshape(len(values), -1).astype(np.float32) for values in (oof, test))
        run = Predictions(lock.train_ids, next(logits), labels, lock.test_ids, next(logits), classes, about)
        save_predictions(workspace.paths.predictions_file(name), run)
    return workspace, write_ensemble(workspace, strategy="uniform").result.blend if runs else None


def read_table(workspace, name):
    """The pseudo-labels in a table below the project."""
    return read_pseudo_labels(workspace.paths.root, str(name), workspace.competition, workspace.lock)


def written_by(workspace, threshold):
    """Test row -> cells, and how many labels are wrong; the file is read as a run reads it, too."""
    file, (rows, labels), errors = write_pseudo_labels(workspace, threshold)
    header, *lines = (line.split(",") for line in file.read_text().splitlines())
    read = read_table(workspace, file.relative_to(workspace.paths.root))
    assert read.rows.tolist() == rows.tolist() and read.labels.dtype == workspace.lock.train_labels.dtype
    assert np.array_equal(read.labels, labels)
    assert header == ["id", *(workspace.lock.classes if workspace.lock.target.has_columns else ["label"])]
    return {int(id_[1:]): cells for id_, *cells in lines}, errors


@pytest.fixture
def workspace(tmp_path):
    workspace = make_project(tmp_path, [random_run("resnet34.s1", seed=1), random_run("vgg19.s1", seed=2)])
    write_ensemble(workspace)
    return workspace


def test_the_sure_test_images_are_written_with_their_most_probable_class(workspace):
    with np.load(workspace.paths.submissions / "ensemble.probabilities.npz") as blend:
        ids, probabilities = blend["ids"], blend["probabilities"].astype(float)
    sure = probabilities.max(axis=1) >= 0.9
    assert 0 < sure.sum() < 30
    file, _, errors = write_pseudo_labels(workspace, 0.9)
    header, *lines = file.read_text().splitlines()
    names = np.array(workspace.lock.classes)[probabilities.argmax(axis=1)]
    assert header == "id,label" and file == workspace.paths.submissions / "pseudo.csv"
    assert lines == [f"{id_},{name}" for id_, name in zip(ids[sure], names[sure], strict=True)]
    wrong = (1 - probabilities.max(axis=1)[sure]).sum()
    assert errors == pytest.approx(wrong, rel=1e-5)
    found = read_table(workspace, "submissions/toy/pseudo.csv")
    assert found.rows.tolist() == np.flatnonzero(sure).tolist()
    assert found.labels.tolist() == probabilities.argmax(axis=1)[sure].tolist()


def test_a_stale_blend_and_a_threshold_that_no_image_has_are_refused(workspace):
    with pytest.raises(SubmissionError, match="less sure of every test image"):
        write_pseudo_labels(workspace, 1.0)
    (workspace.paths.submissions / "ensemble.csv").write_text("other")
    with pytest.raises(SubmissionError, match=r"no blend of the present runs(?s:.*)make ensemble COMPETITION=toy"):
        write_pseudo_labels(workspace, 0.9)
    assert not (workspace.paths.submissions / "pseudo.csv").exists()


def test_without_test_images_there_are_no_pseudo_labels(workspace):
    with pytest.raises(SubmissionError, match="for test images"):
        write_pseudo_labels(workspace.with_lock(replace(workspace.lock, test_ids=np.array([], str))), 0.9)


@pytest.mark.parametrize("metric", ["auc", "macro_f1"])
def test_every_label_of_an_image_must_be_sure_and_the_thresholds_of_f1_change_no_probability(tmp_path, metric):
    draw = np.random.default_rng(0)
    labels = (draw.random((400, 2)) < [0.5, 0.2]).astype(np.uint8)
    logits = [(4.0 * labels - 2 + draw.normal(size=labels.shape), draw.normal(size=(60, 2)) * 1.5) for _ in range(2)]
    workspace, blend = project_of(tmp_path, "multi-label", labels=labels, runs=logits, metric=metric)
    assert (blend.cuts is None) == (metric == "auc")
    target, of_runs = workspace.lock.target, np.stack([test for _, test in logits]).astype(np.float32)
    probabilities = target.rows(replace(blend, cuts=None).probabilities(target.cells(of_runs)))
    sure = ((probabilities >= 0.9) | (probabilities <= 0.1)).all(axis=1)
    assert 0 < sure.sum() < 60 and ((probabilities >= 0.9) | (probabilities <= 0.1)).any(axis=1).sum() > sure.sum()
    cells, errors = written_by(workspace, 0.9)
    assert cells == {row: [str(int(p >= 0.5)) for p in probabilities[row]] for row in np.flatnonzero(sure)}
    assert errors == pytest.approx(np.minimum(probabilities, 1 - probabilities)[sure].sum(), rel=1e-5)


@pytest.mark.parametrize("target", ["ordinal", "number"])
def test_a_target_without_probabilities_is_refused(tmp_path, target):
    with pytest.raises(SubmissionError, match=f'has no probability(?s:.*)found: +"{target}"'):
        write_pseudo_labels(project_of(tmp_path, target)[0], 0.9)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,label\n1,cat\nnine,cat\n", "line 3: 'nine' is no test image"),
        ("id,label\n1,cow\n", "cow: no class of the labelled images"),
        ("id,label\n1,cat\n1,dog\n", "line 2, .*line 3: the id '1' occurs 2 times"),
        ("id,class\n1,cat\n", "no column 'label'; it has 'id', 'class'"),
        ("id,label\n", "no rows"),
        ("", "no rows"),
        ('id,label\n"1', "not a CSV table in UTF-8"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, fault):
    workspace = make_project(tmp_path, [])
    (workspace.paths.root / "table.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{fault}(?s:.*)fix: +make pseudo"):
        read_table(workspace, "table.csv")


@pytest.mark.parametrize(
    ("target", "text", "fault"),
    [
        ("multi-label", "id,cat,dog\nt1,0,1\nt2,1\n", "line 3: dog is empty"),
        ("multi-label", "id,cat,dog\nt1,0,1\nt2,1,2\n", "'t2' has '2' in 'dog'"),
        ("multi-label", "id,cat,dog\nt1,01,\n", "line 2: dog is empty"),
        ("multi-label", "id,label\nt1,cat\n", "'t1' has 'cat' in 'label'"),
        ("ordinal", "id,label\nt1,10\nt2,1\n", "1: no class of the labelled images"),
        ("number", "id,label\nt1,2\nt2,old\n", "'t2' has 'old'"),
        ("number", "id,label\nt1,2\nt2,nan\n", "expected a finite number(?s:.*)'t2' has 'nan'"),
        ("number", "id,label\nt1,2\nt2,1e30\n", "'t2' has '1e30'"),
    ],
)
def test_a_table_of_another_target_that_does_not_fit_is_refused(tmp_path, target, text, fault):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{fault}(?s:.*)fix: +make pseudo"):
        read_table(project_of(tmp_path, target)[0], "table.csv")


@pytest.mark.parametrize(
    ("target", "cells", "labels"),
    [
        ("multi-label", ["1,0", "0,0"], [[1, 0], [0, 0]]),
        ("ordinal", ["30", "10"], [2, 0]),
        ("number", ["2.5", "-1e3"], [2.5, -1000.0]),
    ],
)
def test_labels_are_read_by_id_as_the_target_has_them(tmp_path, target, cells, labels):
    workspace = project_of(tmp_path, target)[0]
    header = "id,cat,dog" if target == "multi-label" else "id,label"
    (tmp_path / "table.csv").write_text(f"{header}\nt2,{cells[0]}\nt0,{cells[1]}\n")
    lock, found, none = workspace.lock, read_table(workspace, "table.csv"), read_table(workspace, "")
    assert found.rows.tolist() == [2, 0] and found.labels.tolist() == labels
    assert np.concatenate([lock.train_labels, found.labels, none.labels]).dtype == lock.train_labels.dtype


def test_a_missing_table_is_refused_and_without_the_key_there_are_none(tmp_path):
    workspace = make_project(tmp_path, [])
    with pytest.raises(DataError, match=r"none\.csv: missing"):
        read_table(workspace, "none.csv")
    assert len(read_table(workspace, "").rows) == 0


def test_the_content_of_the_table_is_a_part_of_the_stamp_and_its_place_is_not(workspace):
    root, recipe = workspace.paths.root, workspace.paths.recipe_file("resnet34")

    def stamp(text):
        recipe.write_text(RECIPE + text)
        return read_plan("toy", root).runs[0].stamp

    plain = stamp("")
    (root / "other.csv").write_bytes(write_pseudo_labels(workspace, 0.9)[0].read_bytes())
    labelled = stamp(KEY)
    assert len({plain, labelled}) == 2 and stamp('pseudo_labels = "other.csv"') == labelled
    write_pseudo_labels(workspace, 0.8)
    assert stamp(KEY) not in (plain, labelled)
    assert Recipe(architecture="resnet34").pseudo_labels == ""


def test_a_blend_with_members_that_learned_pseudo_labels_says_so(tmp_path):
    plain, other = random_run("resnet34.s1", seed=1), random_run("vgg19.s1", seed=2)
    project = make_project(tmp_path, [plain, replace(other, about=other.about | {"pseudo_labels": 12})])
    assert any(
        "1 of 2 members were trained on pseudo-labels" in text for text in write_ensemble(project).result.caveats
    )
