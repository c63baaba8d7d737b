"""Stacking: a regularised multinomial logistic regression on the members' log-probabilities.

One coefficient per member and one bias per class, shrunk towards the uniform geometric mean: so few parameters that
some hundred contested rows are enough. The strength of the shrinkage is chosen by log loss on held-out rows.
"""

import numpy as np

from podium.ensemble.strategies.simplex import minimise

STRENGTHS = (1.0, 0.03, 0.001)
# Of log loss: while strengths are compared, and for the final fit.
SEARCH_TOLERANCE, TOLERANCE = 1e-5, 1e-6


def stack_coefficients(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (members,) and biases (classes,): log-probabilities (members, n, classes), labels (n,)."""
    losses, fitted = np.zeros(len(STRENGTHS)), None
    halves = [(_rows_last(log_probabilities[:, rows]), labels[rows]) for rows in _halves(labels)]
    for (z, z_labels), (held_out, held_out_labels) in (halves, halves[::-1]):
        fitted = None
        for place, strength in enumerate(STRENGTHS):
            inside = z.transpose(0, 2, 1)
            fitted = fit_stack(inside, z_labels, strength=strength, start=fitted, tolerance=SEARCH_TOLERANCE)
            losses[place] += _loss(held_out, held_out_labels, *fitted)[0] * len(held_out_labels)
    return fit_stack(log_probabilities, labels, strength=STRENGTHS[int(losses.argmin())], start=fitted)


def fit_stack(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    strength: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise log loss + strength / 2 * (members * |coefficients - 1 / members|^2 + |biases|^2) by Newton's method."""
    members, _, classes = log_probabilities.shape
    z = _rows_last(log_probabilities)
    of_labels = z[:, labels, np.arange(len(labels))].mean(axis=1)
    observed = np.append(of_labels, np.bincount(labels, minlength=classes) / len(labels))
    shrink = np.concatenate([np.full(members, strength * members), np.full(classes, strength)])
    target = np.concatenate([np.full(members, 1 / members), np.zeros(classes)])
    point = target if start is None else np.concatenate(start)

    def penalised_loss(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, probabilities = _loss(z, labels, point[:members], point[members:])
        expected, hessian = _moments(z, probabilities)
        distance = point - target
        return (
            value + float(shrink @ distance**2) / 2,
            expected - observed + shrink * distance,
            hessian + np.diag(shrink),
        )

    point = minimise(penalised_loss, point, lambda g, h, _: -np.linalg.solve(h, g), tolerance=tolerance)
    return point[:members], point[members:]


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over the first axis of (m, ...), in a fixed order, unlike BLAS; weights of 0 cost nothing."""
    shares = zip(values, weights, strict=True)
    return sum((value * share for value, share in shares if share), start=np.zeros(values[0].shape))


def _rows_last(z: np.ndarray) -> np.ndarray:
    """(members, n, classes) as contiguous (members, classes, n), because rows are many and classes few."""
    return np.ascontiguousarray(z.transpose(0, 2, 1))


def _loss(z: np.ndarray, labels: np.ndarray, coefficients: np.ndarray, biases: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log loss, and each row's probabilities (classes, n); z (members, classes, n)."""
    scores = weighted_sum(z, coefficients) + biases[:, None]
    scores -= scores.max(axis=0)
    of_labels = scores[labels, np.arange(len(labels))]
    shares = np.exp(scores, out=scores)
    total = shares.sum(axis=0)
    shares /= total
    return float((np.log(total) - of_labels).mean()), shares


def _moments(z: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model's expectations of z and of each class (members + classes,), and the Hessian of the loss.

    z (members, classes, n), shares (classes, n): the model's probabilities.
    """
    members, _, rows = z.shape
    weighted = z * shares
    expected = weighted.sum(axis=1)  # (members, n)
    own = weighted.reshape(members, -1) @ z.reshape(members, -1).T - expected @ expected.T
    across = weighted.sum(axis=2) - expected @ shares.T  # (members, classes)
    biases = np.diag(shares.sum(axis=1)) - shares @ shares.T
    hessian = np.block([[own, across], [across.T, biases]]) / rows
    return np.concatenate([expected.mean(axis=1), shares.mean(axis=1)]), hessian


def _halves(labels: np.ndarray) -> list[np.ndarray]:
    """Two halves of the rows, each with half of the rows of each class."""
    order = np.argsort(labels, kind="stable")
    return [np.sort(order[::2]), np.sort(order[1::2])] if len(order) > 1 else [order, order]
