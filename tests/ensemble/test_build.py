"""A whole ensemble: members, weights, the cross-fitted score, and edge cases whose answer is known."""

import re
from dataclasses import replace

import numpy as np
import pytest

from podium.config.keys import Ensemble
from podium.ensemble import build as build_module
from podium.ensemble.build import build_ensemble
from podium.ensemble.text import ensemble_lines
from podium.ensemble.write import WrittenEnsemble
from podium.errors import ConfigError
from podium.metrics import log_loss
from toy_runs import join, random_run, run_of

ALL = ("auto", "best", "uniform", "accuracy", "log-loss", "greedy", "stack")


def build(*runs, metric="accuracy", only=True, **settings):
    settings = Ensemble(**{"run_temperatures": "never", "strategy": "accuracy"} | settings)
    return build_ensemble(join(runs), settings, metric=metric, only=only)


def test_a_single_run_is_its_own_ensemble():
    result = build(random_run("a.s1"))
    assert [(run.run, run.weight) for run in result.runs] == [("a.s1", 1.0)]
    assert result.used.in_sample["accuracy"] == result.best.scores["accuracy"] == result.runs[0].scores["accuracy"]
    assert [contribution.verdict for contribution in result.contributions] == ["keep: it is the whole blend"]


def test_two_identical_runs_blend_to_either():
    first, second = random_run("a.s1", seed=1), random_run("b.s1", seed=1)
    result = build(first, second)
    assert [run.weight for run in result.runs] == [0.5, 0.5]
    assert result.best.run == "a.s1"
    np.testing.assert_allclose(result.test_probabilities, build(first).test_probabilities, atol=1e-6)
    assert all(row.gain == 0 and not row.real and row.p == 1 for row in result.comparisons)
    assert result.pool.error_correlation[0, 1] == pytest.approx(1) and result.pool.disagreement[0, 1] == 0


def test_weights_are_proportional_to_accuracy_and_other_runs_have_none():
    labels = (0, 1, 2, 0)
    result = build(
        run_of("a.s1", labels=labels),
        run_of("a.s2", labels=labels, predicted=(0, 1, 2, 1)),
        run_of("b.s1", labels=labels, predicted=(0, 1, 0, 1)),
    )
    assert [run.member for run in result.runs] == [True, False, True]
    assert [run.weight for run in result.runs] == pytest.approx([2 / 3, 0, 1 / 3])
    assert [run.scores["accuracy"] for run in result.runs] == [1.0, 0.75, 0.5]
    assert result.used.in_sample["accuracy"] == 1.0
    assert result.aligned.oof_ids.tolist() == ["v0", "v1", "v2", "v3"]


def test_a_run_that_is_not_a_member_does_not_change_the_blend():
    members = run_of("a.s1"), run_of("b.s1", predicted=(0, 1, 2, 1))
    with_other_run = build(*members, run_of("b.s2", predicted=(1, 1, 1, 1), test=(2, 2, 2)))
    assert with_other_run.contributions[2].verdict == "drop: it has no weight"
    np.testing.assert_array_equal(with_other_run.test_probabilities, build(*members).test_probabilities)


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(ConfigError, match="No run is a member") as refused:
        build(random_run("a.s1"), threshold=1.0, best_per_architecture=0)
    assert refused.value.expected == "a [ensemble] threshold that some run reaches, or best_per_architecture = 1"
    assert refused.value.found == "threshold = 1, best_per_architecture = 0"


def test_the_best_single_run_is_best_by_the_metric_of_the_competition():
    confident = run_of("a.s1", predicted=(0, 1, 2, 1), sure=20.0)  # three rows correct, one wrong with high confidence
    uncertain = run_of("b.s1", predicted=(0, 1, 0, 1), sure=0.1)  # two rows correct, low confidence
    assert build(confident, uncertain).best.run == "a.s1"
    result = build(confident, uncertain, metric="log_loss")
    assert result.best.run == "b.s1"
    assert set(result.used.in_sample) == {"accuracy", "log_loss"}


