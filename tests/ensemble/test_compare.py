"""Intervals, pairs and the price of choosing, beside formulas and by hand."""

import numpy as np
import pytest

from podium.ensemble import compare as compare_module
from podium.ensemble.compare import Bootstrap, bootstrap, choose, compare, draw_rows, estimate, mcnemar
from podium.metrics import wilson_interval

NAMES = ["best", "uniform", "accuracy", "log-loss"]


def said(hits):
    """Probabilities (1, n, 2) of a run that has these rows right, where every label is 0."""
    return np.where(np.asarray(hits)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])[None].astype(np.float32)


def of_hits(*rows, groups=None):
    labels = np.zeros(len(rows[0]), int)
    draws = draw_rows(len(labels), groups, 0)
    return bootstrap(np.stack([said(one) for one in rows]), labels, metric="accuracy", draws=draws)


def test_the_bootstraps_spread_is_that_of_a_share():
    hits = np.arange(1000) % 10 != 0
    found = of_hits(hits)
    assert found.whole[0] == pytest.approx(0.9)
    assert found.inside[:, 0].std() == pytest.approx(np.sqrt(0.9 * 0.1 / 1000), rel=0.1)
    assert found.outside[:, 0].mean() == pytest.approx(0.9, abs=0.003)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_what_draws_leave_out_is_scored_only_where_it_is_asked_for(metric):
    labels = np.zeros(60, int)
    given = {"metric": metric, "draws": draw_rows(60, None, 0)}
    probabilities = said(np.arange(60) % 4 != 0)[None]
    asked, unasked = (bootstrap(probabilities, labels, **given, outside=outside) for outside in (True, False))
    assert asked.outside.shape == asked.inside.shape and unasked.outside is None
    np.testing.assert_array_equal(asked.inside, unasked.inside)


def test_the_middle_95_percent_are_numpys():
    values = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_allclose(compare_module._middle_95(values), np.percentile(values, [2.5, 97.5]))


def test_the_standard_error_of_a_difference_is_that_of_pairs():
    draw = np.random.default_rng(0)
    one, other = draw.random(2000) < 0.9, draw.random(2000) < 0.8
    errors = of_hits(one, other).standard_errors()
    assert errors[0, 1] == pytest.approx((one.astype(float) - other).std() / np.sqrt(2000), rel=0.1)
    assert errors[0, 0] == 0


def test_rows_of_one_group_are_drawn_together():
    hits = np.arange(1000) % 10 != 0
    groups = np.array([f"g{one}" for one in np.where(hits, 1 + np.arange(1000) // 100, 0)])  # all misses are one group
    alone, together = of_hits(hits), of_hits(hits, groups=groups)
    assert together.inside[:, 0].std() > 5 * alone.inside[:, 0].std()
    settings = {"names": ["best"], "metric": "accuracy", "chosen": False, "tests": 1000}
    wide, narrow = estimate(together, 0, **settings).interval, estimate(alone, 0, **settings).interval
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_an_accuracy_has_wilsons_interval_and_a_wider_one_for_a_new_test():
    hits = np.arange(1000) % 10 != 0
    found = estimate(of_hits(hits), 0, names=["best"], metric="accuracy", chosen=False, tests=1000)
    assert found.interval == pytest.approx(wilson_interval(900, 1000))
    assert found.test_interval == pytest.approx(wilson_interval(450, 500))  # 1/1000 + 1/1000 = 1/500


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1), (5, 0, 2 / 32), (0, 5, 2 / 32), (3, 3, 1), (8, 2, 0.109375)])
def test_mcnemar_is_a_two_sided_sign_test(won, lost, p):
    assert mcnemar(won, lost) == pytest.approx(p)


def test_a_gain_is_real_only_where_its_interval_leaves_out_zero():
    better, worse = np.arange(1000) % 10 != 0, np.arange(1000) % 5 != 0
    labels_right = np.stack([better, worse])
    real = compare(of_hits(better, worse), labels_right, 0, 1, against="best")
    assert real.real and real.gain == pytest.approx(0.1) and (real.won, real.lost) == (100, 0)
    same = compare(of_hits(better, better), np.stack([better, better]), 0, 1, against="best")
    assert not same.real and same.gain == 0 and same.p == 1


def chosen(means, error):
    errors = np.full((4, 4), error)
    return NAMES[int(choose(np.array(means), errors, NAMES))]


def test_auto_takes_the_simplest_within_one_standard_error_of_the_best():
    assert chosen([0.80, 0.90, 0.905, 0.91], 0.02) == "uniform"
    assert chosen([0.80, 0.85, 0.905, 0.91], 0.02) == "accuracy"
    assert chosen([0.80, 0.85, 0.86, 0.91], 0.02) == "log-loss"


def test_auto_takes_the_best_run_where_nothing_beats_it_beyond_noise():
    assert chosen([0.90, 0.93, 0.93, 0.93], 0.02) == "best"
    assert chosen([0.90, 0.95, 0.95, 0.95], 0.02) == "uniform"


def test_choosing_among_equals_costs_what_it_flatters():
    # Six strategies of the same worth: the best of them on these rows is so by chance.
    draw = np.random.default_rng(1)
    names = ["best", "uniform", "accuracy", "log-loss", "greedy", "stack"]
    hits = [draw.random(500) < 0.2, *(draw.random(500) < 0.8 for _ in range(5))]
    found = of_hits(*hits)
    taken = int(choose(found.whole, found.standard_errors(), names))
    honest = estimate(found, taken, names=names, metric="accuracy", chosen=True, tests=500)
    assert honest.corrected_for_choosing > 0
    assert honest.score == pytest.approx(found.whole[taken] - honest.corrected_for_choosing)


def test_metrics_of_all_rows_together_are_drawn_too():
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=80)
    scores = labels * 0.5 + draw.random(80)
    probabilities = np.stack([1 - scores / 2, scores / 2], axis=1)[None, None]
    found = bootstrap(probabilities, labels, metric="auc", draws=draw_rows(80, None, 0))
    assert isinstance(found, Bootstrap) and 0.6 < found.whole[0] < 1
    assert found.inside[:, 0].std() > 0 and found.outside.shape == found.inside.shape
