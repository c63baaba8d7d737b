"""Splits of the rows, and blends that are fitted without a part."""

from dataclasses import replace

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble import blend as blend_module
from podium.ensemble import cross_fit as cross_fit_module
from podium.ensemble.blend import fit_blends
from podium.ensemble.cross_fit import cross_fit
from podium.ensemble.pool import pool_of
from toy_runs import join, pool_from, random_run

SETTINGS = Ensemble(threshold=0.6, run_temperatures="always")


def pool(rows=60):
    runs = join([random_run(f"{name}.s1", rows=rows, seed=seed) for seed, name in enumerate("abc")])
    return pool_of(runs, SETTINGS, metric="accuracy")


def split(labels, units=None):
    return pool_from(np.zeros((1, len(labels), 4)), labels, groups=units).parts()


def test_each_part_has_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    for parts in split(labels):
        counts = np.array([np.bincount(labels[parts == part], minlength=3) for part in range(5)])
        assert counts.tolist() == [[10, 6, 4]] * 5


def test_repeats_split_differently_and_a_seed_splits_equally():
    labels = np.arange(100) % 4
    first, second = split(labels)
    assert (first != second).any()
    assert np.array_equal(split(labels)[1], second)


def test_rows_of_one_group_are_in_the_same_part():
    draw = np.random.default_rng(0)
    groups = draw.integers(25, size=200)
    for parts in split(draw.integers(3, size=200), groups):
        assert all(len(set(parts[groups == group])) == 1 for group in np.unique(groups))
        assert set(parts) == set(range(5))


def test_with_fewer_rows_than_parts_each_part_has_one_row():
    assert sorted(split(np.array([0, 1, 0]))[0]) == [0, 1, 2]


def test_a_row_is_predicted_by_a_blend_that_was_fitted_without_it():
    whole = pool()
    parts = split(whole.labels)
    pairs = [("log-loss", "probabilities"), ("stack", "logits")]
    inside, outside = np.flatnonzero(parts[1] != 2), np.flatnonzero(parts[1] == 2)
    for candidate, blend in zip(cross_fit(whole, pairs), fit_blends(whole.of_rows(inside), pairs), strict=True):
        expected = blend.probabilities(whole.logs[:, outside])
        np.testing.assert_allclose(candidate.predicted[1, outside], expected, atol=1e-5)


def test_blending_in_blocks_of_rows_gives_the_same_bits(monkeypatch):
    whole = pool()
    blends = fit_blends(whole, [("greedy", "probabilities"), ("uniform", "logits"), ("stack", "logits")])
    at_once = blend_module.blended(blends, whole.logs)
    monkeypatch.setattr(blend_module, "ROWS_AT_A_TIME", 7)
    assert np.array_equal(blend_module.blended(blends, whole.logs), at_once)


def test_predictions_of_a_part_do_not_depend_on_its_labels():
    whole = pool()
    own = split(whole.labels)[0] == 3
    changed = replace(whole, labels=np.where(own, 0, whole.labels))
    before, after = (cross_fit(runs, [("accuracy", "logits")])[0].predicted[0] for runs in (whole, changed))
    assert np.array_equal(before[own], after[own]) and not np.array_equal(before[~own], after[~own])


def test_fitting_parts_in_threads_and_in_sequence_gives_the_same_bits(monkeypatch):
    whole = pool()
    pairs = [("greedy", "probabilities"), ("log-loss", "logits"), ("stack", "logits")]
    in_threads = cross_fit(whole, pairs)
    monkeypatch.setattr(cross_fit_module, "MANY_LOGITS", 0)
    for candidate, other in zip(cross_fit(whole, pairs), in_threads, strict=True):
        assert np.array_equal(candidate.predicted, other.predicted)
