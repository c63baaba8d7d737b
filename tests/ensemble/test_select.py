"""Who is a member, and why."""

import pytest

from podium.ensemble.select import select
from podium.errors import ConfigError


def members(accuracies, *, threshold=0.95, best=1):
    """Names of the members among runs named `architecture.seed`."""
    choices = select(
        list(accuracies),
        [run.split(".")[0] for run in accuracies],
        accuracies=list(accuracies.values()),
        threshold=threshold,
        best_per_architecture=best,
    )
    assert [choice.run for choice in choices] == list(accuracies)
    return [choice.run for choice in choices if choice.member]


def test_runs_above_the_threshold_and_the_best_of_each_architecture_are_members():
    runs = {"a.s1": 0.96, "a.s2": 0.955, "a.s3": 0.94, "b.s1": 0.80, "b.s2": 0.81}
    assert members(runs) == ["a.s1", "a.s2", "b.s2"]


def test_a_run_at_the_threshold_is_not_above_it():
    assert members({"a.s1": 0.96, "a.s2": 0.95}) == ["a.s1"]


def test_nobody_above_the_threshold_leaves_the_best_of_each_architecture():
    assert members({"a.s1": 0.5, "a.s2": 0.6, "b.s1": 0.1}) == ["a.s2", "b.s1"]


def test_two_of_each_architecture_when_asked_and_one_where_there_is_but_one():
    assert members({"a.s1": 0.5, "a.s2": 0.6, "a.s3": 0.7, "b.s1": 0.1}, best=2) == ["a.s2", "a.s3", "b.s1"]


def test_a_single_run_is_a_member():
    assert members({"a.s1": 0.0}) == ["a.s1"]


def test_of_equal_runs_the_first_by_name_is_the_better_whatever_their_order():
    assert members({"a.s2": 0.9, "a.s1": 0.9}) == ["a.s1"]
    assert members({"a.s1": 0.9, "a.s2": 0.9}) == ["a.s1"]


def test_nobody_at_all_is_refused_with_what_would_help():
    with pytest.raises(ConfigError, match=r"threshold below 0\.9000, or best_per_architecture = 1"):
        members({"a.s1": 0.9, "b.s1": 0.8}, best=0)


def test_without_best_per_architecture_only_the_threshold_counts():
    assert members({"a.s1": 0.96, "b.s1": 0.8}, best=0) == ["a.s1"]


def test_every_choice_says_why():
    choices = select(
        ["a.s1", "a.s2", "a.s3", "b.s1"],
        ["a", "a", "a", "b"],
        accuracies=[0.96, 0.94, 0.93, 0.5],
        threshold=0.95,
        best_per_architecture=1,
    )
    assert [choice.reason for choice in choices] == [
        "above threshold 0.95",
        "not above 0.95; rank 2 of 3 in its architecture",
        "not above 0.95; rank 3 of 3 in its architecture",
        "only run of its architecture",
    ]
