"""Stacking beside scikit-learn, and where its answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from podium.ensemble.strategies.stack import STRENGTHS, fit_stack, stack_coefficients
from podium.metrics import log_loss, softmax


def runs(members=3, rows=400, classes=2, *, seed=0, noise=1.5):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    logits = np.eye(classes)[labels] * 1.5 + draw.normal(size=(members, rows, classes)) * noise
    return np.log(softmax(logits)), labels


@pytest.mark.parametrize("strength", [0.3, 0.003])
def test_for_two_classes_it_is_scikit_learns_logistic_regression(strength):
    z, labels = runs()
    members, rows, _ = z.shape
    coefficients, biases = fit_stack(z, labels, strength=strength, centre=0.0)
    # Two biases b and -b, each penalised, are one intercept of 2b with half the penalty of a coefficient; as a
    # column of its own, scaled so that scikit-learn's one penalty fits both.
    scale = np.sqrt(2 * members)
    columns = np.column_stack([(z[:, :, 1] - z[:, :, 0]).T, np.full(rows, scale)])
    theirs = LogisticRegression(C=1 / (strength * members * rows), fit_intercept=False, tol=1e-10, max_iter=1000)
    found = theirs.fit(columns, labels).coef_[0]
    np.testing.assert_allclose(coefficients, found[:members], atol=2e-3)
    assert biases[1] - biases[0] == pytest.approx(found[members] * scale, abs=2e-3)


def test_a_strong_hand_leaves_the_uniform_geometric_mean():
    z, labels = runs(classes=3)
    coefficients, biases = fit_stack(z, labels, strength=1e6)
    np.testing.assert_allclose(coefficients, np.full(3, 1 / 3), atol=1e-4)
    np.testing.assert_allclose(biases, 0, atol=1e-4)


def test_a_warm_start_ends_where_a_cold_one_does():
    z, labels = runs(classes=4)
    warm = fit_stack(z, labels, strength=0.01, start=fit_stack(z, labels, strength=1.0))
    cold = fit_stack(z, labels, strength=0.01)
    np.testing.assert_allclose(warm[0], cold[0], atol=2e-3)
    np.testing.assert_allclose(warm[1], cold[1], atol=2e-3)


def test_the_strength_that_is_chosen_leaves_noise_alone():
    z, labels = runs(members=6, rows=120, classes=3, noise=2.5)
    coefficients, biases = stack_coefficients(z, labels)
    weakest = fit_stack(z, labels, strength=STRENGTHS[-1])
    fresh, answers = runs(members=6, rows=4000, classes=3, noise=2.5, seed=9)
    ours = log_loss(softmax(np.tensordot(coefficients, fresh, 1) + biases), answers)
    theirs = log_loss(softmax(np.tensordot(weakest[0], fresh, 1) + weakest[1]), answers)
    assert ours <= theirs + 1e-3
