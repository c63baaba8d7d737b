"""Stacking: a regularised multinomial logistic regression on the members' log-probabilities.

One coefficient a member and one bias a class, shrunk towards the uniform geometric mean: a few parameters, so
that some hundred contested rows can carry them. How strongly is chosen by log loss on rows left out inside.
"""

import numpy as np

STRENGTHS = (1.0, 0.03, 0.001)
# Of log loss: to compare strengths, and to end.
SEARCH_TOLERANCE, TOLERANCE = 1e-5, 1e-6


def stack_coefficients(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (members,) and biases (classes,): log-probabilities (members, n, classes), labels (n,)."""
    losses, halves = np.zeros(len(STRENGTHS)), _halves(labels)
    parts = [(_rows_last(log_probabilities[:, some]), labels[some]) for some in halves]
    for (inside, here), (outside, there) in (parts, parts[::-1]):
        found = None
        for place, strength in enumerate(STRENGTHS):
            found = fit_stack(
                inside.transpose(0, 2, 1), here, strength=strength, start=found, tolerance=SEARCH_TOLERANCE
            )
            losses[place] += _loss(outside, there, *found)[0] * len(there)
    return fit_stack(log_probabilities, labels, strength=STRENGTHS[int(losses.argmin())], start=found)


def fit_stack(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    strength: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    centre: float | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise log loss + strength / 2 * (members * |coefficients - centre|^2 + |biases|^2) by Newton's method.

    `centre` is 1 / members where nothing is given: the uniform geometric mean.
    """
    members, _, classes = log_probabilities.shape
    z = _rows_last(log_probabilities)
    right = z[:, labels, np.arange(len(labels))].mean(axis=1, dtype=np.float64)
    truth = np.append(right, np.bincount(labels, minlength=classes) / len(labels))
    shrink = np.concatenate([np.full(members, strength * members), np.full(classes, strength)])
    target = np.concatenate([np.full(members, 1 / members if centre is None else centre), np.zeros(classes)])
    now = target if start is None else np.concatenate(start)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, shares = _loss(z, labels, point[:members], point[members:])
        return value + float(shrink @ (point - target) ** 2) / 2, shares

    value, shares = loss(now)
    for _ in range(50):
        expected, hessian = _moments(z, shares)
        gradient = expected - truth + shrink * (now - target)
        step = -np.linalg.solve(hessian + np.diag(shrink), gradient)
        promise = -float(gradient @ step)
        if promise <= tolerance:
            break
        share = 1.0
        while True:
            found = loss(now + share * step)
            if found[0] <= value - 1e-4 * share * promise or share < 1e-6:
                break
            share /= 2
        now, (value, shares) = now + share * step, found
    return now[:members], now[members:]


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over the first axis of (m, ...): in one order, whatever BLAS has for threads; weights of 0 cost nothing."""
    shares = zip(values, weights.astype(values.dtype), strict=True)
    return sum((one * share for one, share in shares if share), start=np.zeros_like(values[0]))


def _rows_last(z: np.ndarray) -> np.ndarray:
    """Of (members, n, classes), contiguous as (members, classes, n): there are many rows and few classes."""
    return np.ascontiguousarray(z.transpose(0, 2, 1))


def _loss(z: np.ndarray, labels: np.ndarray, coefficients: np.ndarray, biases: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean log loss, and each row's probabilities (classes, n); z (members, classes, n)."""
    scores = weighted_sum(z, coefficients) + biases[:, None].astype(z.dtype)
    scores -= scores.max(axis=0)
    right = scores[labels, np.arange(len(labels))]
    shares = np.exp(scores, out=scores)
    total = shares.sum(axis=0)
    shares /= total
    return float((np.log(total) - right).mean(dtype=np.float64)), shares


def _moments(z: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model expects of z and of each class (members + classes,), and the loss's Hessian.

    z (members, classes, n), shares (classes, n).
    """
    members, _, rows = z.shape
    weighted = z * shares
    expected = weighted.sum(axis=1)  # (members, n)
    own = weighted.reshape(members, -1) @ z.reshape(members, -1).T - expected @ expected.T
    across = weighted.sum(axis=2) - expected @ shares.T  # (members, classes)
    biases = np.diag(shares.sum(axis=1)) - shares @ shares.T
    hessian = np.block([[own, across], [across.T, biases]]) / rows
    mean = np.concatenate([expected.mean(axis=1, dtype=np.float64), shares.mean(axis=1, dtype=np.float64)])
    return mean, hessian.astype(np.float64)


def _halves(labels: np.ndarray) -> list[np.ndarray]:
    """Rows, twice: every other row of each class, and the rest."""
    order = np.argsort(labels, kind="stable")
    return [np.sort(order[::2]), np.sort(order[1::2])] if len(order) > 1 else [order, order]
