"""Which runs are members, and the reasons."""

from dataclasses import replace

import numpy as np

from toy_runs import pool_from


def selected(gains, *, threshold=0.95, best=1, metric="accuracy"):
    """The members and the reasons for runs named `architecture.seed`."""
    rows = np.zeros((len(gains), 1, 2))
    pool = pool_from(rows, [0], metric=metric, threshold=threshold, best_per_architecture=best)
    pool = replace(pool, runs=tuple(gains), abouts=tuple({"architecture": run.split(".")[0]} for run in gains))
    return pool.select(list(gains.values()))


def members(gains, **settings):
    return [run for run, member in zip(gains, selected(gains, **settings)[0], strict=True) if member]


def test_a_log_loss_has_no_threshold():
    # 0.95, the default, is an accuracy: nearly every run has a smaller log loss.
    losses = {"a.s1": -0.2, "a.s2": -0.1, "b.s1": -0.9}
    assert members(losses, threshold=0.95, metric="log_loss") == ["a.s2", "b.s1"]
    assert members(losses, threshold=0.95, best=0, metric="log_loss") == []


def test_runs_above_the_threshold_and_the_best_of_each_architecture_are_members():
    runs = {"a.s1": 0.96, "a.s2": 0.955, "a.s3": 0.94, "b.s1": 0.80, "b.s2": 0.81}
    assert members(runs) == ["a.s1", "a.s2", "b.s2"]


def test_a_run_at_the_threshold_is_not_above_it():
    assert members({"a.s1": 0.96, "a.s2": 0.95}) == ["a.s1"]


def test_without_a_run_above_the_threshold_the_best_of_each_architecture_is_a_member():
    assert members({"a.s1": 0.5, "a.s2": 0.6, "b.s1": 0.1}) == ["a.s2", "b.s1"]


def test_best_per_architecture_2_selects_two_runs_or_the_only_one():
    assert members({"a.s1": 0.5, "a.s2": 0.6, "a.s3": 0.7, "b.s1": 0.1}, best=2) == ["a.s2", "a.s3", "b.s1"]


def test_a_single_run_is_a_member():
    assert members({"a.s1": 0.0}) == ["a.s1"]


def test_of_equal_runs_the_first_by_name_is_the_member_in_any_order():
    assert members({"a.s2": 0.9, "a.s1": 0.9}) == ["a.s1"]
    assert members({"a.s1": 0.9, "a.s2": 0.9}) == ["a.s1"]


def test_without_best_per_architecture_only_the_threshold_counts():
    assert members({"a.s1": 0.96, "b.s1": 0.8}, best=0) == ["a.s1"]


def test_every_choice_has_its_reason():
    _, reasons = selected({"a.s1": 0.96, "a.s2": 0.94, "a.s3": 0.93, "b.s1": 0.5})
    assert reasons == [
        "above threshold 0.95",
        "not above 0.95; rank 2 of 3 in its architecture",
        "not above 0.95; rank 3 of 3 in its architecture",
        "only run of its architecture",
    ]
