"""How members are weighted: each strategy is one function on arrays, found by its name in the TOML."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.simplex import minimise_on_simplex
from podium.ensemble.strategies.stack import stack_coefficients, weighted_sum
from podium.metrics import METRICS, log_softmax, over_classes

# A blend that has every row right would be sharpened until all weights are as good as each other.
TEMPERATURES = (0.2, 5.0)


@dataclass(frozen=True, eq=False)
class Material:
    """What a strategy may look at: calibrated log-probabilities of the members, and the labels of those rows."""

    log_probabilities: np.ndarray  # (members, n, classes)
    labels: np.ndarray  # (n,)
    metric: str
    seed: int
    right: np.ndarray  # (members, n) bool: which rows each member has right

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Shape (members, n, classes)."""
        return np.exp(self.log_probabilities)

    @property
    def members(self) -> int:
        """How many there are to weigh."""
        return len(self.log_probabilities)


# Weights (members,), none negative, summing to 1; a stack's are free, and it has biases (classes,) beside them.
Weights = tuple[np.ndarray, np.ndarray | None]
# Material and what is averaged (probabilities, or logits: their geometric mean) -> weights.
Strategy = Callable[[Material, str], Weights]


def best(material: Material, average: str) -> Weights:
    """Everything to the member with the best score; of equal ones to the first."""
    metric = METRICS[material.metric]
    gains = material.right.mean(axis=1)
    if material.metric != "accuracy":
        gains = [metric.gain(metric(one, material.labels)) for one in material.probabilities]
    weights = np.zeros(material.members)
    weights[int(np.argmax(np.nan_to_num(gains, nan=-np.inf)))] = 1
    return weights, None


def uniform(material: Material, average: str) -> Weights:
    """The same to everyone."""
    return np.full(material.members, 1 / material.members), None


def accuracy(material: Material, average: str) -> Weights:
    """In proportion to validation accuracy; equal where no member gets any row right."""
    accuracies = material.right.mean(axis=1)
    if not accuracies.any():
        return uniform(material, average)
    return accuracies / accuracies.sum(), None


def log_loss(material: Material, average: str) -> Weights:
    """The weights whose blend has the least log loss, which is convex in them.

    The blend gets a temperature afterwards. So that weights do not go to whoever is nearest to the right sharpness,
    as they would where all members were smoothed, all are taken at the temperature of the uniform blend.
    """
    start = np.full(material.members, 1 / material.members)
    if material.members == 1:
        return start, None
    rows = np.arange(len(material.labels))
    logs = _at_the_blends_temperature(material, average)
    right = logs[:, rows, material.labels]
    if average == "probabilities":
        shares = np.exp(right.astype(np.float64))
        return minimise_on_simplex(lambda weights: _mixture_loss(shares, weights), start), None
    z = logs - right[:, :, None]
    return minimise_on_simplex(lambda weights: _geometric_loss(z, weights), start), None


def greedy(material: Material, average: str) -> Weights:
    """Ensemble selection with replacement on what is averaged."""
    are_logs = average == "logits"
    averaged = material.log_probabilities if are_logs else material.probabilities
    weights = greedy_weights(averaged, material.labels, metric=material.metric, seed=material.seed, are_logs=are_logs)
    return weights, None


def stack(material: Material, average: str) -> Weights:
    """A regularised multinomial logistic regression on the members' log-probabilities."""
    return stack_coefficients(material.log_probabilities, material.labels)


# From the simplest to the least simple: of strategies that are as good as each other, `auto` takes the first.
STRATEGIES: dict[str, Strategy] = {
    "best": best,
    "uniform": uniform,
    "accuracy": accuracy,
    "log-loss": log_loss,
    "greedy": greedy,
    "stack": stack,
}
# What averages nothing, or always averages logits.
ONE_AVERAGE = {"best", "stack"}


def _at_the_blends_temperature(material: Material, average: str) -> np.ndarray:
    """The members' log-probabilities (members, n, classes), all at the temperature that suits their uniform blend."""
    logs = material.log_probabilities
    uniform_blend = logs.mean(axis=0)
    if average == "probabilities":
        uniform_blend = np.log(np.maximum(material.probabilities.mean(axis=0), np.finfo(logs.dtype).tiny))
    temperature = np.clip(fit_temperatures(uniform_blend[None], material.labels)[0], *TEMPERATURES)
    return log_softmax(logs / temperature.astype(logs.dtype))


def _mixture_loss(right: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of probabilities; right (members, n) are those of the labels."""
    blend = np.maximum(weights @ right, 1e-12)
    ratio = right / blend
    return float(-np.log(blend).mean()), -ratio.mean(axis=1), ratio @ ratio.T / right.shape[1]


def _geometric_loss(z: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of logits; z (members, n, classes) are 0 at the labels."""
    members, rows, _ = z.shape
    flat = z.reshape(members, -1)
    scores = weighted_sum(z, weights)
    top = over_classes(np.maximum, scores)
    shares = np.exp(scores - top[:, None])
    total = over_classes(np.add, shares)
    value = float((np.log(total) + top).mean())
    weighted = flat * (shares / total[:, None]).reshape(-1)
    expected = over_classes(np.add, weighted.reshape(z.shape))
    hessian = (weighted @ flat.T - expected @ expected.T) / rows
    return value, expected.mean(axis=1, dtype=np.float64), hessian.astype(np.float64)
