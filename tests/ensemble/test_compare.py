"""Intervals, paired comparisons and the correction for choosing a strategy, compared with formulas."""

import numpy as np
import pytest
from scipy.stats import norm

from podium.ensemble import compare as compare_module
from podium.ensemble import pool as pool_module
from podium.ensemble.blend import Blend
from podium.ensemble.compare import Bootstrap, bootstrap, choose, compare, estimate, holm, mcnemar
from podium.ensemble.cross_fit import Candidate
from podium.metrics import METRICS, wilson_interval
from toy_runs import pool_from

NAMES = ["best", "uniform", "accuracy", "log-loss"]


def pool_of_rows(labels, *, classes=2, metric="accuracy", groups=None, counts=None):
    """A pool of one run without knowledge; with `counts`, its draws."""
    pool = pool_from(np.zeros((1, len(labels), classes)), labels, metric=metric, groups=groups)
    if counts is not None:
        vars(pool)["draws"] = np.array(counts, float)
    return pool


def probabilities_of(hits):
    """Probabilities (1, n, 2) of a run that predicts these rows correctly; every label is 0."""
    return np.where(np.asarray(hits)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])[None].astype(np.float32)


def of_hits(*rows, groups=None):
    pool = pool_of_rows(np.zeros(len(rows[0]), int), groups=groups)
    return bootstrap(pool, [probabilities_of(hits) for hits in rows])


def compare_hits(first, second, *, groups=None):
    candidates = [
        Candidate(Blend(name, "logits", np.ones(1), np.ones(1), None), probabilities_of(hits), [])
        for name, hits in (("uniform", first), ("best", second))
    ]
    (comparison,) = compare(of_hits(first, second, groups=groups), candidates, 0)
    return comparison


def test_the_bootstrap_has_the_standard_error_of_a_share():
    hits = np.arange(1000) % 10 != 0
    resampled = of_hits(hits)
    assert resampled.whole[0] == pytest.approx(0.9)
    assert resampled.inside[:, 0].std() == pytest.approx(np.sqrt(0.9 * 0.1 / 1000), rel=0.1)
    assert resampled.outside[:, 0].mean() == pytest.approx(0.9, abs=0.003)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_rows_outside_the_draws_are_scored_only_if_requested(metric):
    pool = pool_of_rows(np.zeros(60, int), metric=metric)
    probabilities = probabilities_of(np.arange(60) % 4 != 0)[None]
    both, inside = (bootstrap(pool, probabilities, outside=outside) for outside in (True, False))
    assert both.outside.shape == both.inside.shape and inside.outside is None
    np.testing.assert_array_equal(both.inside, inside.inside)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_draw_of_all_rows_has_its_inside_score_outside_too(metric):
    pool = pool_of_rows(np.zeros(3, int), metric=metric, counts=[[1, 1, 1], [3, 0, 0]])
    resampled = bootstrap(pool, probabilities_of([True, False, True])[None])
    assert resampled.outside[0] == resampled.inside[0] == pytest.approx(resampled.whole)
    assert resampled.outside[1] < resampled.inside[1] == 1


def test_the_middle_95_percent_equal_numpys_percentiles():
    values = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_allclose(compare_module._middle_95(values), np.percentile(values, [2.5, 97.5]))


def test_the_standard_error_of_a_difference_is_paired():
    draw = np.random.default_rng(0)
    better, worse = draw.random(2000) < 0.9, draw.random(2000) < 0.8
    errors = of_hits(better, worse).standard_errors(1)
    assert errors[0] == pytest.approx((better.astype(float) - worse).std() / np.sqrt(2000), rel=0.1)
    assert errors[1] == 0


