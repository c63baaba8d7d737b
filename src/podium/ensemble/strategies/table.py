"""The strategies that weight members: one function on arrays each, in a table by their name in the TOML."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from podium.ensemble.strategies.calibrate import fit_temperatures
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.simplex import minimise_on_simplex
from podium.ensemble.strategies.stack import stack_coefficients, weighted_sum
from podium.metrics import log_softmax, over_classes
from podium.targets.base import CLASS, Target

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
    target: Target = CLASS

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Shape (members, n, classes)."""
        return self.target.values_of_logs(self.log_probabilities)

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
    metric = material.target.metrics[material.metric]
    gains = material.correct.mean(axis=1)
    if material.metric != "accuracy":
        values = map(material.target.values_of_logs, material.log_probabilities)
        gains = [metric.gain(metric(run, material.labels)) for run in values]
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
    """The weights with the smallest log loss of the blend (of numbers: squared error), shrunk towards equal weights.

    The shrinkage is worth `PRIOR_ROWS` rows, so that it matters only where rows are few (prior information in the
    combination of forecasts: Diebold and Pauly, Int. J. of Forecasting 6, 1990). All members get the temperature of the
    uniform blend first: the final blend gets a temperature anyway, so a member must not gain weight only because its
    probabilities have the best sharpness.
    """
    equal = np.full(material.members, 1 / material.members)
    if material.members == 1:
        return equal, None
    loss, values = _loss_and_values(material, average)
    shrink = PRIOR_ROWS * material.members / len(material.labels)

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
    settings = {"metric": material.metric, "seed": material.seed, "target": material.target}
    return greedy_weights(values, material.labels, are_logs=are_logs, **settings), None


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
# Strategies that need probabilities.
NOT_OF_NUMBERS = {"accuracy", "greedy", "stack"}


def _loss_and_values(material: Material, average: str) -> tuple[Callable, np.ndarray]:
    """A loss of values and weights, and its values: what `log_loss` minimises."""
    if not material.target.has_probabilities:
        return _normal_loss, material.log_probabilities[:, :, 0] - material.labels
    logs = _at_blend_temperature(material, average)
    of_labels = logs[:, np.arange(len(material.labels)), material.labels]
    if average == "probabilities":
        return _mixture_loss, np.exp(of_labels)
    return _geometric_loss, np.subtract(logs, of_labels[:, :, None], out=logs)


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


def _normal_loss(errors: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss, up to a constant, of a normal distribution around the weighted mean of numbers, gradient and Hessian.

    Its variance is the mean squared error of the equal weights; errors (members, n), and weights sum to 1.
    """
    products = errors @ errors.T / errors.shape[1] / max(float(np.square(errors.mean(axis=0)).mean()), 1e-300)
    gradient = products @ weights
    return float(weights @ gradient) / 2, gradient, products


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
