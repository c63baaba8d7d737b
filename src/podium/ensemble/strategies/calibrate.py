"""Temperature scaling and measures of calibration (Guo et al., arXiv:1706.04599)."""

import numpy as np

from podium.metrics import log_loss, over_classes

# Bounds of 1 / temperature: a run without errors has no minimum, and beyond these nothing changes any more.
LEAST_SHARPNESS, MOST_SHARPNESS = 0.02, 50.0
TOLERANCE = 1e-6
BINS = 15


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The temperature of each run, (runs,), that minimises its log loss: logits (runs, n, classes), labels (n,).

    The loss is convex in the sharpness 1 / temperature; the method is Newton's, inside a bracket.
    """
    logits = logits - over_classes(np.maximum, logits)[:, :, None]
    of_labels = logits[:, np.arange(len(labels)), labels].mean(axis=1)
    low, high = np.full(len(logits), LEAST_SHARPNESS), np.full(len(logits), MOST_SHARPNESS)
    sharpness = np.ones(len(logits))
    for _ in range(60):
        mean, variance = _moments(logits, sharpness)
        slope = mean - of_labels
        low, high = np.where(slope < 0, sharpness, low), np.where(slope > 0, sharpness, high)
        step = slope / np.maximum(variance, 1e-12)
        target = sharpness - step
        # At the minimum, rounding may put the target on a bound.
        done = np.abs(step) <= TOLERANCE * sharpness
        inside = (target > low) & (target < high)
        target = np.where(inside | done, target, np.sqrt(low * high))
        sharpness = np.where(slope == 0, sharpness, target)
        if np.all(done | (slope == 0)):
            break
    return 1 / sharpness


def _moments(logits: np.ndarray, sharpness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over rows of the logits' mean and variance under each run's probabilities, (runs,) each."""
    shares = np.exp(logits * sharpness[:, None, None])
    total = over_classes(np.add, shares)
    shares *= logits
    first = over_classes(np.add, shares) / total
    shares *= logits
    second = over_classes(np.add, shares) / total
    return first.mean(axis=1), (second - first**2).mean(axis=1)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probabilities (n, classes) from the labels, summed over classes: 0 to 2."""
    rows = np.arange(len(labels))
    squares = np.square(probabilities).sum(axis=1) - 2 * probabilities[rows, labels] + 1
    return float(squares.mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of (n, classes): mean distance of confidence from accuracy, in 15 equal bins."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration_of(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray, is_calibrated: bool
) -> dict[str, dict[str, float]]:
    """Log loss, Brier score and calibration error of probabilities (n, classes) before and after a temperature."""
    if not is_calibrated:
        return {}
    measures = {"log_loss": log_loss, "brier": brier, "calibration_error": calibration_error}
    return {
        state: {name: measure(probabilities.astype(np.float64), labels) for name, measure in measures.items()}
        for state, probabilities in (("before", before), ("after", after))
    }
