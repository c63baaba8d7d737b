"""The loss that a recipe trains with."""

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss, one_hot

from podium.config.keys import Recipe
from podium.training.batches.loader import FitData

# The factor of the focal loss is at least this: a root has no gradient at 0.
LEAST_FACTOR = 1e-6


class Loss(nn.Module):
    """The base of losses: the mean of what `of_each` gives for each image, (n,)."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.smoothing = recipe.label_smoothing

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        return self.of_each(outputs, targets).mean()


class ClassLoss(Loss):
    """Cross-entropy of logits (n, classes) and targets: labels (n,), or shares (n, classes) of mixed images.

    `weights` (classes,) multiply the part of each class. A `focal_gamma` above 0 multiplies it by
    (1 - probability)^gamma: the better a class is known, the less (arXiv:1708.02002).
    """

    def __init__(self, recipe: Recipe, weights: Tensor | None = None):
        super().__init__(recipe)
        self.gamma, self.weights = recipe.focal_gamma, weights

    def of_each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, (n,)."""
        if not self.gamma:
            return cross_entropy(logits, targets, self.weights, label_smoothing=self.smoothing, reduction="none")
        classes, logs = logits.shape[1], logits.log_softmax(1)
        shares = one_hot(targets, classes) if targets.ndim == 1 else targets
        shares = shares * (1 - self.smoothing) + self.smoothing / classes
        factors = (-logs.expm1()).clamp_min(LEAST_FACTOR) ** self.gamma
        return -(shares * logs * factors * (1 if self.weights is None else self.weights)).sum(1)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over the images."""
        if self.gamma or self.weights is not None:  # not torch's mean, which divides by the weights of the batch
            return super().forward(logits, targets)
        return cross_entropy(logits, targets, label_smoothing=self.smoothing)


class LabelsLoss(Loss):
    """Binary cross-entropy of logits (n, columns) and targets (n, columns) from 0 to 1; the mean of the columns.

    Label smoothing moves each target towards 1/2.
    """

    def of_each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, (n,)."""
        targets = targets * (1 - self.smoothing) + self.smoothing / 2
        return binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)


class NumberLoss(Loss):
    """Huber's loss of outputs (n, 1) and targets (n, 1) in units of their standard deviation: squares up to 1.

    Beyond, a rare extreme number counts by its distance (P. J. Huber, 1964).
    """

    def of_each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image, (n,)."""
        return huber_loss(outputs, targets, reduction="none").mean(1)


# Target -> its loss.
LOSSES = {"multi-label": LabelsLoss, "ordinal": NumberLoss, "number": NumberLoss}


def make_loss(recipe: Recipe, data: FitData) -> nn.Module:
    """The recipe's loss for the target; class weights, if any, are scikit-learn's "balanced" of the training rows."""
    if data.target.name in LOSSES:
        return LOSSES[data.target.name](recipe)
    if recipe.class_weights == "none":
        return ClassLoss(recipe)
    labels = data.labels[data.training_rows]
    weights, present = np.ones(data.classes, np.float32), np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return ClassLoss(recipe, torch.from_numpy(weights).to(data.store.device))
