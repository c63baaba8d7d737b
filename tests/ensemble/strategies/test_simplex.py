"""Minimising over weights, beside SciPy and by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize

from podium.ensemble.strategies.simplex import minimise, minimise_on_simplex


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


def test_a_step_that_goes_too_far_is_halved():
    def convex(point):  # log cosh: Newton's method alone goes from 2 to -11, and then to infinity
        slope = np.tanh(point)
        return float(np.log(np.cosh(point)).sum()), slope, np.diag(1 - slope**2)

    minimum = minimise(convex, np.array([2.0]), lambda g, h, _: -np.linalg.solve(h, g), tolerance=1e-12)
    np.testing.assert_allclose(minimum, 0, atol=1e-5)


def test_from_any_start_no_weight_can_gain_by_growing():
    """At the minimum, the slopes of all weights above 0 are equal, and no other slope is smaller."""
    draw = np.random.default_rng(0)
    for members in [2, 3, 6, 12] * 10:
        factor, linear = draw.normal(size=(members + 2, members)), draw.normal(size=members)
        hessian = factor.T @ factor
        start = draw.dirichlet(np.full(members, 0.1)) if members % 3 else np.eye(members)[0]
        weights = minimise_on_simplex(
            lambda w, h=hessian, b=linear: (float(w @ h @ w / 2 + b @ w), h @ w + b, h), start, tolerance=1e-14
        )
        slopes = hessian @ weights + linear
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(slopes[weights > 1e-9], slopes.min(), atol=1e-5)


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


def test_the_weights_of_many_members_need_few_systems(monkeypatch):
    draw, sizes, solve = np.random.default_rng(0), [], np.linalg.solve
    factor, linear = draw.normal(size=(400, 300)), draw.normal(size=300)
    hessian = factor.T @ factor / 400
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: sizes.append(len(a)) or solve(a, b))
    weights = minimise_on_simplex(
        lambda w: (float(w @ hessian @ w / 2 + linear @ w), hessian @ w + linear, hessian), np.full(300, 1 / 300)
    )
    slopes = hessian @ weights + linear
    np.testing.assert_allclose(slopes[weights > 1e-9], slopes.min(), atol=1e-5)
    assert np.count_nonzero(weights) < 100 and len(sizes) < 50


def test_identical_members_share_without_trouble():
    label_probabilities = np.tile(np.linspace(0.1, 0.9, 20), (3, 1))

    def convex(weights):
        ratio = label_probabilities / (weights @ label_probabilities)
        return float(-np.log(weights @ label_probabilities).mean()), -ratio.mean(axis=1), ratio @ ratio.T / 20

    np.testing.assert_allclose(minimise_on_simplex(convex, np.full(3, 1 / 3)), np.full(3, 1 / 3))


def test_a_line_search_that_cannot_gain_stops_where_it_is():
    point = minimise(
        lambda x: (float(x[0] > 0), np.array([-1.0]), np.eye(1)), np.zeros(1), lambda g, h, _: -g, tolerance=1e-8
    )
    assert point.tolist() == [0]
