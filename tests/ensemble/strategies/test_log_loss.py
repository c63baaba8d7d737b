"""The weights with the smallest log loss, and the derivatives of the losses."""

from functools import partial

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble.pool import pool_of
from podium.ensemble.strategies import log_loss
from podium.ensemble.strategies.log_loss import geometric_loss, log_loss_weights, mixture_loss
from podium.metrics import log_softmax
from toy_runs import join, pool_from, random_run


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_log_loss_gives_all_weight_to_a_member_that_is_better_in_every_row(average):
    weights, _ = log_loss_weights(good_and_bad(copies=100), average)
    np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_log_loss_is_shrunk_towards_equal_weights_where_rows_are_few(average):
    weights = [log_loss_weights(good_and_bad(copies=copies), average)[0] for copies in (1, 3, 10, 100)]
    of_good = [good for good, _ in weights]
    assert 0.5 < of_good[0] < 0.8 and sorted(of_good) == of_good


def good_and_bad(*, copies):
    """Two members, one of them better in each of four rows, which are repeated."""
    labels, rows = np.tile([0, 1, 0, 1], copies), np.arange(4 * copies)
    probabilities = np.zeros((2, len(rows), 2))
    for member, of_labels in enumerate(([0.9, 0.9, 0.9, 0.3], [0.4, 0.4, 0.4, 0.2])):
        of_label = np.tile(of_labels, copies)
        probabilities[member, rows, labels], probabilities[member, rows, 1 - labels] = of_label, 1 - of_label
    return pool_from(np.log(probabilities), labels, metric="log_loss")


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_log_loss_weights_do_not_depend_on_the_temperature_of_all_members(average):
    """Two equal members and a worse, more confident one have the same weights at another temperature."""
    draw = np.random.default_rng(3)
    labels = draw.integers(2, size=400)
    confidence = np.array([2.0, 2.0, 3.0])[:, None] * np.where(draw.random((3, 400)) < [[0.9], [0.9], [0.75]], 1, -1)
    logits = confidence[:, :, None] * np.eye(2)[labels] * 2
    weights = []
    for softness in (1.0, 4.0):
        pool = pool_from(log_softmax(logits / softness), labels, metric="log_loss")
        weights.append(log_loss_weights(pool, average)[0])
    np.testing.assert_allclose(weights[0], weights[1], atol=0.02)
    assert weights[1][2] < 0.2


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_the_gradient_and_the_hessian_of_log_loss_are_its_derivatives(average):
    draw = np.random.default_rng(0)
    logs, labels = log_softmax(draw.normal(size=(3, 50, 4))), draw.integers(4, size=50)
    loss = partial(mixture_loss, np.exp(logs[:, np.arange(50), labels]))
    if average == "logits":
        loss = partial(geometric_loss, np.ascontiguousarray(logs.transpose(0, 2, 1)), labels)
    weights, step = np.array([0.5, 0.3, 0.2]), 1e-5
    value, gradient, hessian = loss(weights)
    blend = np.tensordot(weights, np.exp(logs) if average == "probabilities" else logs, 1)
    probabilities = blend if average == "probabilities" else np.exp(log_softmax(blend))
    assert value == pytest.approx(-np.log(probabilities[np.arange(50), labels]).mean())
    for place, move in enumerate(np.eye(3) * step):
        up, down = loss(weights + move), loss(weights - move)
        assert gradient[place] == pytest.approx((up[0] - down[0]) / 2 / step, abs=1e-6)
        np.testing.assert_allclose(hessian[place], (up[1] - down[1]) / 2 / step, atol=1e-6)


def test_log_loss_needs_few_evaluations(monkeypatch):
    """A loss whose rounding errors are larger than the last gains would make the line search fail."""
    evaluations = []
    monkeypatch.setattr(log_loss, "geometric_loss", lambda *values: evaluations.append(1) or geometric_loss(*values))
    runs = join([random_run(f"a.s{seed}", rows=2000, seed=seed, noise=0.6 + seed / 20) for seed in range(12)])
    pool = pool_of(runs, Ensemble(run_temperatures="never"), metric="log_loss")
    for seed in range(4):
        evaluations.clear()
        log_loss_weights(pool.of_rows(np.random.default_rng(seed).permutation(2000)[:1600]), "logits")
        assert len(evaluations) < 20
