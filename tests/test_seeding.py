"""Streams of randomness."""

from podium.seeding import stream_seed


def test_a_stream_repeats_and_differs_by_seed_and_by_purpose():
    assert stream_seed(1, "order") == stream_seed(1, "order")
    assert len({stream_seed(seed, purpose) for seed in range(50) for purpose in ("order", "augment")}) == 100


def test_seeds_fit_into_what_generators_take():
    assert all(0 <= stream_seed(seed, "order") < 2**63 for seed in range(100))
