"""Heads that are fitted to the features of a pretrained network.

`head = "logistic"` is a logistic regression on standardised features. The published classifier is a second source: its
outputs for the classes that match the task's best are further features, which count as much as all others together.
Cross-fitting within the training rows chooses whether they are used, and how strong the penalty is.

`head = "boosting"` is scikit-learn's gradient boosting, as a layer of the network.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import Tensor, nn

from podium.metrics import log_loss, softmax
from podium.targets.target import Target

Classifier = tuple[np.ndarray, np.ndarray]
"""A linear classifier of d features: weights (classes, d) and biases (classes,)."""

# Inverse strengths of the penalty, for features of variance 1.
STRENGTHS = (0.001, 0.01)
# Of the ridge regression of numbers.
RIDGES = 10.0 ** np.arange(-1, 6)
PARTS, MOST_ROWS = 5, 1_000  # of the cross-fitting
# Of gradient boosting: scikit-learn's defaults, fixed here because they are the shape of a saved layer.
ITERATIONS, LEAVES = 100, 31


def fit_linear(
    layer: nn.Linear, features: np.ndarray, targets: np.ndarray, *, target: Target, published: Sequence[nn.Linear]
) -> None:
    """Make a layer the target's regression on features (n, channels), with the `published` classifier, if any."""
    classifiers = [tuple(part.detach().double().numpy() for part in (other.weight, other.bias)) for other in published]
    features = features.astype(np.float64)
    if target.name == "class":
        weights, biases = fit_classifier(features, targets, layer.out_features, published=classifiers)
    elif target.name == "multi-label":
        weights, biases = fit_columns(features, targets, published=classifiers)
    else:
        weights, biases = fit_numbers(features, targets)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))


