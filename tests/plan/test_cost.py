"""The simulated time of runs on rented devices, on cases that can be checked by hand."""

import pytest

from podium.errors import ConfigError
from podium.plan.cost import Rental, costs

FREE = {"start_seconds": 0.0, "driver_seconds": 0.0, "stragglers": 0.0}


def hours(seconds, **keys):
    return [plan["hours"] for plan in costs(Rental(**FREE, **keys), seconds)]


def test_each_number_of_runs_is_simulated_on_each_number_of_devices():
    assert hours([[3600.0]], runs=(3, 4), devices=(1, 2)) == [3, 2, 4, 2]


def test_more_runs_than_recipes_have_are_the_same_again_and_the_longest_begin():
    assert hours([[1800.0, 1800.0], [7200.0]], runs=(3,), devices=(2,)) == [2]  # beside two folds, twice


def test_images_are_decoded_once_and_sent_to_each_of_several_nodes_and_a_faster_device_needs_less_time():
    keys = {"images": 7200, "decode_per_second": 2.0, "pixels": (1000, 500), "megabytes_per_second": 1.5}
    assert hours([[7200.0]], runs=(1, 8), devices=(4, 8), devices_per_node=4, speed=2.0, **keys) == [2, 4, 3, 6]


@pytest.mark.parametrize("minutes", [1.0, 10_000.0])
def test_failures_cost_hours_and_checkpoints_save_them(minutes):
    keys = {"failures_per_day": 4.0, "repair_minutes": 0.0, "checkpoint_minutes": minutes}
    (time,) = hours([[36_000.0]], runs=(64,), devices=(64,), **keys)
    assert (10 < time < 11) == (minutes == 1)


def test_nodes_that_fail_before_any_checkpoint_are_refused_and_not_simulated_for_ever():
    keys = {"failures_per_day": 1000.0, "repair_minutes": 0.0}
    with pytest.raises(ConfigError, match="fail too often"):
        hours([[3600.0]], runs=(1,), devices=(1,), checkpoint_minutes=60.0, **keys)
    assert hours([[3600.0]], runs=(1,), devices=(1,), checkpoint_minutes=1.0, **keys)[0] > 1
