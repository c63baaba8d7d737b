"""Stacking compared with SciPy, and on toy data whose answer is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from podium.ensemble.strategies.stack import STRENGTHS, _halves, fit_stack, stack_weights
from podium.metrics import log_loss, softmax
from toy_runs import pool_from


def runs(members=3, rows=400, classes=2, *, seed=0, noise=1.5):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    logits = np.eye(classes)[labels] * 1.5 + draw.normal(size=(members, rows, classes)) * noise
    return np.ascontiguousarray(np.log(softmax(logits)).transpose(0, 2, 1)), labels  # (members, classes, rows)


def loss_of(z, labels, coefficients, biases):
    return log_loss(softmax(np.tensordot(coefficients, z, 1).T + biases), labels)


@pytest.mark.parametrize("strength", [0.3, 0.003])
@pytest.mark.parametrize("classes", [2, 4])
def test_scipy_finds_the_same_minimum_of_the_penalised_log_loss(strength, classes):
    z, labels = runs(classes=classes)
    members = len(z)

    def penalised_loss(point):
        coefficients, biases = point[:members], point[members:]
        penalty = members * np.sum((coefficients - 1 / members) ** 2) + np.sum(biases**2)
        return loss_of(z, labels, coefficients, biases) + strength / 2 * penalty

    expected = minimize(penalised_loss, np.zeros(members + classes), tol=1e-9).x
    coefficients, biases = fit_stack(z, labels, strength=strength, tolerance=1e-12)
    np.testing.assert_allclose(np.append(coefficients, biases), expected, atol=2e-4)


def test_a_strong_penalty_gives_the_uniform_geometric_mean():
    z, labels = runs(classes=3)
    coefficients, biases = fit_stack(z, labels, strength=1e6)
    np.testing.assert_allclose(coefficients, np.full(3, 1 / 3), atol=1e-4)
    np.testing.assert_allclose(biases, 0, atol=1e-4)


def test_another_start_gives_the_same_minimum():
    z, labels = runs(classes=4)
    started = fit_stack(z, labels, strength=0.01, start=fit_stack(z, labels, strength=1.0))
    from_default = fit_stack(z, labels, strength=0.01)
    np.testing.assert_allclose(started[0], from_default[0], atol=2e-3)
    np.testing.assert_allclose(started[1], from_default[1], atol=2e-3)


def test_each_row_is_in_one_of_two_halves_and_each_class_in_both():
    labels = np.array([2, 0, 1, 0, 2, 1])
    first, second = _halves(labels)
    assert sorted([*first, *second]) == list(range(6))
    assert sorted(labels[first]) == sorted(labels[second]) == [0, 1, 2]
    # Rows of one class keep their order, on every CPU.
    labels = np.random.default_rng(0).integers(3, size=1000)
    assert sorted(sorted(range(1000), key=labels.__getitem__)[::2]) == _halves(labels)[0].tolist()


def test_the_chosen_strength_is_no_worse_on_new_rows_than_the_weakest():
    z, labels = runs(members=6, rows=120, classes=3, noise=2.5)
    coefficients, biases = stack_weights(pool_from(z.transpose(0, 2, 1), labels), "logits")
    weakest = fit_stack(z, labels, strength=STRENGTHS[-1])
    new_z, new_labels = runs(members=6, rows=4000, classes=3, noise=2.5, seed=9)
    assert loss_of(new_z, new_labels, coefficients, biases) <= loss_of(new_z, new_labels, *weakest) + 1e-3
