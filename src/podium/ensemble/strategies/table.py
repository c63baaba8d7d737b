"""The strategies that weight the members of a blend: one function each, in a table by their name in the TOML."""

from collections.abc import Callable

import numpy as np

from podium.ensemble.pool import Pool
from podium.ensemble.strategies.greedy import greedy_weights
from podium.ensemble.strategies.log_loss import log_loss_weights
from podium.ensemble.strategies.stack import stack_weights

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


# From the simplest on: of strategies that score equally, `auto` chooses the first.
STRATEGIES: dict[str, Strategy] = {
    "best": best,
    "uniform": uniform,
    "accuracy": accuracy,
    "log-loss": log_loss_weights,
    "greedy": greedy_weights,
    "stack": stack_weights,
}
# Strategies for which the kind of average makes no difference.
ONE_AVERAGE = {"best", "stack"}
# Strategies that need probabilities.
NOT_OF_NUMBERS = {"accuracy", "greedy", "stack"}
