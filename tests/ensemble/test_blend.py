"""The blend and its scores."""

import math

import numpy as np
import pytest

from podium.config import Ensemble
from podium.ensemble.blend import best_run, blend, build_ensemble
from podium.errors import ConfigError
from podium.metrics import softmax
from podium.predictions import align
from toy_runs import random_run, run_of


def build(*runs, metric="accuracy", **settings):
    return build_ensemble(align(runs), Ensemble(**settings), metric=metric)


def test_blend_is_the_weighted_average_of_probabilities():
    sure, coin = np.array([[np.log(9.0), 0.0]]), np.array([[0.0, 0.0]])  # 0.9 : 0.1 and 0.5 : 0.5
    np.testing.assert_allclose(blend([sure, coin], [0.75, 0.25]), [[0.8, 0.2]])


def test_blend_of_identical_members_is_that_member():
    logits = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(blend([logits] * 3, [0.2, 0.3, 0.5]), softmax(logits))


def test_blend_of_one_member_is_that_member_to_the_bit():
    logits = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_array_equal(blend([logits], [1.0]), softmax(logits))
    np.testing.assert_array_equal(blend([logits * 7, logits], [0.0, 1.0]), softmax(logits))


def test_blend_asks_for_a_weight_for_every_member():
    with pytest.raises(ValueError, match="zip"):
        blend([np.zeros((1, 2))], [0.5, 0.5])


def test_a_single_run_is_its_own_ensemble():
    result = build(random_run("a.s1"))
    assert [(run.run, run.weight) for run in result.members] == [("a.s1", 1.0)]
    assert result.in_sample_scores == result.best.scores == result.runs[0].scores


def test_two_identical_runs_blend_to_either():
    one, other = random_run("a.s1", seed=1), random_run("b.s1", seed=1)
    result = build(one, other)
    assert [run.weight for run in result.runs] == [0.5, 0.5]
    assert result.best.run == "a.s1"
    np.testing.assert_array_equal(result.test_probabilities, build(one).test_probabilities)


def test_weights_follow_accuracy_and_runs_left_out_have_none():
    labels = (0, 1, 2, 0)
    result = build(
        run_of("a.s1", labels=labels),
        run_of("a.s2", labels=labels, said=(0, 1, 2, 1)),
        run_of("b.s1", labels=labels, said=(0, 1, 0, 1)),
    )
    assert [run.member for run in result.runs] == [True, False, True]
    assert [run.weight for run in result.runs] == pytest.approx([2 / 3, 0, 1 / 3])
    assert [run.scores["accuracy"] for run in result.runs] == [1.0, 0.75, 0.5]
    assert result.in_sample_scores["accuracy"] == 1.0
    assert result.validation_rows == 4


def test_a_run_left_out_does_not_move_the_blend():
    members = run_of("a.s1"), run_of("b.s1", said=(0, 1, 2, 1))
    with_it = build(*members, run_of("b.s2", said=(1, 1, 1, 1), test=(2, 2, 2)))
    np.testing.assert_array_equal(with_it.test_probabilities, build(*members).test_probabilities)


def test_nobody_above_the_threshold_blends_the_best_of_each_architecture():
    result = build(random_run("a.s1", seed=1), random_run("b.s1", seed=2), threshold=1.0)
    assert [run.run for run in result.members] == ["a.s1", "b.s1"]


def test_nobody_at_all_is_refused():
    with pytest.raises(ConfigError, match="No run is a member"):
        build(random_run("a.s1"), threshold=1.0, best_per_architecture=0)


def test_the_best_single_run_is_judged_by_the_metric_of_the_competition():
    bold = run_of("a.s1", said=(0, 1, 2, 1), sure=20.0)  # three right, and one wrong without a doubt
    shy = run_of("b.s1", said=(0, 1, 0, 1), sure=0.1)  # two right, never sure
    assert build(bold, shy).best.run == "a.s1"
    result = build(bold, shy, metric="log_loss")
    assert result.best.run == "b.s1"
    assert set(result.in_sample_scores) == {"accuracy", "log_loss"}


def test_the_best_run_may_be_no_member_and_an_undefined_score_is_never_best():
    runs = build(run_of("a.s1"), run_of("a.s2", said=(0, 1, 2, 1))).runs
    assert [run.member for run in runs] == [True, False]
    runs[0].scores["auc"], runs[1].scores["auc"] = math.nan, 0.1
    assert best_run(runs, "auc").run == "a.s2"


def test_a_run_that_was_refitted_says_so():
    about = {"scored": "validation rows, before refit", "test_logits_from": "refit on all labelled rows"}
    result = build(run_of("a.s1", **about), run_of("b.s1"))
    assert (result.runs[0].scored, result.runs[0].test_logits_from) == tuple(about.values())
    assert result.runs[1].test_logits_from == "not said"


@pytest.mark.parametrize("classes", [2, 1000])
def test_binary_and_many_classes_blend_to_rows_that_sum_to_one(classes):
    names = tuple(f"c{k:04}" for k in range(classes))
    result = build(*(random_run(run, classes=names, seed=seed) for seed, run in enumerate(("a.s1", "b.s1"))))
    assert result.test_probabilities.shape == (30, classes)
    np.testing.assert_allclose(result.test_probabilities.sum(axis=1), 1)
