"""What the submissions show: validation against leaderboard, the two to select as final, rank and medal zones."""

from collections.abc import Sequence
from pathlib import Path

from podium.errors import KaggleError
from podium.files import DAMAGE
from podium.kaggle.ledger import SCORED, Entry
from podium.metrics import METRICS

MIN_FOR_CORRELATION = 5
# https://www.kaggle.com/progression/competitions: (teams below, then count and share of teams for each medal).
ZONES = (
    (100, (0, 0.10), (0, 0.20), (0, 0.40)),
    (250, (10, 0.0), (0, 0.20), (0, 0.40)),
    (1000, (10, 0.002), (50, 0.0), (100, 0.0)),
    (float("inf"), (10, 0.002), (0, 0.05), (0, 0.10)),
)
MEDALS = ("gold", "silver", "bronze")


def distinct_scored(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with a public score; of several submissions of one file the last."""
    scored = (entry for entry in entries if entry.state == SCORED and entry.public is not None)
    return list({entry.sha256: entry for entry in scored}.values())


def rank_correlation(entries: Sequence[Entry]) -> float | None:
    """Spearman's rank correlation of cross-fitted and public scores; None for less than five, or all equal."""
    scored = [entry for entry in distinct_scored(entries) if entry.cross_fitted is not None]
    pairs = [(entry.cross_fitted, entry.public) for entry in scored]
    if len(pairs) < MIN_FOR_CORRELATION or any(len(set(scores)) == 1 for scores in zip(*pairs, strict=True)):
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def select_final(entries: Sequence[Entry], metric: str) -> list[tuple[Entry, str]]:
    """The two submissions to select as final, each with the reason.

    The first has the best cross-fitted score, which was not chosen by the leaderboard. The second is a hedge: the best
    public score among the others.
    """
    gain = METRICS[metric].gain
    by_public = sorted(distinct_scored(entries), key=lambda entry: -gain(entry.public))
    cross_fitted = [entry for entry in by_public if entry.cross_fitted is not None]
    if not cross_fitted:
        reasons = ("best public score: no submission has a cross-fitted score", "next best public score")
        return list(zip(by_public, reasons, strict=False))
    best = max(cross_fitted, key=lambda entry: gain(entry.cross_fitted))
    others = [entry for entry in by_public if entry is not best]
    reason = "best public score of the others: a hedge against a validation set unlike the test set"
    return [
        (best, "best cross-fitted score: it was not chosen by the leaderboard"),
        *((entry, reason) for entry in others[:1]),
    ]


def best_public(entries: Sequence[Entry], metric: str) -> Entry | None:
    """The entry with the best public score, or None."""
    return max(distinct_scored(entries), key=lambda entry: METRICS[metric].gain(entry.public), default=None)


def read_leaderboard(file: Path) -> list[float]:
    """The scores in the zip that Kaggle gives; raises KaggleError for another file."""
    from pandas import read_csv

    try:
        return read_csv(file, compression="zip")["Score"].dropna().astype(float).tolist()
    except DAMAGE as error:
        expected, found = "a zip with a CSV with a column Score", str(error) or type(error).__name__
        raise KaggleError("Not a leaderboard.", file=file.name, expected=expected, found=found) from None


def rank_of(score: float, scores: Sequence[float], metric: str) -> int:
    """The rank of a score among the teams' scores; of equal scores the best rank counts."""
    gain = METRICS[metric].gain
    return 1 + sum(gain(team) > gain(score) for team in scores)


def medal_zones(scores: Sequence[float], metric: str) -> list[tuple[str, int, float]]:
    """Each medal that a team gets, with the last rank of its zone and the score there."""
    ranked = sorted(scores, key=METRICS[metric].gain, reverse=True)
    zones = next(zones for limit, *zones in ZONES if len(scores) < limit)
    last_ranks = [count + int(len(scores) * share) for count, share in zones]
    return [(name, rank, ranked[rank - 1]) for name, rank in zip(MEDALS, last_ranks, strict=True) if rank]
