import numpy as np
import pytest

from podium.report import duplicates
from podium.report.duplicates import near_duplicates


def random_images(count, *, seed=0, size=(16, 16)):
    return np.random.default_rng(seed).integers(0, 256, size=(count, *size, 3), dtype=np.uint8)


@pytest.fixture(params=[(16, 16), (24, 10), (6, 40)])
def two_arrays(request):
    """Six labelled images, of which the last two are validation rows, and three test images; one pair of each kind."""
    train, test = (random_images(count, seed=count, size=request.param) for count in (6, 3))
    train[4] = np.clip(train[0] * 0.9, 0, 255).astype(np.uint8)  # darker, but the same image
    test[2] = train[1]
    test[0] = train[5]
    return [train, test], np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])


def test_a_darker_copy_in_another_part_is_a_near_duplicate(two_arrays):
    pairs = near_duplicates(*two_arrays)
    assert {pair[:2] for pair in pairs} == {(4, 0), (8, 1), (5, 6)}


def test_pairs_are_sorted_by_correlation(two_arrays):
    correlations = [correlation for _, _, correlation in near_duplicates(*two_arrays)]
    assert correlations == sorted(correlations, reverse=True) and correlations[0] == pytest.approx(1, abs=1e-5)


def test_copies_inside_one_part_are_left_out():
    images = random_images(4)
    images[1], images[3] = images[0], images[2]
    assert near_duplicates([images], np.array([0, 0, 1, 1])) == []


def test_different_images_are_not_duplicates():
    assert near_duplicates([random_images(5)], np.array([0, 1, 2, 0, 1])) == []


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_COMPARISONS"])
def test_a_search_that_takes_too_long_is_skipped(monkeypatch, limit):
    monkeypatch.setattr(duplicates, limit, 1)
    assert near_duplicates([random_images(2)], np.array([0, 1])) is None


def test_a_search_with_too_many_pairs_is_stopped(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    images = np.repeat(random_images(1), 12, axis=0)
    assert near_duplicates([images], np.arange(12) % 2) is None
