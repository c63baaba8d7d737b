"""Intervals, paired comparisons and the correction for choosing a strategy, compared with formulas."""

import numpy as np
import pytest
from scipy.stats import norm

from podium.ensemble import compare as compare_module
from podium.ensemble.compare import Bootstrap, Draws, bootstrap, choose, compare, draw_rows, estimate, holm, mcnemar
from podium.metrics import METRICS, wilson_interval

NAMES = ["best", "uniform", "accuracy", "log-loss"]


def probabilities_of(hits):
    """Probabilities (1, n, 2) of a run that predicts these rows correctly; every label is 0."""
    return np.where(np.asarray(hits)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])[None].astype(np.float32)


def of_hits(*rows, groups=None):
    labels = np.zeros(len(rows[0]), int)
    draws = draw_rows(len(labels), groups, 0)
    return bootstrap(np.stack([probabilities_of(hits) for hits in rows]), labels, metric="accuracy", draws=draws)


def test_the_bootstrap_has_the_standard_error_of_a_share():
    hits = np.arange(1000) % 10 != 0
    resampled = of_hits(hits)
    assert resampled.whole[0] == pytest.approx(0.9)
    assert resampled.inside[:, 0].std() == pytest.approx(np.sqrt(0.9 * 0.1 / 1000), rel=0.1)
    assert resampled.outside[:, 0].mean() == pytest.approx(0.9, abs=0.003)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_rows_outside_the_draws_are_scored_only_if_requested(metric):
    labels = np.zeros(60, int)
    settings = {"metric": metric, "draws": draw_rows(60, None, 0)}
    probabilities = probabilities_of(np.arange(60) % 4 != 0)[None]
    both, inside = (bootstrap(probabilities, labels, **settings, outside=outside) for outside in (True, False))
    assert both.outside.shape == both.inside.shape and inside.outside is None
    np.testing.assert_array_equal(both.inside, inside.inside)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_draw_of_all_rows_has_its_inside_score_outside_too(metric):
    draws = Draws(np.arange(3), np.array([[1, 1, 1], [3, 0, 0]], np.float32))
    resampled = bootstrap(probabilities_of([True, False, True])[None], np.zeros(3, int), metric=metric, draws=draws)
    assert resampled.outside[0] == resampled.inside[0] == pytest.approx(resampled.whole)
    assert resampled.outside[1] < resampled.inside[1] == 1


def test_the_middle_95_percent_equal_numpys_percentiles():
    values = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_allclose(compare_module._middle_95(values), np.percentile(values, [2.5, 97.5]))


def test_the_standard_error_of_a_difference_is_paired():
    draw = np.random.default_rng(0)
    better, worse = draw.random(2000) < 0.9, draw.random(2000) < 0.8
    errors = of_hits(better, worse).standard_errors()
    assert errors[0, 1] == pytest.approx((better.astype(float) - worse).std() / np.sqrt(2000), rel=0.1)
    assert errors[0, 0] == 0


def test_rows_of_one_group_are_drawn_together():
    hits = np.arange(1000) % 10 != 0
    groups = np.array(
        [f"g{group}" for group in np.where(hits, 1 + np.arange(1000) // 100, 0)]
    )  # all errors are one group
    ungrouped, grouped = of_hits(hits), of_hits(hits, groups=groups)
    assert grouped.inside[:, 0].std() > 5 * ungrouped.inside[:, 0].std()
    wide, narrow = (estimate(drawn, 0, metric="accuracy", tests=1000).interval for drawn in (grouped, ungrouped))
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_every_one_of_many_rows_may_be_drawn(monkeypatch):
    monkeypatch.setattr(compare_module, "MOST_DRAWN", 1)
    counts = draw_rows(65_537, None, 0).counts  # one more than 16 bits can number
    assert counts.shape == (50, 65_537) and (counts.sum(axis=1) == 65_537).all()
    assert counts[:, -1].any()


def test_an_accuracy_has_wilsons_interval_and_a_wider_interval_for_a_new_test():
    hits = np.arange(1000) % 10 != 0
    score = estimate(of_hits(hits), 0, metric="accuracy", tests=1000)
    assert score.interval == pytest.approx(wilson_interval(900, 1000))
    assert score.test_interval == pytest.approx(wilson_interval(450, 500))  # 1/1000 + 1/1000 = 1/500


def test_the_interval_of_a_log_loss_on_a_test_of_as_many_rows_is_wider_by_the_root_of_two():
    draw = np.random.default_rng(0)
    probabilities = np.stack([share := draw.uniform(0.1, 0.9, 400), 1 - share], axis=1)[None, None]
    resampled = bootstrap(probabilities, np.zeros(400, int), metric="log_loss", draws=draw_rows(400, None, 0))
    score = estimate(resampled, 0, metric="log_loss", tests=400)
    ends = np.array([score.interval, score.test_interval]) - score.score
    assert ends[0][0] < 0 < ends[0][1]
    np.testing.assert_allclose(ends[1], ends[0] * np.sqrt(2))


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1), (5, 0, 2 / 32), (0, 5, 2 / 32), (3, 3, 1), (8, 2, 0.109375)])
def test_mcnemar_is_a_two_sided_sign_test(won, lost, p):
    assert mcnemar(won, lost) == pytest.approx(p)


