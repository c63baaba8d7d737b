"""The weights with the smallest log loss, and such losses: value, gradient and Hessian in the members' weights."""

from functools import partial

import numpy as np

from podium.ensemble.pool import Pool, weighted_sum
from podium.ensemble.strategies.calibrate import fit_temperature
from podium.ensemble.strategies.simplex import Convex, minimise_on_simplex, shrunk
from podium.metrics import log_softmax

# Bounds of the members' temperature: for a uniform blend without errors it would be 0, and then all weights are equal.
TEMPERATURES = (0.2, 5.0)
# How strongly `log_loss_weights` shrinks, measured with `benchmarks/honesty.py --prior-rows` (docs/ensembles.md).
PRIOR_ROWS = 5.0


def log_loss_weights(pool: Pool, average: str) -> tuple[np.ndarray, None]:
    """The weights with the smallest log loss of the blend (of numbers: squared error), shrunk towards equal weights.

    The shrinkage is worth `PRIOR_ROWS` rows, so that it matters only where rows are few (prior information in the
    combination of forecasts: Diebold and Pauly, Int. J. of Forecasting 6, 1990).
    """
    equal = np.full(len(pool.runs), 1 / len(pool.runs))
    if len(equal) == 1:
        return equal, None
    strengths = np.full(len(equal), PRIOR_ROWS * len(equal) / len(pool.labels))
    return minimise_on_simplex(shrunk(_loss_of_weights(pool, average), equal, strengths), equal), None


def _loss_of_weights(pool: Pool, average: str) -> Convex:
    """What `log_loss_weights` minimises, with all members at the temperature of their uniform blend.

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


def softmax_loss(
    z: np.ndarray, labels: np.ndarray, weights: np.ndarray, biases: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Mean log loss of the softmax of a weighted sum, and its probabilities (classes, n); z (members, classes, n)."""
    scores = weighted_sum(z, weights)
    if biases is not None:
        scores += biases[:, None]
    scores -= scores.max(axis=0)
    of_labels = scores[labels, np.arange(len(labels))]
    shares = np.exp(scores, out=scores)
    total = shares.sum(axis=0)
    shares /= total
    return float((np.log(total) - of_labels).mean()), shares


def moments(z: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The expectation of z for each row, (members, n), and the mean covariance, the Hessian of `softmax_loss`.

    z (members, classes, n); shares (classes, n) are the probabilities of `softmax_loss`.
    """
    weighted = z * shares
    expected = weighted.sum(axis=1)
    products = weighted.reshape(len(z), -1) @ z.reshape(len(z), -1).T
    return expected, (products - expected @ expected.T) / z.shape[2]


def geometric_loss(z: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of log-probabilities z (members, classes, n)."""
    value, shares = softmax_loss(z, labels, weights)
    expected, hessian = moments(z, shares)
    return value, (expected - z[:, labels, np.arange(len(labels))]).mean(axis=1), hessian


def mixture_loss(label_probabilities: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss of the weighted mean of probabilities; label_probabilities (members, n)."""
    blend = np.maximum(weights @ label_probabilities, 1e-12)
    ratio = label_probabilities / blend
    return float(-np.log(blend).mean()), -ratio.mean(axis=1), ratio @ ratio.T / ratio.shape[1]


def normal_loss(errors: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log loss, up to a constant, of a normal distribution around the weighted mean of numbers; weights sum to 1.

    Its variance is the mean squared error of the equal weights; errors (members, n).
    """
    products = errors @ errors.T / errors.shape[1] / max(float(np.square(errors.mean(axis=0)).mean()), 1e-300)
    gradient = products @ weights
    return float(weights @ gradient) / 2, gradient, products
