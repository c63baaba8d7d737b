"""The GPU hours that Kaggle leaves, as the real kaggle CLI prints them, against what a notebook needs."""

import pytest
from fake.state import Fault

from command_toys import run_podium
from podium.errors import KaggleError
from podium.kaggle.notebooks.quota import check_quota

QUOTA = "GetAcceleratorQuotaStatistics"


def add_setting(toy, line):
    file = toy.home / "competition.toml"
    file.write_text(f"{file.read_text()}[kaggle]\n{line}\n")


def test_runs_that_need_more_gpu_hours_than_are_left_are_not_pushed_unless_forced(toy):
    toy.state.quota = (28, 30)
    with pytest.raises(KaggleError, match="GPU quota does not suffice") as refusal:
        toy.train()
    error = refusal.value
    assert error.found == "2 of this week's 30 GPU hours are left; the next week begins 2026-12-05T00:00 UTC"
    assert error.expected == "12.0 hours"
    assert "RUN= trains fewer runs" in error.fix and "FORCE=1" in error.fix
    assert toy.state.datasets == {} and toy.state.pushes == []
    assert toy.train(force=True).imported == ("net.s1", "net.s2")


@pytest.mark.parametrize(("hours", "is_enough"), [(1.4, True), (1.6, False)])
def test_the_estimate_and_half_an_hour_must_be_left(toy, hours, is_enough):
    toy.state.quota = (28, 30)
    try:
        check_quota(toy.session(), lambda: hours)
    except KaggleError:
        assert not is_enough
    else:
        assert is_enough


def never():
    raise AssertionError("the runs are timed")


@pytest.mark.parametrize(("quota", "line"), [((18, 30), ""), ((27, 30), "notebook_hours = 3")])
def test_runs_are_not_timed_where_more_is_left_than_a_session_lasts(toy, quota, line):
    toy.state.quota = quota
    add_setting(toy, line)
    check_quota(toy.session(), never)
    assert f"{30 - quota[0]} of this week's 30 GPU hours" in toy.messages[0]


def test_a_notebook_that_only_predicts_needs_half_an_hour(toy):
    toy.state.quota = (29, 30)
    check_quota(toy.session(goal="notebook"))
    toy.state.quota = (30, 30)
    with pytest.raises(KaggleError, match="does not suffice") as refusal:
        check_quota(toy.session(goal="notebook"))
    assert refusal.value.expected == "0.5 hours" and 'notebook_accelerator = "none"' in refusal.value.fix


@pytest.mark.parametrize("reason", ["Internal error", "no quota"])
def test_a_quota_that_is_not_known_stops_nothing_and_is_logged(toy, reason):
    if reason == "no quota":
        toy.state.quota = None
        reason = "No quota information available"
    else:
        toy.server.state.script[QUOTA] = [Fault(503, reason, times=9)]
    check_quota(toy.session(), never)
    (message,) = toy.messages
    assert "does not say how many GPU hours are left" in message and reason in message


def test_a_notebook_without_a_gpu_needs_no_quota(toy):
    add_setting(toy, 'notebook_accelerator = "none"')
    check_quota(toy.session(), never)
    assert QUOTA not in toy.requests


def test_the_command_times_the_runs_and_refuses_on_one_screen(toy):
    toy.state.quota = (30, 30)
    done = run_podium(toy.folder, "kernel", "-c", "tiny")
    assert done.returncode == 2 and "timing some steps of each recipe" in done.stdout
    assert "0 of this week's 30 GPU hours are left" in done.stderr and "take 0.0 hours on" in done.stdout
