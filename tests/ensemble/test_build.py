"""The whole judgement: members, weights, the honest score, and edge cases whose answer is known."""

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble.build import build_ensemble
from podium.errors import ConfigError
from toy_runs import join, random_run, run_of

ALL = ("auto", "best", "uniform", "accuracy", "log-loss", "greedy", "stack")


def build(*runs, metric="accuracy", only=False, **settings):
    return build_ensemble(join(runs), Ensemble(**{"run_temperatures": "never"} | settings), metric=metric, only=only)


def test_a_single_run_is_its_own_ensemble():
    result = build(random_run("a.s1"))
    assert [(run.run, run.weight) for run in result.members] == [("a.s1", 1.0)]
    assert result.taken.in_sample["accuracy"] == result.best.scores["accuracy"] == result.runs[0].scores["accuracy"]
    assert [one.verdict for one in result.contributions] == ["keep: it is the whole blend"]


def test_two_identical_runs_blend_to_either():
    one, other = random_run("a.s1", seed=1), random_run("b.s1", seed=1)
    result = build(one, other)
    assert [run.weight for run in result.runs] == [0.5, 0.5]
    assert result.best.run == "a.s1"
    np.testing.assert_allclose(result.test_probabilities, build(one).test_probabilities, atol=1e-6)
    assert all(one.gain == 0 and not one.real and one.p == 1 for one in result.comparisons)
    assert result.error_correlation[0, 1] == pytest.approx(1) and result.disagreement[0, 1] == 0


def test_weights_follow_accuracy_and_runs_left_out_have_none():
    labels = (0, 1, 2, 0)
    result = build(
        run_of("a.s1", labels=labels),
        run_of("a.s2", labels=labels, predicted=(0, 1, 2, 1)),
        run_of("b.s1", labels=labels, predicted=(0, 1, 0, 1)),
    )
    assert [run.member for run in result.runs] == [True, False, True]
    assert [run.weight for run in result.runs] == pytest.approx([2 / 3, 0, 1 / 3])
    assert [run.scores["accuracy"] for run in result.runs] == [1.0, 0.75, 0.5]
    assert result.taken.in_sample["accuracy"] == 1.0
    assert result.validation_rows == 4


def test_a_run_left_out_does_not_move_the_blend():
    members = run_of("a.s1"), run_of("b.s1", predicted=(0, 1, 2, 1))
    with_it = build(*members, run_of("b.s2", predicted=(1, 1, 1, 1), test=(2, 2, 2)))
    assert with_it.contributions[2].verdict == "drop: it has no weight"
    np.testing.assert_array_equal(with_it.test_probabilities, build(*members).test_probabilities)


def test_nobody_above_the_threshold_blends_the_best_of_each_architecture():
    result = build(random_run("a.s1", seed=1), random_run("b.s1", seed=2), threshold=1.0)
    assert [run.run for run in result.members] == ["a.s1", "b.s1"]


def test_nobody_at_all_is_refused():
    with pytest.raises(ConfigError, match="No run is a member"):
        build(random_run("a.s1"), threshold=1.0, best_per_architecture=0)


def test_the_best_single_run_is_judged_by_the_metric_of_the_competition():
    bold = run_of("a.s1", predicted=(0, 1, 2, 1), sure=20.0)  # three right, and one wrong without a doubt
    shy = run_of("b.s1", predicted=(0, 1, 0, 1), sure=0.1)  # two right, never sure
    assert build(bold, shy).best.run == "a.s1"
    result = build(bold, shy, metric="log_loss")
    assert result.best.run == "b.s1"
    assert set(result.taken.in_sample) == {"accuracy", "log_loss"}


def test_a_run_that_was_refitted_says_so():
    about = {"scored": "validation rows, before refit", "test_logits_from": "refit on all labelled rows"}
    result = build(run_of("a.s1", **about), run_of("b.s1"))
    assert (result.runs[0].scored, result.runs[0].test_logits_from) == tuple(about.values())
    assert result.runs[1].test_logits_from == "unknown"
    assert any("1 of 2 members were refitted" in caveat for caveat in result.caveats)


