"""Temperature scaling and measures of calibration (Guo et al., arXiv:1706.04599)."""

import numpy as np

from podium.metrics import log_loss

# Bounds of 1 / temperature: a run without errors has no minimum, and beyond these nothing changes any more.
LEAST_SHARPNESS, MOST_SHARPNESS = 0.02, 50.0
TOLERANCE = 1e-6
BINS = 15


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the log loss of logits (n, classes) for labels (n,).

    The loss is convex in the sharpness 1 / temperature; the method is Newton's, inside a bracket.
    """
    logits = logits.T.copy()  # rows are last, as they are many
    logits -= logits.max(axis=0)
    of_labels = logits[labels, np.arange(len(labels))].mean()
    low, high, sharpness = LEAST_SHARPNESS, MOST_SHARPNESS, 1.0
    for _ in range(60):
        shares = np.exp(logits * sharpness)
        shares /= shares.sum(axis=0)
        shares *= logits
        means = shares.sum(axis=0)
        shares *= logits
        variance = (shares.sum(axis=0) - np.square(means)).mean()
        slope = means.mean() - of_labels
        if slope == 0:
            break
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = slope / max(variance, 1e-12)
        is_last = abs(step) <= TOLERANCE * sharpness  # at the minimum, rounding may put the next point on a bound
        sharpness = sharpness - step if is_last or low < sharpness - step < high else np.sqrt(low * high)
        if is_last:
            break
    return float(1 / sharpness)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of probabilities (n, classes) from the labels, summed over classes: 0 to 2."""
    squares = np.square(probabilities).sum(axis=1) - 2 * probabilities[np.arange(len(labels)), labels] + 1
    return float(squares.mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error of (n, classes): mean distance of confidence from accuracy, in 15 equal bins."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration_of(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Log loss, Brier score and calibration error of probabilities (n, classes) before and after a temperature."""
    measures = {"log_loss": log_loss, "brier": brier, "calibration_error": calibration_error}
    return {
        state: {name: measure(probabilities.astype(np.float64), labels) for name, measure in measures.items()}
        for state, probabilities in (("before", before), ("after", after))
    }
