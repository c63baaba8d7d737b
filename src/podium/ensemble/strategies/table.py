"""The strategies that weight the members of a blend: one function each, in a table by their name in the TOML."""

from collections.abc import Callable
from functools import partial

import numpy as np

from podium.ensemble.pool import Pool
from podium.ensemble.strategies.calibrate import fit_temperature
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.losses import geometric_loss, mixture_loss, normal_loss
from podium.ensemble.strategies.simplex import Convex, minimise_on_simplex, shrunk
from podium.ensemble.strategies.stack import stack_coefficients
from podium.metrics import log_softmax

# Bounds of the blend's temperature in `log_loss`: a blend without errors would get 0, and then all weights are equal.
TEMPERATURES = (0.2, 5.0)
# How strongly `log_loss` shrinks, measured with `benchmarks/honesty.py --prior-rows` (docs/ensembles.md).
PRIOR_ROWS = 5.0

# Weights (members,), none negative, sum 1, and None; or a stack's free coefficients and biases (classes,).
Weights = tuple[np.ndarray, np.ndarray | None]
# A pool of the members, and the kind of average: of probabilities, or of logits, the geometric mean -> weights.
Strategy = Callable[[Pool, str], Weights]


def best(pool: Pool, average: str) -> Weights:
    """All weight to the member with the best score; of equal ones the first."""
    weights = np.zeros(len(pool.runs))
    weights[pool.gains().argmax()] = 1.0
    return weights, None


def uniform(pool: Pool, average: str) -> Weights:
    """Equal weights."""
    return np.full(len(pool.runs), 1 / len(pool.runs)), None


def accuracy(pool: Pool, average: str) -> Weights:
    """In proportion to validation accuracy; equal if no member predicts any row correctly."""
    accuracies = pool.correct.mean(axis=1)
    return (accuracies / accuracies.sum(), None) if accuracies.any() else uniform(pool, average)


def log_loss(pool: Pool, average: str) -> Weights:
    """The weights with the smallest log loss of the blend (of numbers: squared error), shrunk towards equal weights.

    The shrinkage is worth `PRIOR_ROWS` rows, so that it matters only where rows are few (prior information in the
    combination of forecasts: Diebold and Pauly, Int. J. of Forecasting 6, 1990).
    """
    equal, _ = uniform(pool, average)
    if len(equal) == 1:
        return equal, None
    strengths = np.full(len(equal), PRIOR_ROWS * len(equal) / len(pool.labels))
    return minimise_on_simplex(shrunk(_loss_of_weights(pool, average), equal, strengths), equal), None


def _loss_of_weights(pool: Pool, average: str) -> Convex:
    """What `log_loss` minimises, with all members at the temperature of their uniform blend.

    The final blend gets a temperature anyway, so a member must not gain weight only because its probabilities have the
    best sharpness.
    """
    if not pool.target.has_probabilities:
        return partial(normal_loss, pool.logs[:, :, 0] - pool.labels)
    uniform_blend = pool.logs.mean(axis=0)
    if average == "probabilities":
        uniform_blend = np.log(np.maximum(np.exp(pool.logs).mean(axis=0), np.finfo(np.float64).tiny))
    temperature = np.clip(fit_temperature(uniform_blend, pool.labels), *TEMPERATURES)
    logs = (log_softmax(member / temperature) for member in pool.logs)
    if average == "probabilities":
        rows = np.arange(len(pool.labels))
        return partial(mixture_loss, np.exp([member[rows, pool.labels] for member in logs]))
    return partial(geometric_loss, np.ascontiguousarray([member.T for member in logs]), pool.labels)


def stack(pool: Pool, average: str) -> Weights:
    """A regularised multinomial logistic regression on the members' log-probabilities."""
    return stack_coefficients(np.ascontiguousarray(pool.logs.transpose(0, 2, 1)), pool.labels)


# From the simplest on: of strategies that score equally, `auto` chooses the first.
STRATEGIES: dict[str, Strategy] = {
    "best": best,
    "uniform": uniform,
    "accuracy": accuracy,
    "log-loss": log_loss,
    "greedy": greedy_weights,
    "stack": stack,
}
# Strategies for which the kind of average makes no difference.
ONE_AVERAGE = {"best", "stack"}
# Strategies that need probabilities.
NOT_OF_NUMBERS = {"accuracy", "greedy", "stack"}