def test_rows_of_one_group_are_drawn_together():
    hits = np.arange(1000) % 10 != 0
    groups = np.array(
        [f"g{group}" for group in np.where(hits, 1 + np.arange(1000) // 100, 0)]
    )  # all errors are one group
    ungrouped, grouped = of_hits(hits), of_hits(hits, groups=groups)
    assert grouped.inside[:, 0].std() > 5 * ungrouped.inside[:, 0].std()
    wide, narrow = (estimate(drawn, 0, tests=1000).interval for drawn in (grouped, ungrouped))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_every_one_of_many_rows_may_be_drawn(monkeypatch):
    monkeypatch.setattr(pool_module, "MOST_DRAWN", 1)
    counts = pool_of_rows(np.zeros(65_537, int)).draws  # one more than 16 bits can number
    assert counts.shape == (50, 65_537) and (counts.sum(axis=1) == 65_537).all()
    assert counts[:, -1].any()


def test_an_accuracy_has_wilsons_interval_and_a_wider_interval_for_a_new_test():
    hits = np.arange(1000) % 10 != 0
    score = estimate(of_hits(hits), 0, tests=1000)
    assert score.interval == pytest.approx(wilson_interval(900, 1000))
    assert score.test_interval == pytest.approx(wilson_interval(450, 500))  # 1/1000 + 1/1000 = 1/500


def test_the_interval_of_a_log_loss_on_a_test_of_as_many_rows_is_wider_by_the_root_of_two():
    draw = np.random.default_rng(0)
    probabilities = np.stack([share := draw.uniform(0.1, 0.9, 400), 1 - share], axis=1)[None, None]
    resampled = bootstrap(pool_of_rows(np.zeros(400, int), metric="log_loss"), probabilities)
    score = estimate(resampled, 0, tests=400)
    ends = np.array([score.interval, score.test_interval]) - score.score
    assert ends[0][0] < 0 < ends[0][1]
    np.testing.assert_allclose(ends[1], ends[0] * np.sqrt(2))


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1), (5, 0, 2 / 32), (0, 5, 2 / 32), (3, 3, 1), (8, 2, 0.109375)])
def test_mcnemar_is_a_two_sided_sign_test(won, lost, p):
    assert mcnemar(won, lost) == pytest.approx(p)


def test_a_gain_is_real_only_if_its_interval_does_not_contain_0():
    better, worse = np.arange(1000) % 10 != 0, np.arange(1000) % 5 != 0
    real = compare_hits(better, worse)
    assert real.real and real.gain == pytest.approx(0.1) and (real.won, real.lost) == (100, 0)
    same = compare_hits(better, better)
    assert not same.real and same.gain == 0 and same.p == 1


def test_mcnemar_counts_groups_where_rows_have_groups():
    # 40 rows are won, but they are two groups: what happens to one row of a group happens to all.
    better, worse = np.ones(200, bool), np.arange(200) >= 40
    result = compare_hits(better, worse, groups=(np.arange(200) // 20).astype(str))
    assert (result.won, result.lost, result.counted) == (2, 0, "groups")
    assert result.p == mcnemar(2, 0) == 0.5


def test_holm_needs_more_of_the_smallest_of_several_p_values():
    assert holm([0.04]).tolist() == holm([0.05]).tolist() == [True]
    assert holm([0.04, 0.5]).tolist() == [False, False]
    assert holm([0.03, 0.001, 0.02, 0.6]).tolist() == [False, True, False, False]  # 0.02 is above 0.05 / 3
    assert holm([0.016, 0.001, 0.024, 0.6]).tolist() == [True, True, True, False]
    assert holm([]).tolist() == []


def test_the_p_value_of_a_difference_is_that_of_a_normal_distribution():
    draw = np.random.default_rng(0)
    better, worse = draw.random(2000) < 0.83, draw.random(2000) < 0.8
    resampled = of_hits(better, worse)
    difference = better.astype(float) - worse
    z = difference.mean() / (difference.std() / np.sqrt(2000))
    assert resampled.difference(0, 1)[2] == pytest.approx(2 * norm.sf(z), rel=0.25)
    assert of_hits(better, better).difference(0, 1)[2] == 1


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "qwk", "auc"])
def test_metrics_that_are_no_mean_are_scored_on_1000_draws_of_rows(metric):
    draw = np.random.default_rng(0)
    labels, probabilities = draw.integers(3, size=30), np.round(draw.dirichlet(np.ones(3), size=30), 1)
    pool = pool_of_rows(labels, classes=3, metric=metric)
    resampled = bootstrap(pool, probabilities[None, None])
    assert len(resampled.inside) == len(resampled.outside) == 1000
    for place in range(20):
        rows = np.repeat(np.arange(30), pool.draws[place].astype(int))
        assert resampled.inside[place, 0] == pytest.approx(METRICS[metric](probabilities[rows], labels[rows]))


