"""The blend: members' probabilities, weighted and averaged, and what it scores beside its runs."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from podium.config import Ensemble
from podium.ensemble.select import select
from podium.ensemble.weigh import STRATEGIES
from podium.metrics import METRICS, softmax
from podium.predictions import Aligned


@dataclass(frozen=True)
class RunInBlend:
    """One run: whether it is a member, its share, why, and what it scores by itself."""

    run: str
    architecture: str
    member: bool
    weight: float
    reason: str
    scores: dict[str, float]
    scored: str  # on which rows, by which model
    test_logits_from: str  # the model that was scored, or another


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """Members, weights, scores and the blend's test probabilities.

    `in_sample_scores` are the blend's on the validation rows, the very rows that chose and weighted its
    members: a little too good. `test_probabilities` is `(m, classes)`, its rows in the order of `test_ids`.
    """

    runs: tuple[RunInBlend, ...]
    strategy: str
    metric: str
    in_sample_scores: dict[str, float]
    best: RunInBlend
    validation_rows: int
    classes: tuple[str, ...]
    test_ids: np.ndarray
    test_probabilities: np.ndarray

    @property
    def members(self) -> tuple[RunInBlend, ...]:
        """The runs that the blend uses."""
        return tuple(run for run in self.runs if run.member)


def blend(logits: Iterable[np.ndarray], weights: Iterable[float]) -> np.ndarray:
    """Weighted average of the members' probabilities: logits `(members, n, classes)` -> `(n, classes)`.

    Weights sum to 1. A member with weight 0 costs nothing.
    """
    return _weighted_sum((softmax(one), weight) for one, weight in zip(logits, weights, strict=True) if weight)


def build_ensemble(aligned: Aligned, settings: Ensemble, *, metric: str) -> EnsembleResult:
    """Select, weigh and blend runs as `[ensemble]` says; raises ConfigError where no run is a member."""
    probabilities = softmax(aligned.oof_logits)
    scores = [scores_of(one, aligned.oof_labels, metric) for one in probabilities]
    architectures = [about["architecture"] for about in aligned.abouts]
    choices = select(
        aligned.runs,
        architectures,
        accuracies=[score["accuracy"] for score in scores],
        threshold=settings.threshold,
        best_per_architecture=settings.best_per_architecture,
    )
    member = np.array([choice.member for choice in choices])
    weights = np.zeros(len(choices))
    weights[member] = STRATEGIES[settings.strategy](probabilities[member], aligned.oof_labels)
    runs = tuple(
        RunInBlend(
            run=choice.run,
            architecture=about["architecture"],
            member=choice.member,
            weight=float(weight),
            reason=choice.reason,
            scores=score,
            scored=about.get("scored", "not said"),
            test_logits_from=about.get("test_logits_from", "not said"),
        )
        for choice, about, weight, score in zip(choices, aligned.abouts, weights, scores, strict=True)
    )
    in_sample = _weighted_sum(zip(probabilities, weights, strict=True))
    return EnsembleResult(
        runs=runs,
        strategy=settings.strategy,
        metric=metric,
        in_sample_scores=scores_of(in_sample, aligned.oof_labels, metric),
        best=best_run(runs, metric),
        validation_rows=len(aligned.oof_ids),
        classes=aligned.classes,
        test_ids=aligned.test_ids,
        test_probabilities=blend(aligned.test_logits, weights),
    )


def scores_of(probabilities: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
    """Accuracy, log loss and the competition's metric of probabilities `(n, classes)`."""
    return {name: METRICS[name](probabilities, labels) for name in dict.fromkeys(("accuracy", "log_loss", metric))}


def best_run(runs: Iterable[RunInBlend], metric: str) -> RunInBlend:
    """The run, member or not, with the best score; of equal ones the first by name."""

    def place(run: RunInBlend) -> tuple[bool, float, str]:
        score = run.scores[metric]
        return math.isnan(score), -METRICS[metric].gain(score), run.run

    return min(runs, key=place)


def _weighted_sum(shares: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
    # In one order and without BLAS, whose sums depend on its threads: equal inputs give equal bits.
    return sum(one * weight for one, weight in shares)