def test_a_gain_is_real_only_if_its_interval_does_not_contain_0():
    better, worse = np.arange(1000) % 10 != 0, np.arange(1000) % 5 != 0
    labels_right, unit = np.stack([better, worse]), np.arange(1000)
    real = compare(of_hits(better, worse), labels_right, 0, 1, unit=unit, against="best")
    assert real.real and real.gain == pytest.approx(0.1) and (real.won, real.lost) == (100, 0)
    same = compare(of_hits(better, better), np.stack([better, better]), 0, 1, unit=unit, against="best")
    assert not same.real and same.gain == 0 and same.p == 1


def test_mcnemar_counts_groups_where_rows_have_groups():
    # 40 rows are won, but they are two groups: what happens to one row of a group happens to all.
    better, worse = np.ones(200, bool), np.arange(200) >= 40
    groups = (np.arange(200) // 20).astype(str)
    draws = draw_rows(200, groups, 0)
    result = compare(
        of_hits(better, worse, groups=groups),
        np.stack([better, worse]),
        0,
        1,
        unit=draws.unit,
        against="best",
        counted="groups",
    )
    assert (result.won, result.lost, result.counted) == (2, 0, "groups")
    assert result.p == mcnemar(2, 0) == 0.5


def test_holm_needs_more_of_the_smallest_of_several_p_values():
    assert holm([0.04]) == holm([0.05]) == [True]
    assert holm([0.04, 0.5]) == [False, False]
    assert holm([0.03, 0.001, 0.02, 0.6]) == [False, True, False, False]  # 0.02 is above 0.05 / 3
    assert holm([0.016, 0.001, 0.024, 0.6]) == [True, True, True, False]
    assert holm([]) == []


def test_the_p_value_of_a_difference_is_that_of_a_normal_distribution():
    draw = np.random.default_rng(0)
    better, worse = draw.random(2000) < 0.83, draw.random(2000) < 0.8
    resampled = of_hits(better, worse)
    difference = better.astype(float) - worse
    z = difference.mean() / (difference.std() / np.sqrt(2000))
    assert resampled.p(0, 1) == pytest.approx(2 * norm.sf(z), rel=0.25)
    assert of_hits(better, better).p(0, 1) == 1


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "qwk", "auc"])
def test_metrics_that_are_no_mean_are_scored_on_1000_draws_of_rows(metric):
    draw = np.random.default_rng(0)
    labels, probabilities = draw.integers(3, size=30), np.round(draw.dirichlet(np.ones(3), size=30), 1)
    draws = draw_rows(30, None, 0)
    resampled = bootstrap(probabilities[None, None], labels, metric=metric, draws=draws)
    assert len(resampled.inside) == len(resampled.outside) == 1000
    for place in range(20):
        rows = np.repeat(np.arange(30), draws.counts[place].astype(int))
        assert resampled.inside[place, 0] == pytest.approx(METRICS[metric](probabilities[rows], labels[rows]))


def test_a_draw_without_a_score_has_that_of_all_rows():
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6], [0.95, 0.05]])[None, None]
    draws = Draws(np.arange(4), np.array([[0, 1, 1, 2], [1, 1, 1, 1]], np.float32))
    resampled = bootstrap(probabilities, labels, metric="auc", draws=draws)
    assert resampled.inside[:, 0].tolist() == pytest.approx([2 / 3, 2 / 3])


def chosen(means, error):
    errors = np.full((4, 4), error)
    return NAMES[int(choose(np.array(means), errors, NAMES))]


def test_auto_chooses_log_loss_unless_another_strategy_is_ahead_by_a_standard_error():
    assert chosen([0.91, 0.91, 0.91, 0.90], 0.02) == "log-loss"
    assert chosen([0.80, 0.93, 0.95, 0.90], 0.02) == "accuracy"
    assert chosen([0.9, 0.9, 0.9, 0.9], 0.0) == "log-loss"


def test_auto_chooses_the_best_run_only_if_it_is_ahead_beyond_noise():
    assert chosen([0.93, 0.90, 0.90, 0.90], 0.02) == "log-loss"
    assert chosen([0.95, 0.90, 0.90, 0.90], 0.02) == "best"


def test_a_larger_lead_that_is_noise_does_not_hide_a_smaller_one_that_is_not():
    errors = np.full((4, 4), 0.01)
    errors[0, 3] = errors[3, 0] = 0.05
    assert NAMES[int(choose(np.array([0.96, 0.93, 0.90, 0.90]), errors, NAMES))] == "uniform"


def test_a_choice_among_equal_strategies_is_corrected():
    # Five strategies are equally good: which of them is best on these rows is chance.
    draw = np.random.default_rng(1)
    names = ["best", "uniform", "accuracy", "log-loss", "greedy", "stack"]
    hits = [draw.random(500) < 0.2, *(draw.random(500) < 0.8 for _ in range(5))]
    resampled = of_hits(*hits)
    choice = int(choose(resampled.whole, resampled.standard_errors(), names))
    score = estimate(resampled, choice, metric="accuracy", tests=500, chosen_among=names)
    assert score.corrected_for_choosing > 0
    assert score.score == pytest.approx(resampled.whole[choice] - score.corrected_for_choosing)


def test_metrics_that_are_no_mean_over_rows_are_bootstrapped():
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=80)
    scores = labels * 0.5 + draw.random(80)
    probabilities = np.stack([1 - scores / 2, scores / 2], axis=1)[None, None]
    resampled = bootstrap(probabilities, labels, metric="auc", draws=draw_rows(80, None, 0))
    assert isinstance(resampled, Bootstrap) and 0.6 < resampled.whole[0] < 1
    assert resampled.inside[:, 0].std() > 0 and resampled.outside.shape == resampled.inside.shape
