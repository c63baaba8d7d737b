"""How members are weighted: each strategy is one function on arrays, found by its name in the TOML."""

from collections.abc import Callable

import numpy as np

# (probabilities (members, n, classes), labels (n,)) -> weights (members,), none negative, summing to 1.
Strategy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights in proportion to validation accuracy; equal ones where no member gets any row right."""
    accuracies = (probabilities.argmax(axis=2) == labels).mean(axis=1)
    if not accuracies.any():
        return np.full(len(probabilities), 1 / len(probabilities))
    return accuracies / accuracies.sum()


STRATEGIES: dict[str, Strategy] = {"accuracy": accuracy}
