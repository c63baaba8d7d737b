"""`head = "boosting"`: scikit-learn's gradient boosting on features, as a layer of the network."""

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

# scikit-learn's defaults, fixed here because they are the shape of a saved layer.
ITERATIONS, LEAVES = 100, 31


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
