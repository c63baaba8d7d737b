import numpy as np
import pytest

from podium.report import duplicates
from podium.report.duplicates import near_duplicates


def pictures(count, *, seed=0, side=16):
    return np.random.default_rng(seed).integers(0, 256, size=(count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def two_arrays():
    """Six labelled images, of which the last two are validation rows, and three test images; one twin of each kind."""
    train, test = pictures(6, seed=1), pictures(3, seed=2)
    train[4] = np.clip(train[0] * 0.9, 0, 255).astype(np.uint8)  # darker, and still the same picture
    test[2] = train[1]
    test[0] = train[5]
    return [train, test], np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])


def test_a_darker_copy_in_another_part_is_a_near_duplicate(two_arrays):
    twins = near_duplicates(*two_arrays)
    assert {(twin.one, twin.other) for twin in twins} == {(4, 0), (8, 1), (5, 6)}


def test_the_most_alike_come_first(two_arrays):
    found = [twin.correlation for twin in near_duplicates(*two_arrays)]
    assert found == sorted(found, reverse=True) and found[0] == pytest.approx(1, abs=1e-5)


def test_copies_inside_one_part_are_left_out():
    images = pictures(4)
    images[1], images[3] = images[0], images[2]
    assert near_duplicates([images], np.array([0, 0, 1, 1])) == []


def test_different_pictures_are_no_duplicates():
    assert near_duplicates([pictures(5)], np.array([0, 1, 2, 0, 1])) == []


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_COMPARED"])
def test_what_would_take_long_is_not_searched(monkeypatch, limit):
    monkeypatch.setattr(duplicates, limit, 1)
    assert near_duplicates([pictures(2)], np.array([0, 1])) is None


def test_pictures_that_are_all_alike_are_not_paired_one_by_one(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    images = np.repeat(pictures(1), 12, axis=0)
    assert near_duplicates([images], np.arange(12) % 2) is None
