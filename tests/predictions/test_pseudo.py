"""Pseudo-labels: written from the blend's test predictions, read by id, and a part of the stamp by content."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Recipe
from podium.ensemble.write import write_ensemble
from podium.errors import DataError, SubmissionError
from podium.lock import Lock
from podium.plan.runs import read_plan
from podium.predictions.artefact import Predictions, save_predictions
from podium.predictions.pseudo import read_pseudo_labels, write_pseudo_labels
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


def written_by(workspace, threshold):
    """Test row -> cells, and the sentence about errors; the file is read as a run reads it, too."""
    file, written, errors = write_pseudo_labels(workspace, threshold)
    header, *lines = (line.split(",") for line in file.read_text().splitlines())
    read = read_pseudo_labels(file.parent, file.name, workspace.lock)
    assert read.rows.tolist() == written.rows.tolist() and read.labels.dtype == workspace.lock.train_labels.dtype
    assert np.allclose(read.labels, written.labels, rtol=1e-5)
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
    assert errors == f"{wrong:.0f} of their {sure.sum()} labels are probably wrong"
    found = read_pseudo_labels(workspace.paths.root, "submissions/toy/pseudo.csv", workspace.lock)
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
    wrong = np.minimum(probabilities, 1 - probabilities)[sure].sum()
    assert errors == f"{wrong:.0f} of their {2 * sure.sum()} labels are probably wrong"


def test_the_confidence_in_a_grade_is_its_share_of_the_validation_rows_with_similar_numbers(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    numbers = labels + np.where(labels == 1, 0.4, 0.05) * draw.normal(size=600)  # the middle grade is uncertain
    tests = np.array([-1.0, 0.0, 0.45, 1.0, 1.55, 2.0, 9.0])
    workspace, blend = project_of(tmp_path, "ordinal", labels=labels, runs=[(numbers, tests)])
    grades = np.searchsorted(blend.cuts, tests)

    def share(number, grade):
        order = np.argsort(numbers)
        first = np.clip(np.searchsorted(numbers[order], number) - 25, 0, 550)
        return (labels[order[first : first + 50]] == grade).mean()

    shares = np.array([share(*pair) for pair in zip(tests, grades, strict=True)])
    assert shares[2] < 0.8 < 0.9 < min(shares[0], shares[3], shares[6])
    for least in sorted(set(shares.tolist())):
        cells, errors = written_by(workspace, least)
        assert cells == {row: [("10", "20", "30")[grades[row]]] for row in np.flatnonzero(shares >= least)}
        assert errors == f"{(1 - shares)[shares >= least].sum():.0f} of their {len(cells)} labels are probably wrong"


def numbers_of_two_runs(*, errors_follow_agreement):
    """Labels, and logits of runs that differ much on every second row, validation and test."""
    draw = np.random.default_rng(0)
    labels, tests = draw.normal(scale=10, size=400), draw.normal(scale=10, size=20)
    usual = np.where(np.arange(400) % 2, 8.0, 0.1)
    apart = usual * draw.uniform(0.5, 1.5, size=400)
    error = apart * draw.normal(size=400) if errors_follow_agreement else draw.normal(scale=8, size=400)
    runs = [(labels + error + sign * apart, tests + sign * usual[:20]) for sign in (1, -1)]
    return labels, runs, tests, error


def test_the_confidence_in_a_number_is_the_r2_of_validation_rows_whose_runs_agree_as_much(tmp_path):
    labels, runs, tests, error = numbers_of_two_runs(errors_follow_agreement=True)
    workspace, _ = project_of(tmp_path, "number", labels=labels, runs=runs)
    cells, errors = written_by(workspace, 0.99)
    assert list(cells) == list(range(0, 20, 2))
    assert [float(cell) for (cell,) in cells.values()] == pytest.approx(tests[::2], abs=0.2)
    assert float(errors.split(",")[0].split()[-1]) < 0.2 < 5 < float(errors.split()[-1])
    assert len(written_by(workspace, 1 - 3 * np.square(error).mean() / labels.var())[0]) == 20
    with pytest.raises(SubmissionError, match=r"less sure(?s:.*)a confidence of 0\.99999"):
        write_pseudo_labels(workspace, 0.99999)


def test_runs_that_agree_and_are_wrong_are_not_sure_of_a_number(tmp_path):
    labels, runs, _, _ = numbers_of_two_runs(errors_follow_agreement=False)
    workspace, _ = project_of(tmp_path, "number", labels=labels, runs=runs)
    with pytest.raises(SubmissionError, match=r"less sure(?s:.*)found: +0\.[2-6]\d+ at most"):
        write_pseudo_labels(workspace, 0.9)


def test_about_as_many_labels_are_wrong_as_the_sentence_says(tmp_path):
    draw = np.random.default_rng(1)
    truths = draw.integers(3, size=3000)
    numbers = truths * 0.6 + draw.normal(scale=0.25, size=3000)
    workspace, _ = project_of(
        tmp_path / "ordinal", "ordinal", labels=truths[:600], runs=[(numbers[:600], numbers[600:])]
    )
    cells, errors = written_by(workspace, 0.8)
    wrong = sum(cell != ("10", "20", "30")[truths[600 + row]] for row, (cell,) in cells.items())
    expected = int(errors.split()[0])
    assert len(cells) > 1000 and abs(wrong - expected) < 0.03 * len(cells) and 20 < expected < 0.2 * len(cells)

    truths, apart = draw.normal(scale=10, size=3000), draw.exponential(2, size=3000)
    error = apart * draw.normal(size=3000)
    of_runs = [truths + error + sign * apart for sign in (1, -1)]
    runs = [(numbers[:600], numbers[600:]) for numbers in of_runs]
    workspace, _ = project_of(tmp_path / "number", "number", labels=truths[:600], runs=runs)
    cells, errors = written_by(workspace, 0.98)
    rmse = np.sqrt(np.mean([(float(cell) - truths[600 + row]) ** 2 for row, (cell,) in cells.items()]))
    assert 500 < len(cells) < 1800 and float(errors.split(",")[0].split()[-1]) == pytest.approx(rmse, rel=0.2)
    assert 1 - rmse**2 / truths.var() > 0.98 > 1 - error.var() / truths.var()


def test_one_run_has_no_confidence_in_numbers(tmp_path):
    labels, runs, _, _ = numbers_of_two_runs(errors_follow_agreement=True)
    workspace, _ = project_of(tmp_path, "number", labels=labels, runs=runs[:1])
    with pytest.raises(
        SubmissionError, match=r"how much the runs of the blend agree(?s:.*)two or more(?s:.*)found: +1"
    ):
        write_pseudo_labels(workspace, 0.9)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,label\n1,cat\nnine,cat\n", "line 3: nine,cat"),
        ("id,label\n1,cat,0.9\n", "line 2: 1,cat,0.9"),
        ("id,label\n1,cow\n", "line 2: 1,cow"),
        ("id,label\n1,cat\n1,dog\n", "line 3: 1,dog"),
        ("id,class\n1,cat\n", "found: +id,class"),
        ("id,label\n", "found: +id,label"),
        ("", "found: +no header"),
        ('id,label\n"1', "Not a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, fault):
    workspace = make_project(tmp_path, [])
    (workspace.paths.root / "table.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{fault}(?s:.*)fix: +make pseudo"):
        read_pseudo_labels(workspace.paths.root, "table.csv", workspace.lock)


@pytest.mark.parametrize(
    ("target", "text", "fault"),
    [
        ("multi-label", "id,cat,dog\nt1,0,1\nt2,1\n", "line 3: t2,1"),
        ("multi-label", "id,cat,dog\nt1,0,1\nt2,1,2\n", "line 3: t2,1,2"),
        ("multi-label", "id,cat,dog\nt1,01,\n", "line 2: t1,01,"),
        ("multi-label", "id,dog,cat\nt1,0,1\n", "expected: +id, cat, dog; .* 0 or 1 in each column(?s:.*)id,dog,cat"),
        ("multi-label", "id,label\nt1,cat\n", "found: +id,label"),
        ("ordinal", "id,label\nt1,10\nt2,1\n", "line 3: t2,1"),
        ("number", "id,label\nt1,2\nt2,old\n", "line 3: t2,old"),
        ("number", "id,label\nt1,2\nt2,nan\n", "with a number(?s:.*)line 3: t2,nan"),
        ("number", "id,label\nt1,2\nt2,1e30\n", "line 3: t2,1e30"),
    ],
)
def test_a_table_of_another_target_that_does_not_fit_is_refused(tmp_path, target, text, fault):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{fault}(?s:.*)fix: +make pseudo"):
        read_pseudo_labels(tmp_path, "table.csv", project_of(tmp_path, target)[0].lock)


@pytest.mark.parametrize(
    ("target", "cells", "labels"),
    [
        ("multi-label", ["1,0", "0,0"], [[1, 0], [0, 0]]),
        ("ordinal", ["30", "10"], [2, 0]),
        ("number", ["2.5", "-1e3"], [2.5, -1000.0]),
    ],
)
def test_labels_are_read_by_id_as_the_target_has_them(tmp_path, target, cells, labels):
    lock = project_of(tmp_path, target)[0].lock
    header = "id,cat,dog" if target == "multi-label" else "id,label"
    (tmp_path / "table.csv").write_text(f"{header}\nt2,{cells[0]}\nt0,{cells[1]}\n")
    found, none = (read_pseudo_labels(tmp_path, name, lock) for name in ("table.csv", ""))
    assert found.rows.tolist() == [2, 0] and found.labels.tolist() == labels
    assert np.concatenate([lock.train_labels, found.labels, none.labels]).dtype == lock.train_labels.dtype


def test_a_missing_table_is_refused_and_without_the_key_there_are_none(tmp_path):
    workspace = make_project(tmp_path, [])
    with pytest.raises(DataError, match=r"cannot be read(?s:.*)none\.csv"):
        read_pseudo_labels(workspace.paths.root, "none.csv", workspace.lock)
    assert len(read_pseudo_labels(workspace.paths.root, "", workspace.lock).rows) == 0


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
