"""Splits of the rows, and blends that are fitted without a part."""

from dataclasses import replace

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble import blend as blend_module
from podium.ensemble import cross_fit as cross_fit_module
from podium.ensemble.blend import fit_blends, pool_of
from podium.ensemble.cross_fit import cross_fit, split_rows
from toy_runs import join, random_run

SETTINGS = Ensemble(threshold=0.6, run_temperatures="always")


def pool(rows=60):
    return pool_of(join([random_run(f"{name}.s1", rows=rows, seed=seed) for seed, name in enumerate("abc")]), SETTINGS)


def test_each_part_has_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    for parts in split_rows(labels, None, SETTINGS):
        counts = np.array([np.bincount(labels[parts == part], minlength=3) for part in range(5)])
        assert counts.tolist() == [[10, 6, 4]] * 5


def test_repeats_split_differently_and_a_seed_splits_equally():
    labels = np.arange(100) % 4
    first, second = split_rows(labels, None, SETTINGS)
    assert (first != second).any()
    assert np.array_equal(split_rows(labels, None, SETTINGS)[1], second)


def test_rows_of_one_group_are_in_the_same_part():
    draw = np.random.default_rng(0)
    groups = draw.integers(25, size=200).astype(str)
    for parts in split_rows(draw.integers(3, size=200), groups, SETTINGS):
        assert all(len(set(parts[groups == group])) == 1 for group in np.unique(groups))
        assert set(parts) == set(range(5))


def test_with_fewer_rows_than_parts_each_part_has_one_row():
    assert sorted(split_rows(np.array([0, 1, 0]), None, SETTINGS)[0]) == [0, 1, 2]


def test_a_row_is_predicted_by_a_blend_that_was_fitted_without_it():
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    candidates = [("log-loss", "probabilities"), ("stack", "logits")]
    crossed = cross_fit(whole, parts, candidates, SETTINGS, metric="accuracy")
    inside, outside = np.flatnonzero(parts[1] != 2), np.flatnonzero(parts[1] == 2)
    expected_blends = fit_blends(whole.rows(inside), candidates, SETTINGS, metric="accuracy")
    for place, blend in enumerate(expected_blends):
        expected = blend.probabilities(whole.log_probabilities[:, outside])
        np.testing.assert_allclose(crossed.probabilities[place, 1, outside], expected, atol=1e-5)


def test_blending_in_blocks_of_rows_gives_the_same_bits(monkeypatch):
    whole = pool()
    candidates = [("greedy", "probabilities"), ("uniform", "logits"), ("stack", "logits")]
    blends = fit_blends(whole, candidates, SETTINGS, metric="accuracy")
    at_once = blend_module.blended(blends, whole.log_probabilities)
    monkeypatch.setattr(blend_module, "ROWS_AT_A_TIME", 7)
    assert np.array_equal(blend_module.blended(blends, whole.log_probabilities), at_once)


def test_predictions_of_a_part_do_not_depend_on_its_labels():
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    before = cross_fit(whole, parts[:1], [("accuracy", "logits")], SETTINGS, metric="accuracy")
    changed = np.where(parts[0] == 3, 0, whole.labels)
    after = cross_fit(replace(whole, labels=changed), parts[:1], [("accuracy", "logits")], SETTINGS, metric="accuracy")
    own = parts[0] == 3
    assert np.array_equal(before.probabilities[0, 0, own], after.probabilities[0, 0, own])
    assert not np.array_equal(before.probabilities[0, 0, ~own], after.probabilities[0, 0, ~own])


def test_fitting_parts_in_threads_and_in_sequence_gives_the_same_bits(monkeypatch):
    whole = pool()
    parts = split_rows(whole.labels, None, SETTINGS)
    candidates = [("greedy", "probabilities"), ("log-loss", "logits"), ("stack", "logits")]
    in_threads = cross_fit(whole, parts, candidates, SETTINGS, metric="accuracy")
    monkeypatch.setattr(cross_fit_module, "MANY_LOGITS", 0)
    in_sequence = cross_fit(whole, parts, candidates, SETTINGS, metric="accuracy")
    assert np.array_equal(in_threads.probabilities, in_sequence.probabilities)
