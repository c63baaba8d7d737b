"""From joined runs to a blend, its scores and their intervals."""

from dataclasses import dataclass

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import Blend, Pool, blended, fit_blends, pool_of, scores_of
from podium.ensemble.compare import (
    Bootstrap,
    Comparison,
    Estimate,
    bootstrap,
    choose,
    compare,
    draw_rows,
    estimate,
    holm,
)
from podium.ensemble.contribution import Contribution, contributions, disagreements, error_correlations
from podium.ensemble.cross_fit import CrossFit, cross_fit, split_rows
from podium.ensemble.select import Choice, check_members, select
from podium.ensemble.shift import shift_warnings
from podium.ensemble.strategies.calibrate import brier, calibration_error
from podium.ensemble.strategies.table import ONE_AVERAGE, STRATEGIES
from podium.errors import ConfigError, examples
from podium.metrics import METRICS, hits, log_loss, softmax
from podium.predictions.align import Aligned

AVERAGES = ("probabilities", "logits")
FEW_ROWS = 500
# Runs x rows x classes x (runs + classes): above this, comparing all strategies takes many minutes.
MOST_WORK = 1_000_000_000
SLOW = {"greedy", "stack"}
LARGER_VALIDATION = "increase [validation] rows in competition.toml"


@dataclass(frozen=True)
class RunInBlend:
    """One run: whether it is a member, its weight, the reason, and its own scores."""

    run: str
    architecture: str
    member: bool
    weight: float
    temperature: float
    reason: str
    scores: dict[str, float]
    scored: str  # the rows and the model of these scores
    test_logits_from: str  # the model of the test logits, which may be another one


@dataclass(frozen=True)
class StrategyScore:
    """One strategy: its cross-fitted and in-sample scores."""

    strategy: str
    average: str
    cross_fitted: dict[str, float]
    interval: tuple[float, float] | None  # 95 %, of the metric; None for the average that is not used
    in_sample: dict[str, float]

    def optimism(self, metric: str) -> float:
        """How much the in-sample score is better than the cross-fitted one."""
        return METRICS[metric].gain(self.in_sample[metric]) - METRICS[metric].gain(self.cross_fitted[metric])


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """The blend, its cross-fitted score, and the evidence for it.

    `test_probabilities` have the order of `test_ids`; `cross_fitted` and `uncalibrated`, the predictions for each
    validation row by a blend that was fitted without it, have the order of the joined runs' rows.
    """

    runs: tuple[RunInBlend, ...]
    settings: Ensemble
    blend: Blend
    metric: str
    strategies: tuple[StrategyScore, ...]
    used: StrategyScore
    score: Estimate  # of the strategy in use
    comparisons: tuple[Comparison, ...]
    calibration: dict[str, dict[str, float]]  # before and after the blend's temperature, cross-fitted
    contributions: tuple[Contribution, ...]
    error_correlation: np.ndarray  # (runs, runs)
    disagreement: np.ndarray  # (runs, runs)
    caveats: tuple[str, ...]
    warnings: tuple[str, ...]  # of runs that may know validation rows, and of a test that differs
    validation_rows: int
    classes: tuple[str, ...]
    test_ids: np.ndarray
    test_probabilities: np.ndarray
    cross_fitted: np.ndarray  # (n, classes)
    uncalibrated: np.ndarray  # (n, classes): without the blend's temperature

    @property
    def members(self) -> tuple[RunInBlend, ...]:
        """The runs that have a weight in the blend."""
        return tuple(run for run in self.runs if run.weight)

    @property
    def best(self) -> RunInBlend:
        """The run, member or not, with the best score on these rows; of equal ones the first by name."""
        metric = METRICS[self.metric]
        return max(self.runs, key=lambda run: metric.gain(run.scores[self.metric]))


