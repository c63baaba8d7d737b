"""The loss that a recipe trains with."""

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from podium.config.keys import Recipe
from podium.training.batches.loader import FitData

# The factor of the focal loss is at least this: a root has no gradient at 0.
LEAST_FACTOR = 1e-6


class ClassLoss(nn.Module):
    """Cross-entropy of logits (n, classes) and targets: labels (n,), or shares (n, classes) of mixed images.

    `weights` (classes,) multiply the part of each class. A `focal_gamma` above 0 multiplies it by
    (1 - probability)^gamma: the better a class is known, the less (arXiv:1708.02002).
    """

    def __init__(self, recipe: Recipe, weights: Tensor | None = None):
        super().__init__()
        self.smoothing, self.gamma, self.weights = recipe.label_smoothing, recipe.focal_gamma, weights

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
            return self.of_each(logits, targets).mean()
        return cross_entropy(logits, targets, label_smoothing=self.smoothing)


def make_loss(recipe: Recipe, data: FitData) -> ClassLoss:
    """The recipe's loss; class weights, if any, are scikit-learn's "balanced" of the training rows."""
    if recipe.class_weights == "none":
        return ClassLoss(recipe)
    labels = data.labels[data.training_rows]
    weights, present = np.ones(data.classes, np.float32), np.unique(labels)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return ClassLoss(recipe, torch.from_numpy(weights).to(data.store.device))
