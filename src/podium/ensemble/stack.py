"""Stacking: a regularised multinomial logistic regression on the members' log-probabilities.

One coefficient a member and one bias a class, shrunk towards the uniform geometric mean: a few parameters, so
that some hundred contested rows can carry them. How strongly is chosen by log loss on rows left out inside.
"""

import numpy as np

from podium.metrics import over_classes

STRENGTHS = (1.0, 0.03, 0.001)
# Of log loss: to compare strengths, and to end.
SEARCH_TOLERANCE, TOLERANCE = 1e-5, 1e-6


def stack_coefficients(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (members,) and biases (classes,): log-probabilities (members, n, classes), labels (n,)."""
    losses = np.zeros(len(STRENGTHS))
    for inside in _halves(labels):
        outside, found = ~inside if not inside.all() else inside, None
        for place, strength in enumerate(STRENGTHS):
            found = fit_stack(
                log_probabilities[:, inside], labels[inside], strength=strength, start=found, tolerance=SEARCH_TOLERANCE
            )
            losses[place] += _loss(log_probabilities[:, outside], labels[outside], *found) * outside.sum()
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
    members, rows, classes = log_probabilities.shape
    centre = 1 / members if centre is None else centre
    shrink = np.concatenate([np.full(members, strength * members), np.full(classes, strength)])
    target = np.concatenate([np.full(members, centre), np.zeros(classes)])
    now = target.copy() if start is None else np.concatenate(start)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        scores = weighted_sum(log_probabilities, point[:members]) + point[members:]
        scores -= over_classes(np.maximum, scores)[:, None]
        shares = np.exp(scores)
        total = over_classes(np.add, shares)[:, None]
        right = scores[np.arange(rows), labels]
        value = float((np.log(total[:, 0]) - right).mean()) + float(shrink @ (point - target) ** 2) / 2
        return value, shares / total

    value, shares = loss(now)
    for _ in range(50):
        gradient, hessian = _derivatives(log_probabilities, labels, shares)
        gradient += shrink * (now - target)
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


def _derivatives(z: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of the mean log loss in (coefficients, biases); z (m, n, k), shares (n, k)."""
    members, rows, _ = z.shape
    truth = np.zeros_like(shares)
    truth[np.arange(rows), labels] = 1
    weighted = z * shares
    expected = over_classes(np.add, weighted)  # (m, n)
    gradient = np.concatenate([(expected - z[:, np.arange(rows), labels]).mean(axis=1), (shares - truth).mean(axis=0)])
    centred = weighted - shares * expected[:, :, None]  # the shares times z less its mean
    across = centred.sum(axis=1)  # (m, k)
    own = centred.reshape(members, -1) @ z.reshape(members, -1).T
    biases = np.diag(shares.sum(axis=0)) - shares.T @ shares
    hessian = np.block([[own, across], [across.T, biases]]) / rows
    return gradient.astype(np.float64), hessian.astype(np.float64)


def _loss(z: np.ndarray, labels: np.ndarray, coefficients: np.ndarray, biases: np.ndarray) -> float:
    scores = weighted_sum(z, coefficients) + biases
    scores -= over_classes(np.maximum, scores)[:, None]
    return float((np.log(over_classes(np.add, np.exp(scores))) - scores[np.arange(len(labels)), labels]).mean())


def _halves(labels: np.ndarray) -> list[np.ndarray]:
    """Two masks (n,): every other row of each class, and the rest."""
    order = np.argsort(labels, kind="stable")
    mask = np.zeros(len(labels), bool)
    mask[order[::2]] = True
    return [mask, ~mask] if 0 < mask.sum() < len(mask) else [np.ones(len(mask), bool)]
