"""Stacking: a regularised multinomial logistic regression on the members' log-probabilities.

One coefficient per member and one bias per class, shrunk towards the uniform geometric mean: so few parameters that
some hundred contested rows are enough. The strength of the shrinkage is chosen by log loss on held-out rows.
"""

import numpy as np

from podium.ensemble.pool import Pool
from podium.ensemble.strategies.log_loss import moments, softmax_loss
from podium.ensemble.strategies.simplex import minimise, shrunk

STRENGTHS = (1.0, 0.03, 0.001)
# Of log loss: while strengths are compared, and for the final fit.
SEARCH_TOLERANCE, TOLERANCE = 1e-5, 1e-6


def stack_weights(pool: Pool, average: str) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (members,) and biases (classes,); the kind of average makes no difference."""
    z, labels = np.ascontiguousarray(pool.logs.transpose(0, 2, 1)), pool.labels  # (members, classes, n)
    losses, fitted = np.zeros(len(STRENGTHS)), None
    halves = [(z.take(rows, axis=2), labels[rows]) for rows in _halves(labels)]
    for half, (held_out, held_out_labels) in (halves, halves[::-1]):
        fitted = None
        for place, strength in enumerate(STRENGTHS):
            fitted = fit_stack(*half, strength=strength, start=fitted, tolerance=SEARCH_TOLERANCE)
            losses[place] += softmax_loss(held_out, held_out_labels, *fitted)[0] * len(held_out_labels)
    return fit_stack(z, labels, strength=STRENGTHS[int(losses.argmin())], start=fitted)


def fit_stack(
    z: np.ndarray,
    labels: np.ndarray,
    *,
    strength: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise log loss + strength / 2 * (members * |coefficients - 1 / members|^2 + |biases|^2) by Newton's method."""
    members, classes, rows = z.shape
    of_labels = z[:, labels, np.arange(rows)].mean(axis=1)
    of_classes = np.bincount(labels, minlength=classes) / rows
    uniform = np.repeat([1 / members, 0.0], [members, classes])
    strengths = np.repeat([strength * members, strength], [members, classes])

    def loss(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, shares = softmax_loss(z, labels, point[:members], point[members:])
        expected, own = moments(z, shares)
        across = (np.einsum("mcn,cn->mc", z, shares) - expected @ shares.T) / rows
        biases = (np.diag(shares.sum(axis=1)) - shares @ shares.T) / rows
        gradient = np.append(expected.mean(axis=1) - of_labels, shares.mean(axis=1) - of_classes)
        return value, gradient, np.block([[own, across], [across.T, biases]])

    point = minimise(
        shrunk(loss, uniform, strengths),
        uniform if start is None else np.concatenate(start),
        lambda gradient, hessian, _: -np.linalg.solve(hessian, gradient),
        tolerance=tolerance,
    )
    return point[:members], point[members:]


def _halves(labels: np.ndarray) -> list[np.ndarray]:
    """Two halves of the rows, each with half of the rows of each class."""
    order = np.argsort(labels, kind="stable")
    return [np.sort(order[::2]), np.sort(order[1::2])] if len(order) > 1 else [order, order]
