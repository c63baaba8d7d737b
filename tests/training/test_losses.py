"""The loss by hand on small arrays, and that the defaults are torch's own cross-entropy, bit for bit."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from podium.config.keys import Recipe
from podium.training.batches.stores import FitData, PixelStore
from podium.training.losses import balanced_weights, make_loss

LABELS = torch.tensor([0, 2, 1, 0])
LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def recipe(**keys) -> Recipe:
    return Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, **keys)


def data_of(labels=(), classes=3) -> FitData:
    store, rows = PixelStore(np.zeros((len(labels), 4, 4, 3), np.uint8), torch.device("cpu")), np.arange(len(labels))
    return FitData(store, np.array(labels, np.int64), classes, rows, rows[:0])


def loss_of(**keys):
    """The loss of a recipe with these keys, of three classes."""
    return make_loss(recipe(**keys), data_of())


def test_the_default_loss_is_torchs_with_and_without_smoothing():
    for smoothing in (0.0, 0.2):
        loss = loss_of(label_smoothing=smoothing)
        assert torch.equal(loss(LOGITS, LABELS), nn.CrossEntropyLoss(label_smoothing=smoothing)(LOGITS, LABELS))
        each = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="none")
        assert torch.equal(loss.of_each(LOGITS, LABELS), each)


def test_balanced_weights_are_rows_over_classes_times_rows_of_the_class():
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    store = PixelStore(np.zeros((9, 4, 4, 3), np.uint8), torch.device("cpu"))
    training, validation = np.array([0, 1, 2, 3, 6, 8]), np.array([4, 5, 7])
    data = FitData(store, labels, 3, training, validation)
    loss, weights = make_loss(recipe(class_weights="balanced"), data), balanced_weights(data)
    assert weights.tolist() == [6 / (3 * 4), 6 / (3 * 1), 6 / (3 * 1)]
    # A batch with more of a rare class counts more: the sum is divided by the images, not by the weights.
    by_hand = (weights[LABELS] * -LOGITS.log_softmax(1)[range(4), LABELS]).sum() / 4
    assert loss(LOGITS, LABELS).item() == pytest.approx(by_hand.item())
    without = balanced_weights(FitData(store, labels, 4, training, validation))
    assert without.tolist() == [0.5, 2, 2, 1], "a class without a training row counts as it is"


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_the_focal_loss_is_cross_entropy_times_the_doubt_to_the_power_of_gamma(gamma):
    probabilities = LOGITS.softmax(1)[range(4), LABELS]
    by_hand = -((1 - probabilities) ** gamma) * probabilities.log()
    loss = loss_of(focal_gamma=gamma)
    assert torch.allclose(loss.of_each(LOGITS, LABELS), by_hand) and torch.allclose(
        loss(LOGITS, LABELS), by_hand.mean()
    )


def test_a_focal_loss_weighs_and_smooths_shares_as_cross_entropy_does():
    shares = one_hot(LABELS, 3).float().lerp(torch.tensor([0.2, 0.5, 0.3]), 0.4)
    keys, data = {"label_smoothing": 0.1, "class_weights": "balanced"}, data_of([0, 0, 0, 1, 1, 2])
    focal, plain = (make_loss(recipe(focal_gamma=gamma, **keys), data) for gamma in (1e-9, 0.0))
    for targets in (LABELS, shares):
        assert torch.allclose(focal.of_each(LOGITS, targets), plain.of_each(LOGITS, targets), atol=1e-6)


def test_the_gradient_of_a_focal_loss_is_finite_for_an_image_that_is_known_for_certain():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss_of(focal_gamma=0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()