def build_ensemble(aligned: Aligned, settings: Ensemble, *, metric: str, only: bool = False) -> EnsembleResult:
    """Fit and score blends of joined runs as `[ensemble]` says; rows of one group stay together.

    With `only`, or if there are very many logits, nothing but the requested strategy (of `auto`: those that are not
    SLOW), the best single run and the uniform blend is scored. Raises ConfigError if no run is a member, or the
    validation rows are too few to score a blend.
    """
    pool = pool_of(aligned, settings)
    _check_rows(aligned, metric)
    choices = select(pool.runs, pool.architectures, pool.gains(metric), settings, metric=metric)
    check_members(choices, settings)
    large = not compares_all_strategies(*aligned.oof_logits.shape)
    candidates = _candidates(settings, only=only or large, large=large)
    crossed = cross_fit(pool, split_rows(pool.labels, aligned.groups, settings), candidates, settings, metric=metric)
    blends = fit_blends(pool, candidates, settings, metric=metric)
    correlation, disagreement = error_correlations(pool.correct), disagreements(pool.predicted)
    draws = draw_rows(len(pool.labels), aligned.groups, settings.seed)
    # Only strategies with the configured average can be chosen.
    eligible = [i for i, (name, average) in enumerate(candidates) if name in ONE_AVERAGE or average == settings.average]
    names = [candidates[place][0] for place in eligible]
    corrected = settings.strategy == "auto"
    resampled = bootstrap(crossed.probabilities[eligible], pool.labels, metric=metric, draws=draws, outside=corrected)
    choice, score = _choose(resampled, names, settings.strategy, metric=metric, tests=len(aligned.test_ids))
    place = eligible[choice]
    blend, uncalibrated = blends[place], _uncalibrated(pool, crossed, place)
    strategies = _strategy_scores(pool, crossed, blends, resampled, eligible, metric)
    return EnsembleResult(
        runs=_runs(aligned, pool, blend, choices, metric),
        settings=settings,
        blend=blend,
        metric=metric,
        strategies=strategies,
        used=strategies[place],
        score=score,
        comparisons=_comparisons(resampled, crossed.probabilities[eligible, 0], pool.labels, names, choice, draws.unit),
        calibration=_calibration(uncalibrated, crossed.probabilities[place, 0], pool.labels),
        contributions=contributions(
            pool, crossed, place, blend, metric=metric, draws=draws, correlation=correlation, disagreement=disagreement
        ),
        error_correlation=correlation,
        disagreement=disagreement,
        caveats=_caveats(aligned, blend, score, metric),
        warnings=shift_warnings(aligned, pool, draws.unit),
        validation_rows=len(pool.labels),
        classes=aligned.classes,
        test_ids=aligned.test_ids,
        test_probabilities=blend.probabilities(aligned.test_logits),
        cross_fitted=crossed.probabilities[place, 0],
        uncalibrated=uncalibrated,
    )


def _choose(resampled: Bootstrap, names: list[str], strategy: str, *, metric: str, tests: int) -> tuple[int, Estimate]:
    """The place of the requested strategy among `names`, and its score, corrected if `auto` chose it."""
    auto = strategy == "auto"
    place = int(choose(resampled.whole, resampled.standard_errors(), names)) if auto else names.index(strategy)
    return place, estimate(resampled, place, metric=metric, tests=tests, chosen_among=names if auto else None)


def compares_all_strategies(runs: int, rows: int, classes: int) -> bool:
    """Whether an ensemble is small enough that all strategies are scored beside the requested one."""
    return runs * rows * classes * (runs + classes) <= MOST_WORK


def _check_rows(aligned: Aligned, metric: str) -> None:
    """Raise ConfigError if blends cannot be fitted on some rows and scored on others."""
    units, found = ("rows", aligned.oof_ids) if aligned.groups is None else ("groups", np.unique(aligned.groups))
    if len(found) < 2:
        raise ConfigError(
            "A blend cannot be scored.", expected=f"at least two validation {units}", found="one", fix=LARGER_VALIDATION
        )
    if metric == "auc" and len(np.unique(aligned.oof_labels)) < 2:
        raise ConfigError(
            "The validation rows have no auc.", expected="rows of two classes", found="one class", fix=LARGER_VALIDATION
        )


def _candidates(settings: Ensemble, *, only: bool, large: bool) -> list[tuple[str, str]]:
    """The pairs (strategy, average) to score, from the simplest strategy on."""
    names = STRATEGIES.keys() - (SLOW if large else {})
    if only and settings.strategy != "auto":
        names = {"best", "uniform", settings.strategy}
    averages = [settings.average] if only else AVERAGES
    return [
        (name, average)
        for name in STRATEGIES
        if name in names
        for average in (["logits"] if name in ONE_AVERAGE else averages)
    ]


