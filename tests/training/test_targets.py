"""Losses of targets, and what networks learn with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from podium.config.keys import Recipe
from podium.data.cache import open_images
from podium.targets.target import Target
from podium.training import run as run_module
from podium.training.batches.stores import FitData, PixelStore
from podium.training.losses import make_loss
from podium.training.predict import open_predictor, predict_images
from podium.training.run import train_run
from target_toys import ROWS, brightness, toy_workspace


def loss_of(target, **keys):
    none = np.arange(0)
    return make_loss(Recipe(architecture="fastnet", **keys), FitData(None, none, target.outputs, none, none, target))


def test_the_loss_of_several_labels_is_the_mean_binary_cross_entropy_and_smoothing_moves_targets_to_a_half():
    logits, targets = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = loss_of(Target("multi-label", 2))
    assert torch.isclose(loss(logits, targets), binary_cross_entropy_with_logits(logits, targets))
    assert torch.allclose(loss.of_each(logits, targets).mean(), loss(logits, targets))
    smooth = loss_of(Target("multi-label", 2), label_smoothing=0.2)
    assert torch.isclose(smooth(logits, targets), binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1))


def weighted_loss(target, labels, **keys):
    """The loss of a recipe with these keys, for labels of training rows."""
    rows = np.arange(len(labels))
    store = PixelStore(np.zeros((len(labels), 4, 4, 3), np.uint8), torch.device("cpu"))
    data = FitData(store, np.array(labels), target.outputs, rows, rows[:0], target)
    return make_loss(Recipe(architecture="fastnet", **keys), data)


def test_balanced_weights_of_several_labels_weigh_yes_and_no_of_each_column():
    labels = np.array([[1, 1], [0, 1], [0, 1], [0, 1]], np.uint8)  # the second column has no 0
    logits, targets = torch.tensor([[0.3, -1.0], [0.7, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    loss = weighted_loss(Target("multi-label", 2), labels, class_weights="balanced")
    each = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    by_hand = each * torch.tensor([[4 / (2 * 1), 1.0], [4 / (2 * 3), 1.0]])
    assert torch.allclose(loss.of_each(logits, targets), by_hand.mean(1))
    smooth = weighted_loss(Target("multi-label", 2), labels, focal_gamma=1e-9, label_smoothing=0.2)
    plain = weighted_loss(Target("multi-label", 2), labels, label_smoothing=0.2)
    assert torch.allclose(smooth.of_each(logits, targets), plain.of_each(logits, targets), atol=1e-6)


def test_the_focal_loss_of_several_labels_multiplies_by_the_doubt_in_each_column():
    logits, targets = torch.tensor([[0.3, -1.0]]), torch.tensor([[1.0, 0.0]])
    own = torch.tensor([[torch.sigmoid(logits[0, 0]), torch.sigmoid(-logits[0, 1])]])
    loss = loss_of(Target("multi-label", 2), focal_gamma=2.0)
    assert torch.allclose(loss(logits, targets), (-((1 - own) ** 2) * own.log()).mean())


def test_balanced_weights_of_ordered_classes_weigh_the_loss_of_each_grade():
    labels = [0] * 6 + [1] * 2 + [2]
    loss, plain = (weighted_loss(Target("ordinal", 3), labels, class_weights=name) for name in ("balanced", "none"))
    mean, deviation = np.mean(labels), np.std(labels)
    targets = torch.tensor((np.array([[0], [1], [2]]) - mean) / deviation, dtype=torch.float32)
    outputs = torch.tensor([[0.5], [-0.2], [3.0]])
    weights = torch.tensor([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1)])
    assert torch.allclose(loss.of_each(outputs, targets), weights * plain.of_each(outputs, targets))


def test_the_loss_of_a_number_is_hubers():
    outputs, targets = torch.tensor([[0.5], [3.0]]), torch.tensor([[0.0], [0.0]])
    assert loss_of(Target("number", 1)).of_each(outputs, targets).tolist() == [0.125, 2.5]


def test_a_network_learns_a_number_in_its_own_units(tmp_path):
    ages = (1000 + brightness(ROWS, seed=0) / 2).tolist()
    workspace = toy_workspace(
        tmp_path, {"label": ages}, target="number", metric="rmse", kind="number", validation="rows = 20"
    )
    (run,) = workspace.runs
    predictions = train_run(workspace, run)
    assert predictions.oof_logits.shape == (20, 1) and predictions.oof_labels.dtype == np.float64
    assert predictions.about["scores"]["rmse"] < 0.8 * np.std(predictions.oof_labels)
    assert abs(predictions.test_logits.mean() - 1064) < 30
    rows = dict(predict_images(open_predictor(workspace, ["tiny.s1"]), tmp_path / "images" / "test"))
    expected = dict(zip(predictions.test_ids.tolist(), predictions.test_logits[:, 0].tolist(), strict=True))
    for name, number in rows.items():
        assert float(number["label"]) == pytest.approx(expected[name.removesuffix(".png")], abs=1)


def test_an_ordered_class_is_trained_as_a_number(tmp_path):
    grades = (brightness(ROWS, seed=0) // 64).tolist()
    workspace = toy_workspace(
        tmp_path, {"label": grades}, target="ordinal", metric="qwk", kind="labels", validation="rows = 20"
    )
    (run,) = workspace.runs
    predictions = train_run(workspace, run)
    assert predictions.oof_logits.shape == (20, 1) and predictions.oof_labels.dtype == np.int64
    assert 0 < predictions.about["scores"]["qwk"] <= 1 and 0 < predictions.oof_logits.mean() < 3
    rows = dict(predict_images(open_predictor(workspace, ["tiny.s1"]), tmp_path / "images" / "test"))
    assert {row["label"] for row in rows.values()} <= set("0123")


def test_a_network_learns_several_labels_of_each_image(tmp_path):
    greys = brightness(ROWS, seed=0)
    labels = {"dark": (greys < 128).astype(int).tolist(), "light": (greys > 90).astype(int).tolist()}
    workspace = toy_workspace(
        tmp_path, labels, target="multi-label", metric="auc", kind="probabilities", validation="rows = 20"
    )
    (run,) = workspace.runs
    predictions = train_run(workspace, run)
    assert predictions.oof_logits.shape == (20, 2) and predictions.oof_labels.shape == (20, 2)
    assert predictions.about["target"] == "multi-label" and set(predictions.about["scores"]) == {"accuracy", "log_loss"}
    target = workspace.lock.target
    assert target.scores_of(predictions.oof_logits, predictions.oof_labels, "auc")["auc"] > 0.9
    rows = predict_images(open_predictor(workspace, ["tiny.s1"]), tmp_path / "images" / "test")
    expected = dict(zip(predictions.test_ids.tolist(), target.probabilities(predictions.test_logits), strict=True))
    for name, row in rows:
        assert list(row) == ["dark", "light"]
        np.testing.assert_allclose(list(row.values()), expected[name.removesuffix(".png")], atol=0.02)


@pytest.mark.parametrize(
    ("settings", "labels", "table", "expected"),
    [
        (
            {"target": "multi-label", "metric": "auc", "kind": "probabilities"},
            {"dark": [1, 0] * 30, "light": [1, 0, 0] * 20},
            "id,dark,light\n7,0,1\n2,1,1\n",
            [[0, 1], [1, 1]],
        ),
        (
            {"target": "ordinal", "metric": "qwk", "kind": "labels"},
            {"label": [10, 20, 30] * 20},
            "id,label\n7,30\n2,10\n",
            [2, 0],
        ),
        (
            {"target": "number", "metric": "rmse", "kind": "number"},
            {"label": [1.5, 2.0, 7.0] * 20},
            "id,label\n7,3.25\n2,1e3\n",
            [3.25, 1000.0],
        ),
    ],
    ids=["multi-label", "ordinal", "number"],
)
def test_pseudo_labels_of_every_target_train_in_every_fold_and_are_never_scored(
    tmp_path, monkeypatch, settings, labels, table, expected
):
    workspace = toy_workspace(tmp_path, labels, validation='kind = "k-fold"\nfolds = 2', **settings)
    (tmp_path / "pseudo.csv").write_text(table)
    fit, fits = run_module.fit_network, []
    monkeypatch.setattr(run_module, "fit_network", lambda *args, **keys: fits.append(args[1]) or fit(*args, **keys))
    (run,) = workspace.runs
    keys = {"pseudo_labels": "pseudo.csv", "epochs": 1, "refit": True}
    predictions = train_run(workspace, replace(run, recipe=replace(run.recipe, **keys)))
    assert predictions.about["pseudo_labels"] == 2 and len(fits) == 3
    assert predictions.oof_ids.tolist() == workspace.lock.train_ids.tolist()
    assert np.array_equal(predictions.oof_labels, workspace.lock.train_labels)
    images = open_images(workspace.paths, workspace.lock, pixels=16, shape="crop").test_images[[7, 2]]
    added = np.array([ROWS, ROWS + 1])
    for data in fits:
        assert np.isin(added, data.training_rows).all() and not np.isin(added, data.validation_rows).any()
        assert data.labels[added].tolist() == expected
        scaled = np.array(expected, float).reshape(2, -1)
        np.testing.assert_allclose(data.targets[added] * data.scale[1] + data.scale[0], scaled, atol=1e-4)
        assert np.array_equal(next(data.store.batches([torch.from_numpy(added)])).gather(), images)
