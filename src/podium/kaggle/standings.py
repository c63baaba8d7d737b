"""What submissions taught: validation against leaderboard, which two to select, rank and medal zone."""

import csv
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from podium.errors import KaggleError
from podium.kaggle.ledger import SCORED, Entry
from podium.metrics import METRICS

FEWEST_FOR_CORRELATION = 5
SELECTED = 2
# https://www.kaggle.com/progression/competitions: teams below, then gold, silver, bronze by count and share.
ZONES = (
    (100, (0, 0.10), (0, 0.20), (0, 0.40)),
    (250, (10, 0.0), (0, 0.20), (0, 0.40)),
    (1000, (10, 0.002), (50, 0.0), (100, 0.0)),
    (float("inf"), (10, 0.002), (0, 0.05), (0, 0.10)),
)
MEDALS = ("gold", "silver", "bronze")


@dataclass(frozen=True)
class Standing:
    """Where a score would be on the public leaderboard; `zone` is gold, silver, bronze or none."""

    score: float
    rank: int
    teams: int
    zone: str
    next_zone: str | None
    next_rank: int | None
    next_score: float | None


def distinct_scored(entries: Sequence[Entry]) -> list[Entry]:
    """Scored entries with a public score, each file once: the last time it was submitted."""
    last = {one.sha256: one for one in entries if one.state == SCORED and one.public}
    return list(last.values())


def rank_correlation(entries: Sequence[Entry]) -> float | None:
    """Spearman's rank correlation of cross-fitted and public scores; None below five, or where all are equal."""
    pairs = [(float(one.cross_fitted), float(one.public)) for one in distinct_scored(entries) if one.cross_fitted]
    if len(pairs) < FEWEST_FOR_CORRELATION:
        return None
    ranks = [_ranks(np.array(column)) for column in zip(*pairs, strict=True)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def select_final(entries: Sequence[Entry], metric: str) -> list[tuple[Entry, str]]:
    """The two submissions to select, each with the reason.

    The first by the cross-fitted score, which has not been chosen by looking at the leaderboard; the second, a hedge,
    by the public score among the others.
    """
    gain = METRICS[metric].gain
    scored = distinct_scored(entries)
    selected: list[tuple[Entry, str]] = []
    judged = [one for one in scored if one.cross_fitted]
    if judged:
        best = max(judged, key=lambda one: (gain(float(one.cross_fitted)), gain(float(one.public))))
        selected.append((best, "best cross-fitted score: no choice by the leaderboard flatters it"))
    rest = sorted(
        (one for one in scored if one not in [one for one, _ in selected]), key=lambda one: -gain(float(one.public))
    )
    reasons = ["best public score of the others: a hedge against a validation set unlike the test"]
    if not judged:
        reasons = ["best public score: none has a cross-fitted score", "next best public score, likewise"]
    return selected + list(zip(rest, reasons, strict=False))[: SELECTED - len(selected)]


def best_public(entries: Sequence[Entry], metric: str) -> Entry | None:
    """The scored entry with the best public score, or None."""
    return max(distinct_scored(entries), key=lambda one: METRICS[metric].gain(float(one.public)), default=None)


def read_leaderboard(file: Path) -> list[float]:
    """The scores in the zip of the CLI; raises KaggleError."""
    try:
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".csv"))
            rows = list(csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig"))))
        return [float(row["Score"]) for row in rows if row["Score"]]
    except (OSError, zipfile.BadZipFile, StopIteration, KeyError, ValueError) as error:
        found = str(error) or type(error).__name__
        raise KaggleError(
            "Not a leaderboard.", file=file.name, expected="a zip with a CSV with a column Score", found=found
        ) from None


def stand(score: float, scores: Sequence[float], metric: str) -> Standing:
    """Rank and medal zone of a score among the teams' scores; of equal ones the best rank."""
    gain = METRICS[metric].gain
    others = sorted((gain(one) for one in scores), reverse=True)
    rank = 1 + sum(one > gain(score) for one in others)
    last_ranks = medal_ranks(len(others))
    zone = next((name for name, last in last_ranks.items() if rank <= last), "none")
    better = [(name, last) for name, last in last_ranks.items() if last < rank and last >= 1]
    if not better:
        return Standing(score, rank, len(others), zone, None, None, None)
    name, last = better[-1]
    return Standing(score, rank, len(others), zone, name, last, gain(others[last - 1]))


def medal_ranks(teams: int) -> dict[str, int]:
    """The last rank of each medal zone among so many teams."""
    zones = next(zones for most, *zones in ZONES if teams < most)
    return {name: count + int(teams * share) for name, (count, share) in zip(MEDALS, zones, strict=True)}


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values (n,) from 1; equal ones share their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
