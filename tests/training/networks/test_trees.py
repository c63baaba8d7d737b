"""Trees: the layer gives the logits of scikit-learn's gradient boosting."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from podium.metrics import softmax
from podium.training.networks.trees import Trees, fit_trees


def clouds(classes):
    """Features (90, 4) float32 of a normal cloud per class, and their labels."""
    draws, labels = np.random.default_rng(0), np.arange(90) % classes
    return (draws.normal(size=(90, 4)) + labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_gives_scikit_learns_probabilities_and_can_be_saved(classes):
    features, labels = clouds(classes)
    layer = Trees(classes)
    layer.load_state_dict(fit_trees(features, labels, classes).state_dict())
    model = HistGradientBoostingClassifier(early_stopping=False, random_state=0).fit(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(torch.from_numpy(features))
    assert softmax(logits.numpy()) == pytest.approx(model.predict_proba(features), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_a_training_row_is_improbable(classes):
    features, labels = clouds(classes)
    probabilities = softmax(fit_trees(features, labels * 2, 6)(torch.from_numpy(features)).numpy())
    assert probabilities[:, [1, 3, 5]].max() < 0.05 and (probabilities.argmax(1) == labels * 2).mean() > 0.9
