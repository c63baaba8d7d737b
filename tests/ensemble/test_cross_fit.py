"""Parts and what is fitted without them."""

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble import blend as blend_module
from podium.ensemble import cross_fit as cross_fit_module
from podium.ensemble.blend import fit_blends, pool_of
from podium.ensemble.cross_fit import cross_fit, split_rows
from toy_runs import join, random_run

SETTINGS = Ensemble(threshold=0.6, run_temperatures="always")


def pool(rows=60):
    return pool_of(join([random_run(f"{one}.s1", rows=rows, seed=i) for i, one in enumerate("abc")]), SETTINGS)


def test_each_part_has_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    for parts in split_rows(labels, None, SETTINGS):
        counts = np.array([np.bincount(labels[parts == part], minlength=3) for part in range(5)])
        assert counts.tolist() == [[10, 6, 4]] * 5


def test_repeats_deal_anew_and_a_seed_deals_alike():
    labels = np.arange(100) % 4
    first, second = split_rows(labels, None, SETTINGS)
    assert (first != second).any()
    assert np.array_equal(split_rows(labels, None, SETTINGS)[1], second)


def test_rows_of_one_group_never_lie_on_both_sides():
    draw = np.random.default_rng(0)
    groups = draw.integers(25, size=200).astype(str)
    for parts in split_rows(draw.integers(3, size=200), groups, SETTINGS):
        assert all(len(set(parts[groups == group])) == 1 for group in np.unique(groups))
        assert set(parts) == set(range(5))


def test_fewer_rows_than_parts_leave_out_one_row_at_a_time():
    assert sorted(split_rows(np.array([0, 1, 0]), None, SETTINGS)[0]) == [0, 1, 2]


def test_a_row_is_scored_by_blends_that_never_saw_it():
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    wanted = [("log-loss", "probabilities"), ("stack", "logits")]
    found = cross_fit(whole, parts, wanted, SETTINGS, metric="accuracy")
    inside, outside = np.flatnonzero(parts[1] != 2), np.flatnonzero(parts[1] == 2)
    by_hand = fit_blends(whole.rows(inside), wanted, SETTINGS, metric="accuracy")
    for place, blend in enumerate(by_hand):
        said = blend.probabilities(whole.log_probabilities[:, outside])
        np.testing.assert_allclose(found.probabilities[place, 1, outside], said, atol=1e-5)


def test_blending_a_few_rows_at_a_time_and_all_at_once_give_the_same_bits(monkeypatch):
    whole = pool()
    wanted = [("greedy", "probabilities"), ("uniform", "logits"), ("stack", "logits")]
    blends = fit_blends(whole, wanted, SETTINGS, metric="accuracy")
    at_once = blend_module.blended(blends, whole.log_probabilities)
    monkeypatch.setattr(blend_module, "ROWS_AT_A_TIME", 7)
    assert np.array_equal(blend_module.blended(blends, whole.log_probabilities), at_once)


def test_other_labels_outside_a_part_do_not_change_what_is_fitted_inside_it():
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    before = cross_fit(whole, parts[:1], [("accuracy", "logits")], SETTINGS, metric="accuracy")
    changed = np.where(parts[0] == 3, 0, whole.labels)
    from dataclasses import replace

    after = cross_fit(replace(whole, labels=changed), parts[:1], [("accuracy", "logits")], SETTINGS, metric="accuracy")
    own = parts[0] == 3
    assert np.array_equal(before.probabilities[0, 0, own], after.probabilities[0, 0, own])
    assert not np.array_equal(before.probabilities[0, 0, ~own], after.probabilities[0, 0, ~own])


def test_parts_side_by_side_and_one_by_one_give_the_same_bits(monkeypatch):
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    wanted = [("greedy", "probabilities"), ("log-loss", "logits"), ("stack", "logits")]
    together = cross_fit(whole, parts, wanted, SETTINGS, metric="accuracy")
    monkeypatch.setattr(cross_fit_module, "MANY_LOGITS", 0)
    alone = cross_fit(whole, parts, wanted, SETTINGS, metric="accuracy")
    assert np.array_equal(together.probabilities, alone.probabilities)