def test_selection_follows_the_metric_of_the_competition():
    confident = run_of("a.s1", predicted=(0, 1, 2, 1), sure=20.0)
    uncertain = run_of("a.s2", predicted=(0, 1, 0, 1), sure=0.1)
    by_accuracy = build(confident, uncertain, threshold=1.0)
    assert [run.weight > 0 for run in by_accuracy.runs] == [True, False]
    by_log_loss = build(confident, uncertain, metric="log_loss", threshold=0.0)
    assert [run.weight > 0 for run in by_log_loss.runs] == [False, True]


def test_the_table_of_runs_has_the_metric_of_the_competition(tmp_path):
    runs = [random_run(f"{name}.s1", rows=100, seed=seed) for seed, name in enumerate("ab")]
    for metric, gain in (("accuracy", r"[+-]\d+\.\d\d "), ("log_loss", r"[+-]\d\.\d{4} ")):
        result = build(*runs, metric=metric)
        lines = ensemble_lines(WrittenEnsemble(result, tmp_path / "a.csv", tmp_path / "a.json"), stale=set())
        assert lines[1].split()[:2] == ["run", metric]
        by_name = {line.split()[0]: line for line in lines[2:4]}
        for run in result.runs:
            assert float(by_name[run.run].split()[1]) == pytest.approx(run.scores[metric], abs=1e-4)
            assert re.search(gain, by_name[run.run])


def test_a_part_in_which_no_run_is_above_the_threshold_uses_the_best_run():
    runs = [random_run(f"{name}.s1", rows=60, seed=seed) for seed, name in enumerate("ab")]
    best = max((run.oof_logits.argmax(axis=1) == run.oof_labels).mean() for run in runs)
    settings = {"threshold": best - 1e-6, "best_per_architecture": 0}
    result = build(*runs, **settings)  # in some part the best run is below its score on all rows
    assert [run.member for run in result.runs].count(True) == 1


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "macro_f1", "qwk", "auc"])
def test_too_few_validation_rows_are_refused_or_scored(metric):
    with pytest.raises(ConfigError, match="at least two validation rows"):
        build(run_of("a.s1", labels=(0,)), metric=metric)
    two = build(
        run_of("a.s1", labels=(0, 1)), run_of("b.s1", labels=(0, 1), predicted=(1, 1)), metric=metric, only=False
    )
    assert np.isfinite(two.test_probabilities).all()


def test_auc_of_rows_of_one_class_is_refused():
    with pytest.raises(ConfigError, match="validation rows have no auc"):
        build(run_of("a.s1", labels=(1, 1, 1)), metric="auc")


def test_auc_of_two_classes_is_scored():
    names = ("no", "yes")
    result = build(*(random_run(f"{run}.s1", classes=names, seed=ord(run)) for run in "ab"), metric="auc")
    assert 0.5 < result.score.score <= 1


def test_one_group_of_rows_is_refused():
    joined = replace(join([run_of("a.s1"), run_of("b.s1")]), groups=np.array(["g", "g", "g", "g"]))
    with pytest.raises(ConfigError, match=r"at least two validation groups"):
        build_ensemble(joined, Ensemble(), metric="accuracy")


def test_calibration_is_measured_before_and_after_the_temperature_and_optimism_is_a_difference():
    result = build(*(random_run(f"{run}.s1", rows=200, seed=ord(run)) for run in "ab"), strategy="uniform")
    labels = np.random.default_rng(0).integers(3, size=200)[np.argsort([f"v{row}" for row in range(200)])]
    for state, probabilities in (("before", result.uncalibrated), ("after", result.cross_fitted)):
        assert result.calibration[state]["log_loss"] == pytest.approx(log_loss(probabilities, labels))
    assert result.calibration["after"]["log_loss"] != result.calibration["before"]["log_loss"]
    used = result.used
    assert used.optimism("accuracy") == used.in_sample["accuracy"] - used.cross_fitted["accuracy"]
    assert used.optimism("log_loss") == used.cross_fitted["log_loss"] - used.in_sample["log_loss"]


def test_a_run_that_averages_its_folds_is_reported():
    result = build(run_of("a.s1", test_logits_from="average of 5 fold models"), run_of("b.s1"), run_of("c.s1"))
    assert any("1 of 3 members average their fold models" in caveat for caveat in result.caveats)
    assert "if recipes were tuned, stopped early or picked on these rows" in result.caveats[-1]


