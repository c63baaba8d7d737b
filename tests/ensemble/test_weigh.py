"""Weights by strategy."""

import numpy as np
import pytest

from podium.config import Ensemble
from podium.ensemble.weigh import STRATEGIES, accuracy

LABELS = np.array([0, 1, 0, 1])


def said(*rows):
    return np.eye(2)[np.array(rows)]


def test_accuracy_weighs_in_proportion_to_rows_that_are_right():
    probabilities = said([0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0])  # 4, 2 and 1 of 4 right
    np.testing.assert_allclose(accuracy(probabilities, LABELS), [4 / 7, 2 / 7, 1 / 7])


def test_a_run_that_is_never_right_gets_no_weight():
    np.testing.assert_allclose(accuracy(said([0, 1, 0, 1], [1, 0, 1, 0]), LABELS), [1, 0])


def test_runs_that_are_all_always_wrong_get_equal_weights():
    np.testing.assert_allclose(accuracy(said([1, 0, 1, 0], [1, 0, 1, 0]), LABELS), [0.5, 0.5])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_gives_weights_that_sum_to_one_and_all_to_a_single_member(name):
    draw = np.random.default_rng(1).dirichlet(np.ones(2), size=(3, 4))
    weights = STRATEGIES[name](draw, LABELS)
    assert weights.shape == (3,)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_array_equal(STRATEGIES[name](draw[:1], LABELS), [1.0])


def test_the_settings_know_every_strategy_and_no_other():
    choices = next(f for f in Ensemble.__dataclass_fields__.values() if f.name == "strategy").metadata["choices"]
    assert set(choices) == set(STRATEGIES)
