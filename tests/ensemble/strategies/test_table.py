"""Weights by strategy."""

from typing import get_args, get_type_hints

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble.strategies.table import STRATEGIES
from toy_runs import pool_from

LABELS = np.array([0, 1, 0, 1])


def certain(*rows):
    return np.eye(2)[np.array(rows)]


def members(probabilities):
    return pool_from(np.log(np.maximum(probabilities, 1e-9)), LABELS)


def accuracy(probabilities):
    return STRATEGIES["accuracy"](members(probabilities), "probabilities")[0]


def test_weights_are_proportional_to_the_correct_rows():
    probabilities = certain([0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0])  # 4, 2 and 1 of 4 correct
    np.testing.assert_allclose(accuracy(probabilities), [4 / 7, 2 / 7, 1 / 7])


def test_a_run_without_correct_rows_has_no_weight():
    np.testing.assert_allclose(accuracy(certain([0, 1, 0, 1], [1, 0, 1, 0])), [1, 0])


def test_runs_without_correct_rows_have_equal_weights():
    np.testing.assert_allclose(accuracy(certain([1, 0, 1, 0], [1, 0, 1, 0])), [0.5, 0.5])


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "stack"])
def test_every_strategy_gives_weights_that_sum_to_one_and_all_to_a_single_member(name, average):
    draw = np.random.default_rng(1).dirichlet(np.ones(2), size=(3, 4))
    weights, biases = STRATEGIES[name](members(draw), average)
    assert weights.shape == (3,) and biases is None
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(STRATEGIES[name](members(draw[:1]), average)[0], [1.0])


@pytest.mark.parametrize(("metric", "expected"), [("accuracy", [1, 0]), ("log_loss", [0, 1])])
def test_best_is_the_best_by_the_metric(metric, expected):
    """One member has more correct rows, but is sure of its mistake."""
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [1 - 1e-6, 1e-6]]), np.full((4, 2), 0.5)
    weights, _ = STRATEGIES["best"](pool_from(np.log(np.stack(probabilities)), LABELS, metric=metric), "logits")
    assert weights.tolist() == expected


def test_the_setting_accepts_exactly_these_strategies():
    valid = get_args(get_type_hints(Ensemble)["strategy"])
    assert set(valid) == {*STRATEGIES, "auto"}