def test_a_draw_without_a_score_has_that_of_all_rows():
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.95, 0.05]])[None, None]
    pool = pool_of_rows(labels, metric="auc", counts=[[0, 1, 1, 2], [1, 1, 1, 1]])
    resampled = bootstrap(pool, probabilities)
    assert resampled.inside[:, 0].tolist() == pytest.approx([2 / 3, 2 / 3])


def chosen(means, *errors):
    """The chosen strategy, where the differences from log-loss have these standard errors."""
    means, errors = np.array(means), np.array([*errors, 0])
    resampled = Bootstrap(means, np.stack([means - errors, means + errors]), None, None)
    return NAMES[int(choose(resampled, means, NAMES))]


def test_auto_chooses_log_loss_unless_another_strategy_is_ahead_by_a_standard_error():
    assert chosen([0.91, 0.91, 0.91, 0.90], 0.02, 0.02, 0.02) == "log-loss"
    assert chosen([0.80, 0.93, 0.95, 0.90], 0.02, 0.02, 0.02) == "accuracy"
    assert chosen([0.9, 0.9, 0.9, 0.9], 0, 0, 0) == "log-loss"


def test_auto_chooses_the_best_run_only_if_it_is_ahead_beyond_noise():
    assert chosen([0.93, 0.90, 0.90, 0.90], 0.02, 0.02, 0.02) == "log-loss"
    assert chosen([0.95, 0.90, 0.90, 0.90], 0.02, 0.02, 0.02) == "best"


def test_a_larger_lead_that_is_noise_does_not_hide_a_smaller_one_that_is_not():
    assert chosen([0.96, 0.93, 0.90, 0.90], 0.05, 0.01, 0.01) == "uniform"


def test_a_choice_among_equal_strategies_is_corrected():
    # Five strategies are equally good: which of them is best on these rows is chance.
    draw = np.random.default_rng(1)
    names = ["best", "uniform", "accuracy", "log-loss", "greedy", "stack"]
    hits = [draw.random(500) < 0.2, *(draw.random(500) < 0.8 for _ in range(5))]
    resampled = of_hits(*hits)
    choice = int(choose(resampled, resampled.whole, names))
    score = estimate(resampled, choice, tests=500, chosen_among=names)
    assert score.corrected_for_choosing > 0
    assert score.score == pytest.approx(resampled.whole[choice] - score.corrected_for_choosing)


def test_a_choice_never_makes_a_score_better():
    # The draws choose the strategy that all rows choose, or an equally good one, so that only noise is left to correct.
    names = ["best", "uniform", "accuracy", "log-loss"]
    for seed in range(20):
        draw = np.random.default_rng(seed)
        hits = draw.random(500) < 0.8
        resampled = of_hits(hits, *[hits] * 3)
        choice = int(choose(resampled, resampled.whole, names))
        score = estimate(resampled, choice, tests=500, chosen_among=names)
        assert score.score <= resampled.whole[choice] and score.corrected_for_choosing >= 0


def test_metrics_that_are_no_mean_over_rows_are_bootstrapped():
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=80)
    scores = labels * 0.5 + draw.random(80)
    probabilities = np.stack([1 - scores / 2, scores / 2], axis=1)[None, None]
    resampled = bootstrap(pool_of_rows(labels, metric="auc"), probabilities)
    assert 0.6 < resampled.whole[0] < 1
    assert resampled.inside[:, 0].std() > 0 and resampled.outside.shape == resampled.inside.shape
