"""The head of a pretrained network as a logistic regression on its features: `head = "logistic"`.

Features are standardised. The published classifier is a second source: its outputs for the classes that match the
task's best are further features, which count as much as all others together. Cross-fitting within the training rows
chooses whether they are used, and how strong the penalty is.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import nn

from podium.metrics import log_loss, softmax
from podium.targets.target import Target
from podium.training.networks.architectures import Network

Classifier = tuple[np.ndarray, np.ndarray]
"""A linear classifier of d features: weights (classes, d) and biases (classes,)."""

# Inverse strengths of the penalty, for features of variance 1.
STRENGTHS = (0.001, 0.01)
# Of the ridge regression of numbers.
RIDGES = 10.0 ** np.arange(-1, 6)
PARTS, MOST_ROWS = 5, 1_000  # of the cross-fitting


def linear_layer(
    network: Network, features: np.ndarray, targets: np.ndarray, outputs: int, target: Target
) -> nn.Linear:
    """The linear layer that is the target's regression on the network's features (n, channels)."""
    published = [
        tuple(values.detach().double().numpy() for values in (layer.weight, layer.bias)) for layer in network.published
    ]
    fit = FITS.get(target.name, fit_classifier)
    weights, biases = fit(features.astype(np.float64), targets, outputs, published=published)
    layer = network.head[-1]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(biases))
    return layer


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


def fit_columns(
    features: np.ndarray, labels: np.ndarray, columns: int, *, published: Sequence[Classifier] = ()
) -> Classifier:
    """The logistic regression of each column of labels (n, columns), independently; the logits are those of 1."""
    weights, biases = np.zeros((columns, features.shape[1])), np.zeros(columns)
    for place, column in enumerate(labels.T.astype(np.int64)):
        ones, zeros = column.sum(), len(column) - column.sum()
        biases[place] = np.log((ones + 0.5) / (zeros + 0.5))  # of a column that cannot be cross-fitted
        if min(ones, zeros) > 1:
            of_both, biases_of_both = fit_classifier(features, column, 2, published=published)
            weights[place], biases[place] = of_both[1] - of_both[0], biases_of_both[1] - biases_of_both[0]
    return weights, biases


def fit_numbers(
    features: np.ndarray, targets: np.ndarray, outputs: int, *, published: Sequence[Classifier] = ()
) -> Classifier:
    """The ridge regression of targets (n, 1) on features (n, d); leaving rows out chooses the penalty.

    The published classifier is not used.
    """
    mean, deviation = features.mean(0), np.maximum(features.std(0), 1e-6)
    model = RidgeCV(RIDGES).fit((features - mean) / deviation, targets[:, 0])
    weights = (model.coef_ / deviation)[None]
    return weights, model.intercept_ - weights @ mean


FITS = {"multi-label": fit_columns, "ordinal": fit_numbers, "number": fit_numbers}


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
