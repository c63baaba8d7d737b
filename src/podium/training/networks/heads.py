"""Heads that are fitted to the features of a pretrained network.

`head = "logistic"` is a logistic regression on standardised features. The published classifier is a second source: its
outputs for the classes that match the task's best are further features, which count as much as all others together.
Cross-fitting within the training rows chooses whether they are used, and how strong the penalty is. Columns of
metadata, which come after the features, count as much as all features together too.

`head = "boosting"` is scikit-learn's gradient boosting, as a layer of the network.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn
from torch.nn.functional import pad

from podium.metrics import log_loss, softmax
from podium.targets.target import CLASS, Target

Classifier = tuple[np.ndarray, np.ndarray]
"""A linear classifier of d features: weights (classes, d) and biases (classes,)."""
Settings = tuple[Classifier | None, float]
"""Of a logistic regression: the published classifier that it uses, if any, and the strength of its penalty."""

# Inverse strengths of the penalty, for features of variance 1.
STRENGTHS = (0.001, 0.01)
# Of the ridge regression of numbers.
RIDGES = 10.0 ** np.arange(-1, 6)
PARTS, MOST_ROWS = 5, 1_000  # of the cross-fitting
# Of gradient boosting: scikit-learn's defaults, fixed here because they are the shape of a saved layer.
ITERATIONS, LEAVES = 100, 31


def metadata_encoder(cells: np.ndarray) -> ColumnTransformer:
    """What makes numbers of the cells (n, columns) of metadata, fitted to those of training rows.

    Numbers are standardised; a missing one is replaced by the mean, and a further column is 1 for it. Each text has a
    column of 0 and 1; all are 0 for a text that no training row has.
    """
    is_number = [isinstance(cell, float) for cell in cells[0]]
    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = np.flatnonzero(is_number), np.flatnonzero(~np.array(is_number))
    return make_column_transformer(*zip((numbers, texts), columns, strict=True)).fit(cells)


def fit_linear(
    layer: nn.Linear, features: np.ndarray, targets: np.ndarray, *, target: Target, published: Sequence[nn.Linear]
) -> None:
    """Make a layer the target's regression on features (n, channels), with the `published` classifier, if any.

    Columns after the channels are metadata, for which the layer gets wider.
    """
    others = features.shape[1] - layer.in_features
    tensors = [(classifier.weight.detach(), classifier.bias.detach()) for classifier in published]
    classifiers = [(pad(weight, (0, others)).double().numpy(), bias.double().numpy()) for weight, bias in tensors]
    features = features.astype(np.float64)
    if target.name == "class":
        weights, biases = fit_classifier(features, targets, layer.out_features, published=classifiers, others=others)
    elif target.name == "multi-label":
        weights, biases = fit_columns(features, targets, published=classifiers, others=others)
    else:
        weights, biases = fit_numbers(features, targets, others=others)
    layer.in_features = features.shape[1]
    layer.weight.data, layer.bias.data = (torch.from_numpy(values).to(layer.weight) for values in (weights, biases))


def fit_classifier(
    features: np.ndarray, labels: np.ndarray, classes: int, *, published: Sequence[Classifier] = (), others: int = 0
) -> Classifier:
    """The logistic regression of features (n, d) with the settings that have the least cross-fitted log loss."""
    order = np.argsort(labels, kind="stable")
    some = order[:: -(-len(order) // MOST_ROWS)]
    parts = np.arange(len(some)) % PARTS

    def loss(settings: Settings) -> float:
        logits = np.empty((len(some), classes))
        for part in range(PARTS):
            training, validation = some[parts != part], some[parts == part]
            weights, biases = _regress(features[training], labels[training], classes, settings, others=others)
            logits[parts == part] = features[validation] @ weights.T + biases
        return log_loss(softmax(logits), labels[some])

    best = min(product((None, *published), STRENGTHS), key=loss)
    return _regress(features, labels, classes, best, others=others)


def fit_columns(
    features: np.ndarray, labels: np.ndarray, *, published: Sequence[Classifier], others: int = 0
) -> Classifier:
    """The logistic regression of each column of labels (n, columns), independently; the logits are those of 1."""
    weights, biases = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    for place, column in enumerate(labels.T.astype(np.int64)):
        biases[place] = _log_odds(column)
        if 1 < column.sum() < len(column) - 1:
            of_both, biases_of_both = fit_classifier(features, column, 2, published=published, others=others)
            weights[place], biases[place] = of_both[1] - of_both[0], biases_of_both[1] - biases_of_both[0]
    return weights, biases


def fit_numbers(features: np.ndarray, targets: np.ndarray, *, others: int = 0) -> Classifier:
    """The ridge regression of targets (n, 1) on features (n, d); leaving rows out chooses the penalty."""
    mean, deviation = _mean_and_scale(features, others)
    model = RidgeCV(RIDGES).fit((features - mean) / deviation, targets[:, 0])
    weights = (model.coef_ / deviation)[None]
    return weights, model.intercept_ - weights @ mean


def _log_odds(labels: np.ndarray) -> float:
    """The logit of a column of labels (n,) 0 or 1 that has too few of either to be fitted."""
    return float(np.log((labels.sum() + 0.5) / (len(labels) - labels.sum() + 0.5)))


def _mean_and_scale(features: np.ndarray, others: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of features (n, d), and what divides them: to variance 1, the last `others` to the sum of the rest."""
    deviation = np.maximum(features.std(0), 1e-6)
    if others:
        deviation[-others:] *= (others / (features.shape[1] - others)) ** 0.5
    return features.mean(0), deviation


def _regress(
    features: np.ndarray, labels: np.ndarray, classes: int, settings: Settings, *, others: int = 0
) -> Classifier:
    (published, strength), (mean, deviation) = settings, _mean_and_scale(features, others)
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

    def copy_trees(self, model: BaseEstimator, places: Sequence[tuple[int, int, float]]) -> None:
        """Copy the trees of gradient boosting; `places` are the output, the place in an iteration and the factor."""
        for output, k, factor in places:
            self.base[output] = factor * model._baseline_prediction.ravel()[k]
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
                    getattr(self, name)[i, output, : len(nodes)] = torch.from_numpy(array)

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


def fit_trees(features: np.ndarray, targets: np.ndarray, outputs: int, *, target: Target = CLASS) -> Trees:
    """The layer of scikit-learn's gradient boosting of features (n, channels): of classes, columns or numbers."""
    settings = {"max_iter": ITERATIONS, "max_leaf_nodes": LEAVES, "early_stopping": False, "random_state": 0}
    layer = Trees(outputs)
    if not target.has_probabilities:
        layer.copy_trees(HistGradientBoostingRegressor(**settings).fit(features, targets[:, 0]), [(0, 0, 1.0)])
    elif target.has_columns:
        for column, labels in enumerate(targets.T):
            layer.base[column] = _log_odds(labels)
            if len(np.unique(labels)) == 2:
                layer.copy_trees(HistGradientBoostingClassifier(**settings).fit(features, labels), [(column, 0, 1.0)])
    else:
        model = HistGradientBoostingClassifier(**settings).fit(features, targets)
        base, present = model._baseline_prediction.ravel(), model.classes_.tolist()
        # Of two classes there is one tree an iteration, for the difference of their logits.
        places = [(label, k, 1.0) for k, label in enumerate(present)]
        if len(base) == 1:
            places = [(present[0], 0, -0.5), (present[1], 0, 0.5)]
        layer.base[:] = min(factor * base[k] for _, k, factor in places) - np.log(len(targets))  # of an absent class
        layer.copy_trees(model, places)
    return layer
