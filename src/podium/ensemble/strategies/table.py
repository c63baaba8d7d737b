"""The strategies that weight members: one function on arrays each, in a table by their name in the TOML."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.simplex import minimise_on_simplex
from podium.ensemble.strategies.stack import stack_coefficients, weighted_sum
from podium.metrics import METRICS, log_softmax, over_classes

# Bounds of the blend's temperature in `log_loss`: a blend without errors would get 0, and then all weights are equal.
TEMPERATURES = (0.2, 5.0)
# How strongly `log_loss` shrinks, measured with `benchmarks/honesty.py --prior-rows` (docs/ensembles.md).
PRIOR_ROWS = 5.0


@dataclass(frozen=True, eq=False)
class Material:
    """What a strategy is fitted on: calibrated log-probabilities of the members, and the labels of their rows."""

    log_probabilities: np.ndarray  # (members, n, classes)
    labels: np.ndarray  # (n,)
    metric: str
    seed: int
    correct: np.ndarray  # (members, n) bool: which rows each member predicts correctly

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Shape (members, n, classes)."""
        return np.exp(self.log_probabilities)

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.log_probabilities)


# Weights (members,), none negative, sum 1, and None; or a stack's free coefficients and biases (classes,).
Weights = tuple[np.ndarray, np.ndarray | None]
# Material, and the kind of average: of probabilities, or of logits, the geometric mean -> weights.
Strategy = Callable[[Material, str], Weights]


def best(material: Material, average: str) -> Weights:
    """All weight to the member with the best score; of equal ones the first."""
    metric = METRICS[material.metric]
    gains = material.correct.mean(axis=1)
    if material.metric != "accuracy":
        gains = [metric.gain(metric(np.exp(logs), material.labels)) for logs in material.log_probabilities]
    weights = np.zeros(material.members)
    weights[int(np.argmax(np.nan_to_num(gains, nan=-np.inf)))] = 1
    return weights, None


def uniform(material: Material, average: str) -> Weights:
    """Equal weights."""
    return np.full(material.members, 1 / material.members), None


def accuracy(material: Material, average: str) -> Weights:
    """In proportion to validation accuracy; equal if no member predicts any row correctly."""
    accuracies = material.correct.mean(axis=1)
    if not accuracies.any():
        return uniform(material, average)
    return accuracies / accuracies.sum(), None


def log_loss(material: Material, average: str) -> Weights:
    """The weights whose blend has the smallest log loss, shrunk towards equal weights.

    The shrinkage is worth `PRIOR_ROWS` rows, so that it matters only where rows are few (prior information in the
    combination of forecasts: Diebold and Pauly, Int. J. of Forecasting 6, 1990). All members get the temperature of the
    uniform blend first: the final blend gets a temperature anyway, so a member must not gain weight only because its
    probabilities have the best sharpness.
    """
    equal = np.full(material.members, 1 / material.members)
    if material.members == 1:
        return equal, None
    rows = np.arange(len(material.labels))
    logs = _at_blend_temperature(material, average)
    of_labels = logs[:, rows, material.labels]
    if average == "probabilities":
        loss, values = _mixture_loss, np.exp(of_labels)
    else:
        loss, values = _geometric_loss, np.subtract(logs, of_labels[:, :, None], out=logs)
    shrink = PRIOR_ROWS * material.members / len(rows)

    def shrunk_loss(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, gradient, hessian = loss(values, weights)
        distance = weights - equal
        penalty = shrink / 2 * float(distance @ distance)
        return value + penalty, gradient + shrink * distance, hessian + shrink * np.eye(len(equal))

    return minimise_on_simplex(shrunk_loss, equal), None


def greedy(material: Material, average: str) -> Weights:
    """Ensemble selection with replacement."""
    are_logs = average == "logits"
    values = material.log_probabilities if are_logs else material.probabilities
    weights = greedy_weights(values, material.labels, metric=material.metric, seed=material.seed, are_logs=are_logs)
    return weights, None


def stack(material: Material, average: str) -> Weights:
    """A regularised multinomial logistic regression on the members' log-probabilities."""
    return stack_coefficients(material.log_probabilities, material.labels)


# From the simplest on: of strategies that score equally, `auto` chooses the first.
STRATEGIES: dict[str, Strategy] = {
    "best": best,
    "uniform": uniform,
    "accuracy": accuracy,
    "log-loss": log_loss,
    "greedy": greedy,
    "stack": stack,
}
# Strategies for which the kind of average makes no difference.
ONE_AVERAGE = {"best", "stack"}


def _at_blend_temperature(material: Material, average: str) -> np.ndarray:
    """The members' log-probabilities (members, n, classes), all at the best temperature of their uniform blend."""
    logs = material.log_probabilities
    uniform_blend = logs.mean(axis=0)
    if average == "probabilities":
        uniform_blend = np.log(np.maximum(material.probabilities.mean(axis=0), np.finfo(logs.dtype).tiny))
    temperature = np.clip(fit_temperatures(uniform_blend[None], material.labels)[0], *TEMPERATURES)
    scaled = np.empty_like(logs)
    for place, member in enumerate(logs):
        scaled[place] = log_softmax(member / temperature)
    return scaled


def _mixture_loss(label_probabilities: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of probabilities, gradient and Hessian; label_probabilities (members, n)."""
    blend = np.maximum(weights @ label_probabilities, 1e-12)
    ratio = label_probabilities / blend
    return float(-np.log(blend).mean()), -ratio.mean(axis=1), ratio @ ratio.T / ratio.shape[1]


def _geometric_loss(z: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of logits, gradient and Hessian; z (members, n, classes) are 0 at the labels."""
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
    return value, expected.mean(axis=1), hessian
