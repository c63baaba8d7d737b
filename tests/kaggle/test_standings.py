"""Rank correlation and the two to select, by hand."""

import pytest

from podium.kaggle.ledger import Entry
from podium.kaggle.standings import (
    best_public,
    rank_correlation,
    select_final,
)


def entry(ref, cross_fitted, public, state="scored"):
    return Entry(
        time="t", state=state, file="a.csv", sha256=f"sha{ref}", ref=ref, cross_fitted=cross_fitted, public=public
    )


RISING = [entry(i, 0.9 + i / 100, 0.8 + i / 100) for i in range(5)]


def test_scores_that_rise_together_correlate_by_one_and_four_are_too_few():
    assert rank_correlation(RISING) == pytest.approx(1)
    assert rank_correlation(RISING[:4]) is None
    falling = [entry(old.ref, old.cross_fitted, 0.9 - old.public / 10) for old in RISING]
    assert rank_correlation(falling) == pytest.approx(-1)
    assert rank_correlation([entry(i, 0.9, 0.8 + i / 100) for i in range(5)]) is None


def test_the_same_file_counts_once_and_what_is_not_scored_not_at_all():
    assert rank_correlation([*RISING[:4], RISING[0], entry(9, 0.99, None, "pending")]) is None


def test_the_best_cross_fitted_and_the_best_public_of_the_others_are_selected():
    entries = [
        entry(1, 0.95, 0.90),
        entry(2, 0.93, 0.92),
        entry(3, 0.94, 0.91),
        entry(4, None, 0.89),
    ]
    assert [chosen.ref for chosen, _ in select_final(entries, "accuracy")] == [1, 2]
    assert [chosen.ref for chosen, _ in select_final(entries, "log_loss")] == [2, 4]
    assert [chosen.ref for chosen, _ in select_final([entries[3]], "accuracy")] == [4]
    assert select_final([entries[3]], "accuracy")[0][1].startswith(
        "best public score: no submission has a cross-fitted"
    )
    assert select_final([], "accuracy") == []
    assert best_public(entries, "log_loss").ref == 4 and best_public([], "accuracy") is None