def test_a_refitted_run_is_reported():
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
def test_every_strategy_is_scored_and_reported(strategy, average):
    runs = [random_run(f"{name}.s1", rows=200, seed=seed) for seed, name in enumerate("abc")]
    result = build(*runs, strategy=strategy, average=average, only=False)
    scored = [(score.strategy, score.average) for score in result.strategies]
    both = [
        (name, kind) for name in ("uniform", "accuracy", "log-loss", "greedy") for kind in ("probabilities", "logits")
    ]
    assert sorted(scored) == sorted([*both, ("best", "logits"), ("stack", "logits")])
    assert strategy in ("auto", result.used.strategy)
    low, high = result.score.interval
    test_low, test_high = result.score.test_interval
    assert test_low < low < result.score.score < high < test_high
    np.testing.assert_allclose(result.test_probabilities.sum(axis=1), 1)


def test_only_the_requested_strategy_the_best_run_and_the_uniform_blend_are_scored():
    runs = [random_run(f"{name}.s1", rows=100, seed=seed) for seed, name in enumerate("abc")]
    result = build(*runs, strategy="greedy")
    assert [score.strategy for score in result.strategies] == ["best", "uniform", "greedy"]
    assert [comparison.against for comparison in result.comparisons] == ["best", "uniform"]
    everything = build(*runs, strategy="greedy", only=False)
    assert result.used.cross_fitted == everything.used.cross_fitted
    assert result.score == everything.score


@pytest.mark.parametrize("strategy", ["log-loss", "greedy", "stack"])
def test_a_run_of_random_logits_has_a_small_weight(strategy):
    good = [random_run(f"{name}.s1", rows=3000, seed=seed) for seed, name in enumerate("ab")]
    noise = random_run("noise.s1", rows=3000, seed=7)
    draw = np.random.default_rng(1)
    noise.oof_logits[:] = draw.normal(size=noise.oof_logits.shape)
    weights = {run.run: run.weight for run in build(*good, noise, strategy=strategy).runs}
    assert abs(weights["noise.s1"]) < 0.12 * max(weights.values())


@pytest.mark.parametrize("strategy", ["log-loss", "greedy", "best", "auto"])
def test_a_perfect_run_decides_the_blend(strategy):
    perfect = run_of("perfect.s1", labels=tuple(random_run("x.s1").oof_labels), sure=9.0, test=(0,) * 30)
    perfect.test_ids[:] = random_run("x.s1").test_ids
    weak = [random_run(f"{name}.s1", seed=seed, noise=3.0) for seed, name in enumerate("ab")]
    result = build(perfect, *weak, strategy=strategy)
    assert result.used.cross_fitted["accuracy"] == 1
    assert max(result.runs, key=lambda run: run.weight).run == "perfect.s1"


def test_a_run_with_constant_logits_changes_no_label():
    constant = random_run("constant.s1", seed=5)
    constant.oof_logits[:], constant.test_logits[:] = 0, 0
    good = random_run("a.s1", seed=1)
    both, alone = build(good, constant, strategy="uniform"), build(good, strategy="uniform")
    assert both.test_probabilities.argmax(axis=1).tolist() == alone.test_probabilities.argmax(axis=1).tolist()
    assert build(good, constant, strategy="log-loss").runs[1].weight < 0.2


def test_temperatures_remove_the_scale_of_logits():
    first, second = random_run("a.s1", rows=400, seed=1), random_run("b.s1", rows=400, seed=2)
    large = random_run("b.s1", rows=400, seed=2)
    large.oof_logits[:] *= 50
    large.test_logits[:] *= 50
    plain = build(first, second, strategy="uniform", run_temperatures="always")
    scaled = build(first, large, strategy="uniform", run_temperatures="always")
    assert scaled.runs[1].temperature == pytest.approx(50 * plain.runs[1].temperature, rel=0.02)
    np.testing.assert_allclose(scaled.test_probabilities, plain.test_probabilities, atol=0.01)


