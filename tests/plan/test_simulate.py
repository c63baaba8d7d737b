"""The simulated scheduler on cases whose answer is known by hand."""

import math

import pytest

from podium.plan import simulate as module
from podium.plan.simulate import Machines, Task, shares_of_time, simulate


def seconds(tasks, **machines):
    return simulate([Task(task) for task in tasks], Machines(**machines)).seconds


def test_one_device_takes_the_sum():
    assert simulate([Task(10), Task(20)], Machines()) == module.Outcome(30, 1.0, 0)


def test_two_devices_take_no_less_than_the_longest_task_and_longest_first_is_best():
    assert seconds([9, 3, 3], devices=2) == 9
    assert seconds([3, 3, 9], devices=2) == 12
    assert simulate([Task(9), Task(3)], Machines(devices=2)).busy == 12 / 18


def test_a_task_waits_until_one_node_has_all_devices_that_it_needs_and_no_other_overtakes_it():
    tasks = [Task(4), Task(10, devices=2), Task(1)]
    assert simulate(tasks, Machines(devices=2)).seconds == 15
    assert simulate(tasks, Machines(devices=2, nodes=2)).seconds == 10  # the wide one is on the other node
    assert simulate([Task(10, devices=2), Task(4), Task(4)], Machines(devices=2)).seconds == 14
    assert simulate([Task(10, devices=9)], Machines(devices=2)) == module.Outcome(10, 1.0, 0)


def test_each_process_starts_on_its_device_and_the_driver_serves_one_task_after_the_other():
    assert seconds([10, 10], start=2) == 24
    assert seconds([10, 10, 10], devices=3, driver=1) == 13
    assert seconds([10], decode=5) == 15


def test_nodes_share_the_network_and_the_tasks_of_a_node_its_images():
    assert seconds([10, 10, 10, 10], devices=4, transfer=8) == 18
    assert seconds([10], nodes=2, transfer=8) == 18
    # In eight parts in turn: the first node has its images a second before the second one has.
    assert seconds([10, 10], nodes=2, transfer=8) == 8 + 8 + 10
    assert seconds([11, 10], nodes=2, transfer=8) == 26


@pytest.fixture
def failures(monkeypatch):
    """Sets the seconds that nodes work until they fail, in the order in which they begin to work."""

    def set_failures(*times):
        left = iter(times)
        monkeypatch.setattr(module.random.Random, "expovariate", lambda *_: next(left, math.inf))

    return set_failures


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, 50 + 100),  # from its beginning
        ({"checkpoint": 20}, 50 + 60),  # 40 seconds are kept
        ({"checkpoint": 50}, 50 + 50),  # to the last second
        ({"checkpoint": 20, "repair": 7, "start": 5}, 50 + 7 + 5 + 60),  # 45 were computed
        ({"transfer": 8}, 50 + 8 + 100),  # the images are sent again
    ],
)
def test_a_failure_halfway_costs_the_time_since_the_last_checkpoint(failures, keys, expected):
    failures(50)
    assert simulate([Task(100)], Machines(failures=1, **keys)) == module.Outcome(expected, 100 / expected, 1)


def test_another_node_takes_over_and_one_that_is_lost_while_it_waits_for_images_gets_them_again(failures):
    failures(50, math.inf)
    assert seconds([100], nodes=2, failures=1, repair=1000) == 150
    failures(4)
    assert seconds([10], transfer=8, failures=1) == 4 + 8 + 10
    failures(4)
    # The driver is busy with the two that are lost until 6.
    assert seconds([10, 10], driver=3, devices=2, failures=1) == 6 + 3 + 3 + 10


def test_a_straggler_has_computed_less_when_its_node_is_lost(failures, monkeypatch):
    failures(100)
    monkeypatch.setattr(module.random.Random, "lognormvariate", lambda *_: 2.0)
    assert seconds([100], checkpoint=25, failures=1) == 100 + 2 * 50


def test_stragglers_have_the_given_spread_and_equal_seeds_give_equal_times():
    tasks, machines = [Task(1)] * 4000, Machines(stragglers=0.2)
    assert simulate(tasks, machines).seconds == pytest.approx(4000, rel=0.02)
    assert simulate(tasks, machines) == simulate(tasks, machines) != simulate(tasks, machines, seed=1)
    assert simulate(tasks[:10], Machines(stragglers=0.2, devices=10)).seconds > 1.1


def test_a_thousand_nodes_that_fail_lose_what_the_rates_say():
    # 1,000 nodes x 8 tasks x about 10,000 s at a failure in 100,000 s: each failure loses 8 tasks.
    machines = Machines(nodes=1000, devices=8, failures=1e-5, checkpoint=100)
    outcome = simulate([Task(10_000)] * 8000, machines)
    assert outcome.lost / 8 == pytest.approx(1000 * 1e-5 * 10_000, abs=30)
    assert 10_000 < outcome.seconds < 22_000


@pytest.mark.parametrize(
    ("machines", "tasks", "largest"),
    [
        ({}, [10], "computing"),
        ({"devices": 8}, [10], "idle devices"),
        ({"devices": 2, "decode": 30}, [10, 10], "decode"),
        ({"nodes": 4, "transfer": 30}, [10] * 4, "transfer"),
        ({"devices": 2, "driver": 20}, [10] * 8, "driver"),
        ({"start": 11}, [10] * 8, "start"),
    ],
)
def test_most_of_the_time_is_for(machines, tasks, largest):
    assert next(iter(shares_of_time([Task(task) for task in tasks], Machines(**machines)))) == largest


def test_the_shares_of_the_time_are_those_that_are_saved():
    shares = shares_of_time([Task(30), Task(10)], Machines(devices=2, start=10, decode=10))
    assert shares == pytest.approx({"computing": 0.4, "idle devices": 0.2, "decode": 0.2, "start": 0.2})
