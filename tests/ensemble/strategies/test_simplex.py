"""Minimising over weights, beside SciPy and by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize

from podium.ensemble.strategies.simplex import minimise_on_simplex


def quadratic(target):
    def convex(weights):
        rest = weights - target
        return float(rest @ rest) / 2, rest, np.eye(len(target))

    return convex


def test_a_minimum_inside_is_found_and_one_outside_is_projected():
    start = np.full(3, 1 / 3)
    np.testing.assert_allclose(minimise_on_simplex(quadratic(np.array([0.2, 0.3, 0.5])), start), [0.2, 0.3, 0.5])
    # The nearest point of the simplex to (2, 0, -1) is its first corner.
    np.testing.assert_allclose(minimise_on_simplex(quadratic(np.array([2.0, 0.0, -1.0])), start), [1, 0, 0])


@pytest.mark.parametrize("members", [2, 9, 40])
def test_the_best_mixture_is_what_scipy_finds(members):
    draw = np.random.default_rng(members)
    label_probabilities = draw.uniform(0.01, 1, size=(members, 500)) ** draw.uniform(0.3, 3, size=(members, 1))

    def convex(weights):
        ratio = label_probabilities / np.maximum(weights @ label_probabilities, 1e-12)
        return (
            float(-np.log(np.maximum(weights @ label_probabilities, 1e-12)).mean()),
            -ratio.mean(axis=1),
            ratio @ ratio.T / 500,
        )

    start = np.full(members, 1 / members)
    weights = minimise_on_simplex(convex, start)
    theirs = minimize(
        lambda w: convex(w)[0],
        start,
        jac=lambda w: convex(w)[1],
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
    assert convex(weights)[0] <= theirs.fun + 1e-7
    np.testing.assert_allclose(weights, theirs.x, atol=2e-3)


def test_identical_members_share_without_trouble():
    label_probabilities = np.tile(np.linspace(0.1, 0.9, 20), (3, 1))

    def convex(weights):
        ratio = label_probabilities / (weights @ label_probabilities)
        return float(-np.log(weights @ label_probabilities).mean()), -ratio.mean(axis=1), ratio @ ratio.T / 20

    np.testing.assert_allclose(minimise_on_simplex(convex, np.full(3, 1 / 3)), np.full(3, 1 / 3))
