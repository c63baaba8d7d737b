"""The losses that strategies minimise: their value, and gradient and Hessian in the weights of the members."""

import numpy as np


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over the first axis of (m, ...), in a fixed order, unlike BLAS; weights of 0 cost nothing."""
    shares = zip(values, weights, strict=True)
    return sum((value * share for value, share in shares if share), start=np.zeros(values[0].shape))


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