def _strategy_scores(
    pool: Pool, crossed: CrossFit, blends: list[Blend], resampled: Bootstrap, eligible: list[int], metric: str
) -> tuple[StrategyScore, ...]:
    """The scores of all candidates; `resampled` are the `eligible` ones."""
    scores = []
    for place, (blend, logs) in enumerate(zip(blends, blended(blends, pool.log_probabilities), strict=True)):
        repeats = [scores_of(repeat, pool.labels, metric) for repeat in crossed.probabilities[place]]
        index = eligible.index(place) if place in eligible else None
        scores.append(
            StrategyScore(
                strategy=blend.strategy,
                average=blend.average,
                cross_fitted={name: float(np.mean([repeat[name] for repeat in repeats])) for name in repeats[0]},
                interval=None if index is None else estimate(resampled, index, metric=metric, tests=1).interval,
                in_sample=scores_of(softmax(logs / blend.temperature), pool.labels, metric),
            )
        )
    return tuple(scores)


def _comparisons(
    resampled: Bootstrap, probabilities: np.ndarray, labels: np.ndarray, names: list[str], choice: int, unit: np.ndarray
) -> tuple[Comparison, ...]:
    """The chosen strategy compared with the best run, the uniform blend, and each strategy ahead of it beyond noise.

    probabilities (strategies, n, classes).
    """
    correct = np.stack([hits(strategy, labels) for strategy in probabilities])
    differ = holm([resampled.p(choice, place) for place in range(len(names))])
    return tuple(
        compare(resampled, correct, choice, place, unit=unit, against=name)
        for place, name in enumerate(names)
        if place != choice
        and (name in ("best", "uniform") or (differ[place] and resampled.whole[place] > resampled.whole[choice]))
    )


def _runs(aligned: Aligned, pool: Pool, blend: Blend, choices: list[Choice], metric: str) -> tuple[RunInBlend, ...]:
    return tuple(
        RunInBlend(
            run=run,
            architecture=about["architecture"],
            member=choice.member,
            weight=float(blend.weights[place]),
            temperature=float(blend.temperatures[place]),
            reason=choice.reason,
            scores=scores_of(np.exp(pool.log_probabilities[place]), pool.labels, metric),
            scored=about.get("scored", "unknown"),
            test_logits_from=about.get("test_logits_from", "unknown"),
        )
        for place, (run, choice, about) in enumerate(zip(pool.runs, choices, aligned.abouts, strict=True))
    )


def _uncalibrated(pool: Pool, crossed: CrossFit, place: int) -> np.ndarray:
    """Cross-fitted probabilities (n, classes) of candidate number `place`, without the blend's temperature."""
    probabilities = np.empty_like(crossed.probabilities[place, 0])
    for rows, blends in crossed.blends:
        probabilities[rows] = softmax(blended([blends[place]], pool.log_probabilities[:, rows])[0])
    return probabilities


def _calibration(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    measures = {"log_loss": log_loss, "brier": brier, "calibration_error": calibration_error}
    return {
        state: {name: measure(probabilities.astype(np.float64), labels) for name, measure in measures.items()}
        for state, probabilities in (("before", before), ("after", after))
    }


def _caveats(aligned: Aligned, blend: Blend, score: Estimate, metric: str) -> tuple[str, ...]:
    """What the cross-fitted score does not measure."""
    caveats, rows = [], len(aligned.oof_ids)
    if rows < FEW_ROWS:
        low, high = score.interval
        caveats.append(f"only {rows} validation rows: the true {metric} may be anywhere from {low:.4f} to {high:.4f}")
    if unseen := np.setdiff1d(np.arange(len(aligned.classes)), aligned.oof_labels).tolist():
        named = examples([repr(aligned.classes[label]) for label in unseen])
        caveats.append(f"no validation row has the class {named}: no score tells how well it is predicted")
    caveats.append("the final weights use all validation rows, so they are slightly better than the scored ones")
    abouts = [aligned.abouts[place] for place in np.flatnonzero(blend.weights)]
    sources = [about.get("test_logits_from", "") for about in abouts]
    members = len(abouts)
    if refitted := sum("refit" in source for source in sources):
        caveats.append(f"{refitted} of {members} members were refitted on all labelled rows after they were scored")
    if averaged := sum("average" in source for source in sources):
        caveats.append(f"{averaged} of {members} members average their fold models on the test, but were scored singly")
    if pseudo := sum(bool(about.get("pseudo_labels")) for about in abouts):
        what = "trained on pseudo-labels, whose blend knew validation labels: their scores may be slightly too good"
        caveats.append(f"{pseudo} of {members} members were {what}")
    if imported := sum(bool(about.get("imported")) for about in abouts):
        caveats.append(
            f"{imported} of {members} members are imported: Podium cannot check that they never saw the rows"
        )
    caveats.append("if recipes were tuned, stopped early or picked on these rows, all scores are too good")
    return tuple(caveats)
