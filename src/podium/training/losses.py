"""The loss that a recipe trains with: the mean of the losses of the images of a batch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss, one_hot

from podium.config.keys import Recipe
from podium.training.batches.stores import FitData

# The factor of the focal loss is at least this: a root has no gradient at 0.
LEAST_FACTOR = 1e-6


@dataclass(frozen=True)
class Loss:
    """The loss of outputs (n, outputs) and targets: labels (n,), or (n, outputs)."""

    of_each: Callable[[Tensor, Tensor], Tensor]  # of each image, (n,)
    mean: Callable[[Tensor, Tensor], Tensor] | None = None  # torch's own, if there is one

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        return self.mean(outputs, targets) if self.mean else self.of_each(outputs, targets).mean()


def make_loss(recipe: Recipe, data: FitData) -> Loss:
    """The recipe's loss for the target.

    Classes have cross-entropy, labels (n,) or shares (n, classes) of mixed images. Several labels have the mean binary
    cross-entropy of the columns, and numbers, in units of their standard deviation, Huber's loss.
    """
    smoothing, gamma, target = recipe.label_smoothing, recipe.focal_gamma, data.target
    weights = balanced_weights(data) if recipe.class_weights == "balanced" else None
    if not target.has_probabilities:
        return Loss(partial(_losses_of_numbers, weights=weights, data=data))
    if target.has_columns and (gamma or weights is not None):
        return Loss(partial(_weighted_losses_of_labels, gamma=gamma, weights=weights, smoothing=smoothing))
    if target.has_columns:
        return Loss(partial(_losses_of_labels, smoothing=smoothing))
    if gamma:
        return Loss(partial(_focal_losses, gamma=gamma, weights=weights, smoothing=smoothing))
    loss = partial(cross_entropy, weight=weights, label_smoothing=smoothing)
    # torch's mean with weights would divide by the weights of the batch.
    return Loss(partial(loss, reduction="none"), mean=loss if weights is None else None)


def balanced_weights(data: FitData) -> Tensor:
    """scikit-learn's "balanced" weights of the training rows, (classes,), or (columns, 2) of 0 and 1 in each column.

    The weight of an absent class is 1.
    """
    labels = data.labels[data.training_rows]
    columns = labels.T if data.target.has_columns else labels[None]
    values = data.classes if data.target.name == "class" else data.target.value_width
    weights = np.ones((len(columns), values), np.float32)
    for place, column in enumerate(columns):
        present = np.unique(column)
        weights[place, present] = compute_class_weight("balanced", classes=present, y=column)
    return torch.from_numpy(weights if data.target.has_columns else weights[0]).to(data.store.device)


def _focal_losses(logits: Tensor, targets: Tensor, *, gamma: float, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy whose part of each class is multiplied by (1 - probability)^gamma (arXiv:1708.02002)."""
    classes, logs = logits.shape[-1], logits.log_softmax(-1)
    shares = one_hot(targets, classes) if targets.ndim == 1 else targets
    shares = shares * (1 - smoothing) + smoothing / classes
    factors = (-logs.expm1()).clamp_min(LEAST_FACTOR) ** gamma
    return -(shares * logs * factors * (1 if weights is None else weights)).sum(-1)


def _weighted_losses_of_labels(logits: Tensor, targets: Tensor, **settings: Any) -> Tensor:
    """The mean over columns of the focal or weighted cross-entropy between no, whose logit is 0, and yes."""
    shares = torch.stack([1 - targets, targets], -1)
    return _focal_losses(torch.stack([torch.zeros_like(logits), logits], -1), shares, **settings).mean(1)


def _losses_of_labels(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """The mean over columns; label smoothing moves each target (n, columns) towards 1/2."""
    targets = targets * (1 - smoothing) + smoothing / 2
    return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


def _losses_of_numbers(outputs: Tensor, targets: Tensor, *, weights: Tensor | None, data: FitData) -> Tensor:
    """Squares up to 1; beyond, a rare extreme number counts by its distance (P. J. Huber, 1964).

    `weights` (classes,) are of ordered classes, whose numbers the targets are in units of the data's scale.
    """
    losses = huber_loss(outputs, targets, reduction="none").mean(1)
    if weights is None:
        return losses
    mean, deviation = data.scale
    return losses * weights[(targets[:, 0] * deviation + mean).round().long()]
