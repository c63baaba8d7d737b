"""Rank correlation, the two to select, and medal zones, by hand."""

import zipfile

import pytest

from podium.errors import KaggleError
from podium.kaggle.ledger import Entry
from podium.kaggle.standings import (
    best_public,
    medal_zones,
    rank_correlation,
    rank_of,
    read_leaderboard,
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


@pytest.mark.parametrize(
    ("teams", "ranks"),
    [
        (50, {"gold": 5, "silver": 10, "bronze": 20}),
        (200, {"gold": 10, "silver": 40, "bronze": 80}),
        (500, {"gold": 11, "silver": 50, "bronze": 100}),
        (2000, {"gold": 14, "silver": 100, "bronze": 200}),
    ],
)
def test_medal_zones_are_kaggle_s(teams, ranks):
    zones = medal_zones(range(teams), "accuracy")
    assert {medal: rank for medal, rank, _ in zones} == ranks
    assert [score for *_, score in zones] == [teams - rank for rank in ranks.values()]


def test_ranks_and_zones_follow_the_direction_of_the_metric():
    scores = [i / 100 for i in range(1, 51)]
    assert rank_of(0.105, scores, "log_loss") == 11 and rank_of(0.105, scores, "accuracy") == 41
    assert rank_of(0.50, scores, "accuracy") == 1 and rank_of(0.0, scores, "accuracy") == 51
    assert medal_zones(scores, "log_loss")[1] == ("silver", 10, 0.10)
    assert medal_zones([0.5, 0.6, 0.7], "accuracy") == [("bronze", 1, 0.7)] and medal_zones([], "accuracy") == []


@pytest.mark.parametrize("content", ["no zip", "TeamId,Points\n1,2\n", "Score\nhigh\n", ""])
def test_another_file_than_a_leaderboard_is_refused(tmp_path, content):
    file = tmp_path / "board.zip"
    file.write_text(content)
    if content != "no zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("board.csv", content)
    with pytest.raises(KaggleError, match="Not a leaderboard"):
        read_leaderboard(file)


def test_a_team_without_a_score_is_not_on_the_leaderboard(tmp_path):
    with zipfile.ZipFile(tmp_path / "board.zip", "w") as archive:
        archive.writestr("board.csv", "\ufeffScore,Team\n0.5,a\n,b\n1,c\n")
    assert read_leaderboard(tmp_path / "board.zip") == [0.5, 1.0]
