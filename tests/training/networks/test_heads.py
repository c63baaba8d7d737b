"""Heads on frozen features: the logistic regression and the trees are scikit-learn's, and layers of the network."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from digits_toys import digits_workspace, save_test_images
from podium.config.keys import Recipe
from podium.metrics import softmax
from podium.targets.target import Target
from podium.training import learner
from podium.training.batches.stores import FitData, PixelStore
from podium.training.inference import evaluation_batches, logits_of, predict_logits
from podium.training.learner import fit_network
from podium.training.lr_find import find_learning_rate
from podium.training.networks import heads
from podium.training.networks.heads import Trees, fit_classifier, fit_trees
from podium.training.predict import open_predictor, predict_images
from podium.training.progress import Listener, ProgressRecorder
from podium.training.run import train_run


def clouds(classes: int, *, rows: int = 90, size: int = 8, distance: float = 0.7):
    """Features (n, size) of a normal cloud per class, and their labels."""
    draws = np.random.default_rng(0)
    centres, labels = draws.normal(size=(classes, size)) * distance, np.arange(rows) % classes
    return (draws.normal(size=(rows, size)) + centres[labels]) * 3 + 5, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_classifier_is_scikit_learns_on_standardised_features(monkeypatch, classes):
    monkeypatch.setattr(heads, "STRENGTHS", (0.01,))
    features, labels = clouds(classes)
    weights, biases = fit_classifier(features, labels, classes)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(features, labels)
    assert softmax(features @ weights.T + biases) == pytest.approx(expected.predict_proba(features), abs=1e-4)


def log_loss_of(classifier, features, labels):
    probabilities = softmax(features @ classifier[0].T + classifier[1])
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def test_a_published_classifier_that_knows_the_classes_helps_and_another_does_not_harm():
    features, labels = clouds(2, rows=2060, size=200, distance=0.1)
    features, labels, fresh, fresh_labels = features[:60], labels[:60], features[60:], labels[60:]
    direction = fresh[fresh_labels == 1].mean(0) - fresh[fresh_labels == 0].mean(0)
    knowing = np.zeros((5, 200)), np.zeros(5)
    knowing[0][4], knowing[0][2] = direction / 100, -direction / 100
    alone = log_loss_of(fit_classifier(features, labels, 2), fresh, fresh_labels)
    helped = log_loss_of(fit_classifier(features, labels, 2, published=[knowing]), fresh, fresh_labels)
    assert helped < 0.7 * alone
    useless = np.zeros((5, 200)), np.zeros(5)
    assert log_loss_of(fit_classifier(features, labels, 2, published=[useless]), fresh, fresh_labels) == alone


def test_the_strength_is_chosen_by_cross_fitting():
    for distance, strength in (0.0, 0.001), (0.1, 0.01):
        features, labels = clouds(2, rows=400, size=50, distance=distance)
        weights, _ = fit_classifier(features, labels, 2)
        assert np.array_equal(weights, heads._regress(features, labels, 2, (None, strength))[0])


def test_a_class_without_a_training_row_is_improbable():
    features, labels = clouds(2)
    weights, biases = fit_classifier(features, labels * 2, 4)
    probabilities = softmax(features @ weights.T + biases)
    assert probabilities[:, [1, 3]].max() < 0.05 and probabilities.shape == (90, 4)


def pretrained(folder, **keys) -> Recipe:
    """A recipe with a weights file that has a classifier of 1,000 classes."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "weights.pth")
    common = {"architecture": "timm:test_resnet", "pretrained": str(folder / "weights.pth"), "head": "logistic"}
    return Recipe(**common, stored_pixels=16, test_time_augmentation="flip", **keys)


def fit(recipe: Recipe, images: np.ndarray, labels: np.ndarray, folder):
    data = FitData(PixelStore(images, torch.device("cpu")), labels, 2, np.arange(80), np.arange(80, 120), seed=1)
    progress = ProgressRecorder(Listener(), images=recipe.epochs * 80)
    return fit_network(recipe, data, root=folder, progress=progress), data


def two_kinds():
    labels = np.arange(120) % 2
    images = np.random.default_rng(0).integers(0, 120, (120, 16, 16, 3)) + labels[:, None, None, None] * 110
    return images.astype(np.uint8), labels


def test_the_logits_of_the_features_are_those_of_the_network(tmp_path):
    torch.set_num_threads(1)
    recipe = pretrained(tmp_path, precision="float32")
    trained, data = fit(recipe, *two_kinds(), tmp_path)
    assert trained.published[0].out_features == 1000
    logits = logits_of(trained, data.store, data.validation_rows)
    batches = evaluation_batches(trained, data.store, data.validation_rows)
    assert logits == pytest.approx(predict_logits(trained, batches, views="flip"), abs=1e-4)
    assert (logits.argmax(1) == data.labels[80:]).mean() > 0.9