@pytest.mark.parametrize("classes", [2, 1000])
def test_binary_and_many_classes_blend_to_rows_that_sum_to_one(classes):
    names = tuple(f"c{k:04}" for k in range(classes))
    result = build(*(random_run(run, classes=names, seed=seed) for seed, run in enumerate(("a.s1", "b.s1"))))
    assert result.test_probabilities.shape == (30, classes)
    np.testing.assert_allclose(result.test_probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_strategy_is_judged_and_reported_beside_the_others(strategy, average):
    runs = [random_run(f"{name}.s1", rows=200, seed=seed) for seed, name in enumerate("abc")]
    result = build(*runs, strategy=strategy, average=average)
    told = [(one.strategy, one.average) for one in result.strategies]
    both = [
        (name, kind) for name in ("uniform", "accuracy", "log-loss", "greedy") for kind in ("probabilities", "logits")
    ]
    assert sorted(told) == sorted([*both, ("best", "logits"), ("stack", "logits")])
    assert strategy in ("auto", result.taken.strategy)
    low, high = result.honest.interval
    test_low, test_high = result.honest.test_interval
    assert test_low < low < result.honest.score < high < test_high
    np.testing.assert_allclose(result.test_probabilities.sum(axis=1), 1)


def test_a_strategy_that_is_asked_for_alone_is_judged_beside_the_best_run_and_the_uniform_blend():
    runs = [random_run(f"{name}.s1", rows=100, seed=seed) for seed, name in enumerate("abc")]
    result = build(*runs, strategy="greedy", only=True)
    assert [one.strategy for one in result.strategies] == ["best", "uniform", "greedy"]
    assert [one.against for one in result.comparisons] == ["best", "uniform"]
    everything = build(*runs, strategy="greedy")
    assert result.taken.cross_fitted == everything.taken.cross_fitted
    assert result.honest == everything.honest


@pytest.mark.parametrize("strategy", ["log-loss", "greedy", "stack"])
def test_a_run_of_random_logits_gets_next_to_no_weight(strategy):
    good = [random_run(f"{name}.s1", rows=3000, seed=seed) for seed, name in enumerate("ab")]
    noise = random_run("noise.s1", rows=3000, seed=7)
    draw = np.random.default_rng(1)
    noise.oof_logits[:] = draw.normal(size=noise.oof_logits.shape)
    weights = {run.run: run.weight for run in build(*good, noise, strategy=strategy).runs}
    assert abs(weights["noise.s1"]) < 0.12 * max(weights.values())


@pytest.mark.parametrize("strategy", ["log-loss", "greedy", "best", "auto"])
def test_a_perfect_run_is_never_outvoted(strategy):
    perfect = run_of("perfect.s1", labels=tuple(random_run("x.s1").oof_labels), sure=9.0, test=(0,) * 30)
    perfect.test_ids[:] = random_run("x.s1").test_ids
    weak = [random_run(f"{name}.s1", seed=seed, noise=3.0) for seed, name in enumerate("ab")]
    result = build(perfect, *weak, strategy=strategy)
    assert result.taken.cross_fitted["accuracy"] == 1
    assert max(result.runs, key=lambda run: run.weight).run == "perfect.s1"


def test_a_run_with_constant_output_changes_nothing_that_a_uniform_share_would_not():
    constant = random_run("constant.s1", seed=5)
    constant.oof_logits[:], constant.test_logits[:] = 0, 0
    good = random_run("a.s1", seed=1)
    both, alone = build(good, constant, strategy="uniform"), build(good, strategy="uniform")
    assert both.test_probabilities.argmax(axis=1).tolist() == alone.test_probabilities.argmax(axis=1).tolist()
    assert build(good, constant, strategy="log-loss").runs[1].weight < 0.2


def test_temperatures_make_logits_of_very_different_scales_equal():
    one, other = random_run("a.s1", rows=400, seed=1), random_run("b.s1", rows=400, seed=2)
    loud = random_run("b.s1", rows=400, seed=2)
    loud.oof_logits[:] *= 50
    loud.test_logits[:] *= 50
    plain = build(one, other, strategy="uniform", run_temperatures="always")
    scaled = build(one, loud, strategy="uniform", run_temperatures="always")
    assert scaled.runs[1].temperature == pytest.approx(50 * plain.runs[1].temperature, rel=0.02)
    np.testing.assert_allclose(scaled.test_probabilities, plain.test_probabilities, atol=0.01)


def test_runs_are_calibrated_where_they_were_smoothed_differently_or_nobody_knows():
    smooth = {"label_smoothing": 0.1}
    alike = random_run("a.s1"), random_run("b.s1", seed=1)
    for one in alike:
        one.about["recipe"] = smooth
    assert {run.temperature for run in build(*alike, run_temperatures="auto").runs} == {1.0}
    alike[1].about["recipe"] = {"label_smoothing": 0.0}
    assert 1.0 not in {run.temperature for run in build(*alike, run_temperatures="auto").runs}
    del alike[1].about["recipe"]
    assert 1.0 not in {run.temperature for run in build(*alike, run_temperatures="auto").runs}


@pytest.mark.parametrize("strategy", ALL)
def test_a_class_that_no_validation_row_has_is_no_obstacle(strategy):
    runs = [random_run(f"{name}.s1", seed=seed, classes=("a", "b", "c", "d")) for seed, name in enumerate("xy")]
    labels = np.where(runs[0].oof_labels == 3, 0, runs[0].oof_labels)
    for run in runs:
        run.oof_labels[:] = labels
    assert 0 <= build(*runs, strategy=strategy).honest.score <= 1


def test_thirty_rows_give_a_wide_interval_and_say_so():
    result = build(*(random_run(f"{name}.s1", rows=30, seed=seed) for seed, name in enumerate("ab")), strategy="auto")
    low, high = result.honest.interval
    assert high - low > 0.1
    assert result.caveats[0].startswith("only 30 validation rows: the true accuracy may be anywhere from")


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1", "qwk", "auc"])
def test_other_metrics_have_an_honest_score_too(metric):
    runs = [random_run(f"{name}.s1", rows=60, seed=seed) for seed, name in enumerate("ab")]
    result = build(*runs, metric=metric, strategy="auto")
    low, high = result.honest.interval
    assert low < high and np.isfinite([low, high, result.honest.score]).all()
    assert result.taken.cross_fitted.keys() == {"accuracy", "log_loss", metric}


def test_float16_logits_blend_like_float32():
    runs = [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("ab")]
    halves = [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("ab")]
    for run in halves:
        object.__setattr__(run, "oof_logits", run.oof_logits.astype(np.float16))
        object.__setattr__(run, "test_logits", run.test_logits.astype(np.float16))
    full, half = build(*runs), build(*halves)
    np.testing.assert_allclose(half.test_probabilities, full.test_probabilities, atol=2e-3)


def test_auto_takes_the_best_single_run_where_no_blend_beats_it_beyond_noise():
    result = build(random_run("a.s1", seed=1, noise=0.3), random_run("b.s1", seed=2, noise=4.0), strategy="auto")
    assert result.taken.strategy == "best"
    assert [run.run for run in result.members] == ["a.s1"]


def test_auto_blends_where_that_is_better_and_pays_for_having_chosen():
    runs = [random_run(f"{name}.s1", rows=2000, seed=seed, noise=2.0) for seed, name in enumerate("abcdef")]
    result = build(*runs, strategy="auto")
    assert result.taken.strategy != "best"
    assert result.comparisons[0].against == "best" and result.comparisons[0].real
    assert result.honest.corrected_for_choosing != 0
    named = build(*runs, strategy=result.taken.strategy)
    assert named.honest.corrected_for_choosing == 0
