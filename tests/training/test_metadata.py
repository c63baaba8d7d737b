"""Heads on features that get metadata too: they use it, for every target, and know what it needs to predict."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from podium.data.prepare import prepare
from podium.errors import TrainingError
from podium.training.batches.stores import ExtendedStore, PixelStore
from podium.training.networks.heads import fit_classifier, fit_numbers, metadata_encoder
from podium.training.predict import open_predictor, predict_images
from podium.training.run import train_run
from podium.workspace import open_workspace
from target_toys import TESTS, table, toy_workspace

RECIPE = """
architecture = "timm:test_resnet"
pretrained = "weights.pth"
precision = "float32"
stored_pixels = 16
head = "{head}"
{columns}
"""
ROWS = 180  # a leaf of a tree has at least 20
SITES, AGES = np.arange(ROWS) % 3, np.arange(ROWS) * 7 % 11  # of labels that the images do not show
TEST_SITES = np.arange(TESTS) % 3


@pytest.fixture(autouse=True)
def more_rows(monkeypatch):
    """Boosting needs more images than the other toys have."""
    monkeypatch.setattr("target_toys.ROWS", ROWS)


def workspace_of(root, labels, *, head, columns='metadata_columns = ["site", "age"]', **settings):
    """A competition in which the metadata decide the labels, prepared, with one recipe."""
    (root / "images").mkdir()
    ages = ["" if age == 10 else str(age) for age in AGES.tolist()]
    names = np.array(["arm", "leg", ""])
    cells = {"id": list(range(TESTS)), "site": names[TEST_SITES].tolist(), "age": ["5"] * TESTS}
    (root / "images" / "test.csv").write_text(table(cells))
    data = 'metadata = ["train.csv", "test.csv"]\n' + settings.pop("data", "")
    toy_workspace(root, labels | {"site": names[SITES].tolist(), "age": ages}, data=data, **settings)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), root / "weights.pth")
    (root / "competitions" / "toy" / "tiny.toml").write_text(RECIPE.format(head=head, columns=columns))
    return open_workspace("toy", root)


CLASS = {"target": "class", "metric": "accuracy", "kind": "labels"}


def labels_of_sites(sites):
    return ["yes" if site == 2 else "no" for site in sites]  # 2: the site is missing


@pytest.mark.parametrize("head", ["logistic", "boosting"])
def test_a_column_that_decides_the_label_makes_the_run_right(tmp_path, head):
    workspace = workspace_of(tmp_path, {"label": labels_of_sites(SITES)}, head=head, **CLASS)
    (run,) = workspace.runs
    predictions = train_run(workspace, run)
    assert predictions.about["scores"]["accuracy"] == 1
    names = predictions.classes[predictions.test_logits.argmax(axis=1)].tolist()
    assert names == labels_of_sites(TEST_SITES[predictions.test_ids.astype(int)])
    alone = train_run(workspace, replace(run, recipe=replace(run.recipe, metadata_columns=())))
    assert alone.about["scores"]["accuracy"] < 0.8


@pytest.mark.parametrize("head", ["logistic", "boosting"])
@pytest.mark.parametrize("target", ["multi-label", "ordinal", "number"])
def test_every_target_learns_from_metadata(tmp_path, target, head):
    settings = {"target": target, "metric": {"number": "rmse"}.get(target, "qwk"), "kind": "labels"}
    labels = {"label": (SITES + 1).tolist()}
    if target == "number":
        labels, settings["kind"] = {"label": (SITES * 5.5).tolist()}, "number"
    if target == "multi-label":
        labels = {"leg": (SITES == 1).astype(int).tolist(), "none": (SITES == 2).astype(int).tolist()}
        settings |= {"metric": "auc", "kind": "probabilities", "data": 'label_columns = ["leg", "none"]'}
    workspace = workspace_of(tmp_path, labels, head=head, **settings)
    (run,) = workspace.runs
    scores = train_run(workspace, run).about["scores"]
    if target == "number":
        assert scores["rmse"] < 1.5  # of a standard deviation of 4.5
    else:
        assert scores["accuracy"] > 0.95


def test_a_run_with_metadata_refuses_images_alone_and_says_why(tmp_path):
    workspace = workspace_of(tmp_path, {"label": labels_of_sites(SITES)}, head="logistic", **CLASS)
    (run,) = workspace.runs
    train_run(workspace, run)
    with pytest.raises(TrainingError, match=r"(?s)cannot predict images alone.*site, age.*without metadata_columns"):
        predict_images(open_predictor(workspace, [run.run]), tmp_path / "images" / "test")


def test_other_metadata_make_only_the_runs_stale_that_use_them(tmp_path):
    workspace = workspace_of(tmp_path, {"label": labels_of_sites(SITES)}, head="logistic", **CLASS)
    (workspace.paths.folder / "other.toml").write_text(RECIPE.format(head="logistic", columns=""))

    def stamps():
        return {run.recipe_name: run.stamp for run in open_workspace("toy", tmp_path).runs}

    before = stamps()
    file = tmp_path / "images" / "test.csv"
    file.write_text(file.read_text().replace(",5", ",6"))
    prepare(open_workspace("toy", tmp_path), data=str(tmp_path / "images"), accept=True)
    after = stamps()
    assert before["other"] == after["other"] and before["tiny"] != after["tiny"]


def test_pseudo_labelled_test_images_have_their_own_metadata():
    images, device = np.zeros((3, 4, 4, 3), np.uint8), torch.device("cpu")
    labelled, tests = PixelStore(images, device), PixelStore(images, device)
    labelled.metadata, tests.metadata = cells([1.0, 2.0, 3.0]), cells([7.0, 8.0, 9.0])
    assert ExtendedStore(labelled, tests, np.array([2, 0])).metadata.ravel().tolist() == [1, 2, 3, 9, 7]


def cells(*columns):
    array = np.empty((len(columns[0]), len(columns)), object)
    for place, column in enumerate(columns):
        array[:, place] = column
    return array


def test_missing_numbers_are_the_mean_and_marked_and_unknown_texts_are_none_of_the_known():
    training = cells([1.0, np.nan, 3.0, 2.0], ["a", "b", "", "a"], [np.nan] * 4)
    encoder = metadata_encoder(training)
    columns = encoder.transform(training)
    assert columns.shape == (4, 7)  # age, three indicators or constants at most, and three texts
    ages = columns[:, 0]
    assert ages[1] == 0 and ages[0] == -ages[2] and ages.std() == pytest.approx(1)
    texts = columns[:, -3:]
    assert texts.sum(axis=1).tolist() == [1] * 4 and np.array_equal(texts[0], texts[3])
    assert encoder.transform(cells([9.0], ["new"], [5.0]))[0, -3:].tolist() == [0, 0, 0]


def test_metadata_counts_as_much_as_all_features_together():
    """With many useless features, the one column that decides has a fair weight in the regression."""
    draws, labels = np.random.default_rng(0), np.arange(120) % 2
    features = np.hstack([draws.normal(size=(120, 300)), labels[:, None]])
    fresh = np.hstack([draws.normal(size=(400, 300)), (np.arange(400) % 2)[:, None]])

    def loss(others):
        weights, biases = fit_classifier(features, labels, 2, others=others)
        logits = fresh @ weights.T + biases
        return np.log1p(np.exp(-(logits[:, 1] - logits[:, 0]) * (fresh[:, -1] * 2 - 1))).mean()

    assert loss(1) < 0.1 < 0.3 < loss(0)
    weights, bias = fit_numbers(features, labels[:, None] * 1.0, others=1)
    assert np.abs(fresh @ weights[0] + bias - fresh[:, -1]).mean() < 0.1
