"""Pseudo-labels: written from the blend's test probabilities, read by id, and a part of the stamp by content."""

from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Recipe
from podium.ensemble.write import write_ensemble
from podium.errors import DataError, SubmissionError
from podium.plan.runs import read_plan
from podium.predictions.pseudo import read_pseudo_labels, write_pseudo_labels
from toy_runs import make_project, random_run

KEY = 'pseudo_labels = "submissions/toy/pseudo.csv"'
RECIPE = 'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\n'


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
    file, counts, wrong = write_pseudo_labels(workspace, 0.9)
    header, *lines = file.read_text().splitlines()
    names = np.array(workspace.lock.classes)[probabilities.argmax(axis=1)]
    assert header == "id,label" and file == workspace.paths.submissions / "pseudo.csv"
    assert lines == [f"{id_},{name}" for id_, name in zip(ids[sure], names[sure], strict=True)]
    assert counts.sum() == sure.sum() and wrong == pytest.approx((1 - probabilities.max(axis=1)[sure]).sum(), abs=1e-4)
    found = read_pseudo_labels(workspace.paths.root, "submissions/toy/pseudo.csv", workspace.lock)
    assert found.rows.tolist() == np.flatnonzero(sure).tolist()
    assert found.labels.tolist() == probabilities.argmax(axis=1)[sure].tolist()
    assert found.added_to(np.array([5, 6]), -1).tolist() == [5, 6] + [-1] * sure.sum()


def test_a_stale_blend_and_a_threshold_that_no_image_has_are_refused(workspace):
    with pytest.raises(SubmissionError, match="less sure of every test image"):
        write_pseudo_labels(workspace, 1.0)
    (workspace.paths.submissions / "ensemble.csv").write_text("other")
    with pytest.raises(SubmissionError, match=r"no blend of the present runs(?s:.*)make ensemble COMPETITION=toy"):
        write_pseudo_labels(workspace, 0.9)
    assert not (workspace.paths.submissions / "pseudo.csv").exists()


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"test_ids": np.array([], str)}, '"class", 0 test images'), ({"target_name": "multi-label"}, '"multi-label", ')],
)
def test_without_test_images_or_classes_there_are_no_pseudo_labels(workspace, changed, found):
    lock = replace(workspace.lock, **changed)
    with pytest.raises(SubmissionError, match=f"for test images(?s:.*){found}"):
        write_pseudo_labels(workspace.with_lock(lock), 0.9)


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
def test_a_table_that_does_not_fit_is_refused(workspace, text, fault):
    (workspace.paths.root / "table.csv").write_text(text)
    with pytest.raises(DataError, match=rf"{fault}(?s:.*)fix: +make pseudo"):
        read_pseudo_labels(workspace.paths.root, "table.csv", workspace.lock)


def test_a_missing_table_is_refused_and_without_the_key_there_are_none(workspace):
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
