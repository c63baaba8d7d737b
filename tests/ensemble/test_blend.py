"""The average of runs, by hand."""

import numpy as np
import pytest

from podium.ensemble.blend import Blend

SHARES = np.array([[[0.8, 0.2]], [[0.2, 0.8]]])  # two runs, one row


@pytest.mark.parametrize(
    ("average", "weights", "biases", "expected"),
    [
        ("probabilities", [0.75, 0.25], None, [0.65, 0.35]),
        ("logits", [0.75, 0.25], None, [2 / 3, 1 / 3]),  # 0.8^3/4 * 0.2^1/4 is twice 0.2^3/4 * 0.8^1/4
        ("probabilities", [0, 1], None, [0.2, 0.8]),
        ("logits", [2, 0], np.log([1, 4]), [0.8, 0.2]),  # 0.8^2 * 1 : 0.2^2 * 4
    ],
)
def test_probabilities_have_an_arithmetic_mean_and_logits_a_geometric_one(average, weights, biases, expected):
    blend = Blend("any", average, np.array([1.0, 2.0]), np.array(weights, float), biases, 1.0)
    logits = np.log(SHARES) * np.array([1, 2])[:, None, None] + 5  # the run temperatures divide the second ones
    np.testing.assert_allclose(blend.probabilities(logits)[0], expected)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_a_blend_of_one_run_is_that_run_however_small_its_probabilities_are(average):
    blend = Blend("any", average, np.ones(2), np.array([0.0, 1.0]), None, temperature=500.0)
    logits = np.array([[[0.0, 0.0]], [[0.0, -1000.0]]])
    np.testing.assert_allclose(blend.probabilities(logits)[0], np.array([1, np.exp(-2)]) / (1 + np.exp(-2)))