def fit_classifier(
    features: np.ndarray, labels: np.ndarray, classes: int, *, published: Sequence[Classifier] = ()
) -> Classifier:
    """The logistic regression of features (n, d) with the settings that have the least cross-fitted log loss."""
    order = np.argsort(labels, kind="stable")
    some = order[:: -(-len(order) // MOST_ROWS)]
    parts = np.arange(len(some)) % PARTS

    def loss(settings: tuple[Classifier | None, float]) -> float:
        logits = np.empty((len(some), classes))
        for part in range(PARTS):
            training, validation = some[parts != part], some[parts == part]
            weights, biases = _regress(features[training], labels[training], classes, *settings)
            logits[parts == part] = features[validation] @ weights.T + biases
        return log_loss(softmax(logits), labels[some])

    best = min(product((None, *published), STRENGTHS), key=loss)
    return _regress(features, labels, classes, *best)


def fit_columns(features: np.ndarray, labels: np.ndarray, *, published: Sequence[Classifier]) -> Classifier:
    """The logistic regression of each column of labels (n, columns), independently; the logits are those of 1."""
    weights, biases = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for place, column in enumerate(labels.T.astype(np.int64)):
        ones, zeros = column.sum(), len(column) - column.sum()
        biases[place] = np.log((ones + 0.5) / (zeros + 0.5))  # of a column that cannot be cross-fitted
        if min(ones, zeros) > 1:
            of_both, biases_of_both = fit_classifier(features, column, 2, published=published)
            weights[place], biases[place] = of_both[1] - of_both[0], biases_of_both[1] - biases_of_both[0]
    return weights, biases


def fit_numbers(features: np.ndarray, targets: np.ndarray) -> Classifier:
    """The ridge regression of targets (n, 1) on features (n, d); leaving rows out chooses the penalty."""
    mean, deviation = features.mean(0), np.maximum(features.std(0), 1e-6)
    model = RidgeCV(RIDGES).fit((features - mean) / deviation, targets[:, 0])
    weights = (model.coef_ / deviation)[None]
    return weights, model.intercept_ - weights @ mean


def _regress(
    features: np.ndarray, labels: np.ndarray, classes: int, published: Classifier | None, strength: float
) -> Classifier:
    mean, deviation = features.mean(0), np.maximum(features.std(0), 1e-6)
    directions = np.diag(1 / deviation)  # (d, inputs): linear functions of the features, of variance 1
    if published:
        probabilities = softmax(features @ published[0].T + published[1])
        raised = [probabilities[labels == k].mean(0) - probabilities[labels != k].mean(0) for k in np.unique(labels)]
        chosen = published[0][np.argmax(raised, axis=1)].T  # the output that each class raises most
        spread = np.maximum(((features - mean) @ chosen).std(0), 1e-6)
        directions = np.hstack([directions, chosen / spread * len(chosen) ** 0.5])
    model = LogisticRegression(C=strength, max_iter=1000).fit((features - mean) @ directions, labels)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one output then
        coefficients, intercepts = (np.concatenate([-values, values]) / 2 for values in (coefficients, intercepts))
    weights = np.zeros((classes, features.shape[1]))
    biases = np.full(classes, intercepts.min() - np.log(len(labels)))  # of a class without a training row
    weights[model.classes_], biases[model.classes_] = coefficients @ directions.T, intercepts
    return weights, biases - weights @ mean


class Trees(nn.Module):
    """Features (n, channels) -> logits (n, classes): a base value, and the values of the leaves that an image ends in.

    There are ITERATIONS x classes trees. Node 0 is the root of a tree, and both children of a leaf are the leaf itself.
    A saved layer is loaded like any other: scikit-learn's own files would have to be run as code.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.out_features = classes
        shape = (ITERATIONS, classes, 2 * LEAVES - 1)
        self.register_buffer("base", torch.zeros(classes, dtype=torch.float64))
        for name in ("channel", "left", "right"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, classes) float32."""
        values, logits = features.double().T, self.base.repeat(len(features), 1)  # a product would round to bfloat16
        for trees in zip(self.channel, self.threshold, self.left, self.right, self.value, strict=True):
            channel, threshold, left, right, value = trees  # (classes, nodes)
            node = torch.zeros((len(channel), len(features)), dtype=torch.int64, device=features.device)
            while True:
                goes_left = values.gather(0, channel.gather(1, node)) <= threshold.gather(1, node)
                child = torch.where(goes_left, left.gather(1, node), right.gather(1, node))
                if torch.equal(child, node):
                    break
                node = child
            logits += value.gather(1, node).T
        return logits.float()


def fit_trees(features: np.ndarray, labels: np.ndarray, classes: int) -> Trees:
    """The layer of a HistGradientBoostingClassifier that is fitted to features (n, channels) and labels (n,)."""
    model = HistGradientBoostingClassifier(
        max_iter=ITERATIONS, max_leaf_nodes=LEAVES, early_stopping=False, random_state=0
    ).fit(features, labels)
    layer, present = Trees(classes), model.classes_.tolist()
    base = model._baseline_prediction.ravel()
    # Of two classes there is one tree an iteration, for the difference of their logits.
    outputs = [(label, k, 1.0) for k, label in enumerate(present)]
    if len(base) == 1:
        outputs = [(present[0], 0, -0.5), (present[1], 0, 0.5)]
    layer.base[:] = min(factor * base[k] for _, k, factor in outputs) - np.log(len(labels))  # of a class without rows
    for label, k, factor in outputs:
        layer.base[label] = factor * base[k]
        for i, trees in enumerate(model._predictors):
            nodes = trees[k].nodes
            own, is_leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
            arrays = {
                "channel": np.where(is_leaf, 0, nodes["feature_idx"]),
                "threshold": np.where(is_leaf, 0, nodes["num_threshold"]),
                "left": np.where(is_leaf, own, nodes["left"]),
                "right": np.where(is_leaf, own, nodes["right"]),
                "value": factor * nodes["value"],
            }
            for name, array in arrays.items():
                getattr(layer, name)[i, label, : len(nodes)] = torch.from_numpy(array)
    return layer