def test_with_epochs_the_training_begins_at_the_logistic_regression(tmp_path):
    recipe = pretrained(tmp_path, precision="float32", batch_size=40)
    images, labels = two_kinds()
    frozen, _ = fit(recipe, images, labels, tmp_path)
    still, _ = fit(replace(recipe, epochs=1, learning_rate=1e-12), images, labels, tmp_path)
    assert torch.allclose(still.head[-1].weight, frozen.head[-1].weight, atol=1e-6)
    moved, _ = fit(replace(recipe, epochs=2, learning_rate=0.01), images, labels, tmp_path)
    assert not torch.allclose(moved.head[-1].weight, frozen.head[-1].weight, atol=1e-4)


def test_after_a_logistic_head_the_body_keeps_its_statistics_and_the_start_counts(tmp_path, monkeypatch):
    recipe = pretrained(tmp_path, precision="float32", batch_size=40, epochs=2, learning_rate=0.01)
    frozen, _ = fit(replace(recipe, epochs=0), *two_kinds(), tmp_path)
    networks = []
    for steps in (0, 4, 10**9):  # 4 steps are trained
        monkeypatch.setattr(learner, "START_STEPS", steps)
        networks.append(fit(recipe, *two_kinds(), tmp_path)[0])
    statistics = [list(network.buffers()) for network in (frozen, networks[0])]
    assert len(statistics[0]) > 10 and all(map(torch.equal, *statistics))
    for start, moved, half, same in zip(frozen.parameters(), *(n.parameters() for n in networks), strict=True):
        assert not torch.allclose(start, moved, atol=1e-4) and torch.allclose(start, same, atol=1e-6)
        assert torch.allclose((start + moved) / 2, half, atol=1e-6)


def test_the_start_counts_after_a_moving_average_too(tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "START_STEPS", 10**9)
    recipe = pretrained(tmp_path, precision="float32", batch_size=40, epochs=1, learning_rate=0.01, ema_decay=0.5)
    trained, start = (fit(replace(recipe, epochs=epochs), *two_kinds(), tmp_path)[0] for epochs in (1, 0))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(trained.parameters(), start.parameters(), strict=True))


def test_lr_find_begins_at_the_logistic_regression(tmp_path):
    recipe = pretrained(tmp_path, precision="float32", batch_size=40, epochs=2, learning_rate="find")
    data = FitData(
        PixelStore(two_kinds()[0], torch.device("cpu")), two_kinds()[1], 2, np.arange(80), np.arange(80, 120)
    )
    assert find_learning_rate(recipe, data, root=tmp_path).losses[0] < 0.5  # log(2) with a random head


@pytest.mark.parametrize("validation", ["rows = 297", 'kind = "k-fold"\nfolds = 2'])
def test_a_run_without_epochs_is_saved_and_its_parameters_predict(tmp_path, validation):
    workspace = digits_workspace(tmp_path, validation=validation)
    (run,) = workspace.runs
    predictions = train_run(workspace, replace(run, recipe=pretrained(tmp_path, precision="float32")))
    assert predictions.about["scores"]["accuracy"] > 0.6  # of ten classes, by the features of a random network
    folder, expected = save_test_images(workspace, predictions)
    assert [row["label"] for _, row in predict_images(open_predictor(workspace, [run.run]), folder)] == expected


def small_clouds(classes):
    """Features (90, 4) float32 of a normal cloud per class, and their labels."""
    draws, labels = np.random.default_rng(0), np.arange(90) % classes
    return (draws.normal(size=(90, 4)) + labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_of_trees_gives_scikit_learns_probabilities_and_can_be_saved(classes):
    features, labels = small_clouds(classes)
    layer = Trees(classes)
    layer.load_state_dict(fit_trees(features, labels, classes).state_dict())
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=0).fit(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(torch.from_numpy(features))
    assert softmax(logits.numpy()) == pytest.approx(model.predict_proba(features), abs=1e-6)


def test_trees_of_columns_and_of_numbers_are_scikit_learns():
    features, labels = small_clouds(3)
    settings = {"early_stopping": False, "random_state": 0}
    columns = np.stack([labels == 1, labels > 0, labels < 5], axis=1).astype(np.float32)  # the last one is always 1
    logits = fit_trees(features, columns, 3, target=Target("multi-label", 3))(torch.from_numpy(features)).numpy()
    for place in range(2):
        model = HistGradientBoostingClassifier(**settings).fit(features, columns[:, place])
        assert 1 / (1 + np.exp(-logits[:, place])) == pytest.approx(model.predict_proba(features)[:, 1], abs=1e-6)
    assert logits[:, 2] == pytest.approx(np.log(90.5 / 0.5))
    numbers = labels * 2.5
    fitted = fit_trees(features, numbers[:, None], 1, target=Target("number", 1))(torch.from_numpy(features)).numpy()
    model = HistGradientBoostingRegressor(**settings).fit(features, numbers)
    assert fitted[:, 0] == pytest.approx(model.predict(features), abs=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_a_training_row_is_improbable_for_trees(classes):
    features, labels = small_clouds(classes)
    probabilities = softmax(fit_trees(features, labels * 2, 6)(torch.from_numpy(features)).numpy())
    assert probabilities[:, [1, 3, 5]].max() < 0.05 and (probabilities.argmax(1) == labels * 2).mean() > 0.9
