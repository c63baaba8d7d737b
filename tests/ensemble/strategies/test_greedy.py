"""Greedy selection compared with the plain loop, and on toy data."""

import numpy as np
import pytest

from podium.ensemble.strategies import greedy as greedy_module
from podium.ensemble.strategies.greedy import greedy_weights
from podium.metrics import METRICS, softmax
from toy_runs import pool_from


def draws(members=5, rows=300, classes=4, *, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=rows)
    logits = np.eye(classes)[labels] * 1.5 + draw.normal(size=(members, rows, classes)) * 1.5
    return softmax(logits), labels


def greedy(probabilities, labels, *, metric="accuracy", average="probabilities", seed=0):
    pool = pool_from(np.log(probabilities), labels, metric=metric, seed=seed)
    return greedy_weights(pool, average)[0]


def plain_loop(averaged, labels, metric, *, are_logs=False, steps=greedy_module.STEPS):
    """Caruana's algorithm without a running sum: every row is scored at every step."""
    measure, bag, best, best_bag = METRICS[metric], [], (-np.inf, -np.inf), []
    for _ in range(steps):
        scored = []
        for member in range(len(averaged)):
            mean = averaged[[*bag, member]].mean(axis=0)
            blend = softmax(mean) if are_logs else mean
            gain = measure.gain(measure(blend, labels))
            scored.append((round(gain, 12), round(-METRICS["log_loss"](blend, labels), 12), member))
        top = max(scored)
        bag = [*bag, top[2]]
        if top[:2] > best:
            best, best_bag = top[:2], bag
    return np.bincount(best_bag, minlength=len(averaged)) / len(best_bag)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "macro_f1", "auc"])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_one_bag_is_the_plain_loop(monkeypatch, seed, metric, average):
    monkeypatch.setattr(greedy_module, "BAGS", 1)
    probabilities, labels = draws(seed=seed)
    are_logs = average == "logits"
    averaged = np.log(probabilities) if are_logs else probabilities
    ours = greedy(probabilities, labels, metric=metric, average=average, seed=1)
    np.testing.assert_allclose(ours, plain_loop(averaged, labels, metric, are_logs=are_logs))


def test_rows_that_all_members_predict_correctly_are_skipped():
    probabilities, labels = draws(members=3, rows=2000)
    wrong = (probabilities.argmax(axis=2) != labels).any(axis=0)
    scores = greedy_module._Scores(pool_from(np.log(probabilities), labels), "probabilities")
    assert scores.contested.tolist() == np.flatnonzero(wrong).tolist() and 100 < wrong.sum() < 1900
    assert scores.contested_leads.shape == (3, 4, wrong.sum())


def test_a_logit_that_is_far_ahead_of_the_label_does_not_overflow():
    scores = greedy_module._Scores(pool_from([[[0.0, -2000.0]]], [1]), "logits")
    assert scores.losses(np.zeros(1), np.array([0])).tolist() == [2000]


def test_the_first_bag_has_all_members_and_each_other_one_60_percent_of_them(monkeypatch):
    bags, original = [], greedy_module._best_prefix
    monkeypatch.setattr(
        greedy_module, "_best_prefix", lambda all_, bag, order: bags.append(bag.tolist()) or original(all_, bag, order)
    )
    greedy(*draws(members=5, rows=40))
    assert bags[0] == [0, 1, 2, 3, 4] and [len(set(bag)) for bag in bags[1:]] == [3] * 7
    assert len({tuple(bag) for bag in bags}) > 3


def test_the_seed_decides_between_equal_members():
    member, labels = draws(members=1)
    copies = np.repeat(member, 3, axis=0)
    weights = {tuple(greedy(copies, labels, seed=seed)) for seed in range(8)}
    assert len(weights) > 1
    assert greedy(copies, labels, seed=3).tolist() == greedy(copies, labels, seed=3).tolist()


def test_a_perfect_member_has_the_largest_weight():
    probabilities, labels = draws()
    perfect = np.eye(4)[labels][None] * 0.97 + 0.01
    weights = greedy(np.concatenate([perfect, probabilities]), labels)
    assert weights.argmax() == 0 and weights[0] > 0.5
