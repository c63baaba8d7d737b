"""Temperatures and calibration, on cases worked out by hand."""

import numpy as np
import pytest

from podium.ensemble.strategies import calibrate as calibrate_module
from podium.ensemble.strategies.calibrate import brier, calibration_error, fit_temperature
from podium.metrics import log_loss, softmax


def test_the_temperature_makes_confidence_equal_accuracy():
    # Logits [z, 0], and three of four rows correct: the best z is log 3.
    logits, labels = np.tile([6.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(6 / np.log(3), rel=1e-4)


def test_each_run_has_its_own_and_scale_is_all_that_it_undoes():
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=300)
    logits = np.eye(3)[labels] * 2 + draw.normal(size=(300, 3))
    first, *others = (fit_temperature(logits * scale, labels) for scale in (1, 8, 1 / 4))
    assert others == pytest.approx([first * 8, first / 4], rel=1e-3)


def test_no_other_temperature_has_less_log_loss():
    draw = np.random.default_rng(1)
    labels = draw.integers(4, size=200)
    logits = np.eye(4)[labels] + draw.normal(size=(200, 4)) * 2
    best = fit_temperature(logits, labels)
    loss = log_loss(softmax(logits / best), labels)
    assert all(loss <= log_loss(softmax(logits / (best * near)), labels) for near in (0.9, 0.99, 1.01, 1.1))


def test_logits_at_their_best_temperature_keep_it():
    draw = np.random.default_rng(1)
    labels = draw.integers(4, size=200)
    for logits in np.eye(4)[labels] * 2 + draw.normal(size=(100, 200, 4)):
        once = logits / fit_temperature(logits, labels)
        twice = once / fit_temperature(once, labels)
        assert fit_temperature(twice, labels) == pytest.approx(1, abs=1e-9)


def test_the_temperature_is_found_in_few_steps(monkeypatch):
    """With a wrong variance every step is refused, and only halving the bracket is left: about 20 steps."""
    steps, original = [], np.exp
    monkeypatch.setattr(calibrate_module.np, "exp", lambda *values: steps.append(1) or original(*values))
    draw = np.random.default_rng(1)
    labels = draw.integers(4, size=200)
    fit_temperature((np.eye(4)[labels] * 2 + draw.normal(size=(200, 4))) * 3, labels)
    assert len(steps) <= 8


def test_an_offset_of_a_row_changes_no_temperature():
    logits, labels = np.tile([6.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    assert fit_temperature(logits + 1000, labels) == pytest.approx(fit_temperature(logits, labels))


def test_a_perfect_run_is_sharpened_up_to_a_bound_and_a_constant_one_left_alone():
    labels = np.array([0, 1, 2])
    perfect, constant = (fit_temperature(logits, labels) for logits in (np.eye(3), np.zeros((3, 3))))
    assert 0.01 < perfect < 0.1 and constant == 1


def test_brier_is_zero_for_the_truth_two_for_its_opposite_and_a_half_for_a_coin():
    labels = np.array([0, 1])
    assert brier(np.eye(2), labels) == 0
    assert brier(np.eye(2)[::-1], labels) == 2
    assert brier(np.full((2, 2), 0.5), labels) == 0.5


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = np.tile([0.8, 0.2], (4, 1))
    assert calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0.05)
    assert calibration_error(np.eye(2), np.array([0, 1])) == 0
    # One bin has the gap -1, another the gap 0.4; in one bin they would cancel.
    assert calibration_error(np.array([[1, 0], [0.6, 0.4]]), np.array([1, 0])) == pytest.approx((1 + 0.4) / 2)