def test_runs_get_temperatures_if_their_smoothing_differs_or_is_unknown():
    smooth = {"label_smoothing": 0.1}
    runs = random_run("a.s1"), random_run("b.s1", seed=1)
    for run in runs:
        run.about["recipe"] = smooth
    assert {run.temperature for run in build(*runs, run_temperatures="auto").runs} == {1.0}
    runs[1].about["recipe"] = {"label_smoothing": 0.0}
    assert 1.0 not in {run.temperature for run in build(*runs, run_temperatures="auto").runs}
    del runs[1].about["recipe"]
    assert 1.0 not in {run.temperature for run in build(*runs, run_temperatures="auto").runs}


@pytest.mark.parametrize("strategy", ALL)
def test_a_class_may_have_no_validation_rows(strategy):
    runs = [random_run(f"{name}.s1", seed=seed, classes=("a", "b", "c", "d")) for seed, name in enumerate("xy")]
    labels = np.where(runs[0].oof_labels == 3, 0, runs[0].oof_labels)
    for run in runs:
        run.oof_labels[:] = labels
    assert 0 <= build(*runs, strategy=strategy).score.score <= 1


def test_thirty_rows_give_a_wide_interval_and_a_caveat():
    result = build(*(random_run(f"{name}.s1", rows=30, seed=seed) for seed, name in enumerate("ab")), strategy="auto")
    low, high = result.score.interval
    assert high - low > 0.1
    assert result.caveats[0].startswith("only 30 validation rows: the true accuracy may be anywhere from")


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1", "qwk", "auc", "map_at_2"])
def test_other_metrics_have_a_cross_fitted_score_and_an_interval(metric):
    runs = [random_run(f"{name}.s1", rows=60, seed=seed) for seed, name in enumerate("ab")]
    result = build(*runs, metric=metric, strategy="auto")
    low, high = result.score.interval
    assert low < high and np.isfinite([low, high, result.score.score]).all()
    assert result.used.cross_fitted.keys() == {"accuracy", "log_loss", metric}


def test_auto_weights_by_log_loss_where_no_other_strategy_is_ahead_beyond_noise():
    result = build(random_run("a.s1", seed=1, noise=0.3), random_run("b.s1", seed=2, noise=4.0), strategy="auto")
    assert result.used.strategy == "log-loss"
    assert result.runs[0].weight > 0.9


def test_auto_corrects_its_score_for_the_choice():
    runs = [random_run(f"{name}.s1", rows=2000, seed=seed, noise=2.0) for seed, name in enumerate("abcdef", start=12)]
    result = build(*runs, strategy="auto")
    assert result.used.strategy != "best"
    assert result.comparisons[0].against == "best" and result.comparisons[0].real
    assert result.score.corrected_for_choosing > 0
    named = build(*runs, strategy=result.used.strategy)
    assert named.score.corrected_for_choosing == 0


def test_strategies_that_are_ahead_beyond_noise_are_compared_and_printed(tmp_path):
    strong = random_run("a.s1", rows=1000, seed=1, noise=0.8)
    weak = [random_run(f"{name}.s1", rows=1000, seed=seed, noise=4.0) for seed, name in enumerate("bcd")]
    result = build(strong, *weak, strategy="uniform", only=False)
    ahead = {row.against: row for row in result.comparisons}
    assert ahead.keys() >= {"best", "log-loss"} and ahead["log-loss"].real and ahead["log-loss"].gain < 0
    lines = ensemble_lines(WrittenEnsemble(result, tmp_path / "a.csv", tmp_path / "a.json"), stale=set())
    assert any("compared with log-loss:" in line and "try STRATEGY=log-loss" in line for line in lines)
    equal = [random_run(f"{name}.s1", rows=1000, seed=seed) for seed, name in enumerate("abc")]
    assert [row.against for row in build(*equal, strategy="uniform", only=False).comparisons] == ["best"]


def test_with_very_many_logits_only_the_strategies_without_a_search_are_compared(monkeypatch):
    runs = [random_run(f"{name}.s1", seed=seed) for seed, name in enumerate("abc")]
    assert len(build(*runs, strategy="auto", only=False).strategies) == 10
    monkeypatch.setattr(build_module, "MOST_WORK", 3 * 40 * 3 * (3 + 3) - 1)
    strategies = [score.strategy for score in build(*runs, strategy="auto", only=False).strategies]
    assert strategies == ["best", "uniform", "accuracy", "log-loss"]
