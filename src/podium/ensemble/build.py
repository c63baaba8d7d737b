"""From joined runs to a blend, its scores and their intervals."""

from dataclasses import dataclass, replace

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import Blend, Pool, blended, fit_blends, pool_of, scores_of
from podium.ensemble.compare import (
    Bootstrap,
    Comparison,
    Draws,
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
from podium.ensemble.strategies.calibrate import calibration_of
from podium.ensemble.strategies.table import NOT_OF_NUMBERS, ONE_AVERAGE, STRATEGIES
from podium.errors import ConfigError, examples
from podium.metrics import METRICS
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
    validation row by a blend that was fitted without it, have the order of the joined runs' rows, cell by cell (see
    podium.targets).
    """

    runs: tuple[RunInBlend, ...]
    settings: Ensemble
    blend: Blend
    metric: str
    strategies: tuple[StrategyScore, ...]
    used: StrategyScore
    score: Estimate  # of the strategy in use
    comparisons: tuple[Comparison, ...]
    calibration: dict[str, dict[str, float]]  # before and after the blend's temperature, cross-fitted; of probabilities
    contributions: tuple[Contribution, ...]
    error_correlation: np.ndarray  # (runs, runs)
    disagreement: np.ndarray  # (runs, runs)
    caveats: tuple[str, ...]
    warnings: tuple[str, ...]  # of runs that may know validation rows, and of a test that differs
    validation_rows: int
    classes: tuple[str, ...]
    test_ids: np.ndarray
    test_probabilities: np.ndarray
    cross_fitted: np.ndarray  # (n, classes), of cells
    uncalibrated: np.ndarray  # (n, classes), of cells: without the blend's temperature

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
    target = aligned.target
    settings = settings if target.has_probabilities else replace(settings, average="logits")  # a mean of numbers
    pool = pool_of(aligned, settings)
    _check_rows(aligned, pool, metric)
    choices = select(pool.runs, pool.architectures, pool.gains(metric), settings, metric=metric)
    check_members(choices, settings)
    candidates = _candidates(settings, pool, only=only)
    crossed = cross_fit(pool, split_rows(pool.strata, pool.units, settings), candidates, settings, metric=metric)
    blends = fit_blends(pool, candidates, settings, metric=metric)
    correlation, disagreement = error_correlations(pool.errors), disagreements(pool.predicted, target)
    draws = draw_rows(len(pool.labels), pool.units, settings.seed)
    # Only strategies with the configured average can be chosen.
    eligible = [i for i, (name, average) in enumerate(candidates) if name in ONE_AVERAGE or average == settings.average]
    names = [candidates[place][0] for place in eligible]
    resampled, choice, score = _choose(aligned, pool, crossed, eligible, names, settings, metric, draws)
    place = eligible[choice]
    blend, uncalibrated = blends[place], crossed.uncalibrated(pool, place)
    strategies = _strategy_scores(pool, crossed, blends, resampled, eligible, metric)
    return EnsembleResult(
        runs=_runs(aligned, pool, blend, choices, metric),
        settings=settings,
        blend=blend,
        metric=metric,
        strategies=strategies,
        used=strategies[place],
        score=score,
        comparisons=_comparisons(resampled, crossed.probabilities[eligible, 0], pool, names, choice, draws.unit),
        calibration=calibration_of(uncalibrated, crossed.probabilities[place, 0], pool.labels, blend.is_calibrated),
        contributions=contributions(
            pool, crossed, place, blend, metric=metric, draws=draws, correlation=correlation, disagreement=disagreement
        ),
        error_correlation=correlation,
        disagreement=disagreement,
        caveats=_caveats(aligned, blend, score, metric),
        warnings=shift_warnings(aligned, pool, draws.unit),
        validation_rows=len(aligned.oof_ids),
        classes=aligned.classes,
        test_ids=aligned.test_ids,
        test_probabilities=target.rows(blend.probabilities(target.cells(aligned.test_logits))),
        cross_fitted=crossed.probabilities[place, 0],
        uncalibrated=uncalibrated,
    )


def _choose(
    aligned: Aligned,
    pool: Pool,
    crossed: CrossFit,
    eligible: list[int],
    names: list[str],
    settings: Ensemble,
    metric: str,
    draws: Draws,
) -> tuple[Bootstrap, int, Estimate]:
    """The bootstrap of the `eligible` candidates, the requested one's place among their `names`, and its score.

    The score is corrected if `auto` chose the strategy.
    """
    auto, probabilities = settings.strategy == "auto", crossed.probabilities[eligible]
    tests = len(aligned.test_ids) * pool.target.cells_per_row
    resampled = bootstrap(probabilities, pool.labels, metric=metric, draws=draws, outside=auto, target=pool.target)
    place = int(choose(resampled.whole, resampled.standard_errors(), names)) if auto else names.index(settings.strategy)
    score = estimate(resampled, place, metric=metric, tests=tests, chosen_among=names if auto else None)
    return resampled, place, score


def compares_all_strategies(runs: int, rows: int, classes: int) -> bool:
    """Whether an ensemble is small enough that all strategies are scored beside the requested one."""
    return runs * rows * classes * (runs + classes) <= MOST_WORK


def _check_rows(aligned: Aligned, pool: Pool, metric: str) -> None:
    """Raise ConfigError if blends cannot be fitted on some rows and scored on others."""
    units, found = ("rows", aligned.oof_ids) if aligned.groups is None else ("groups", np.unique(aligned.groups))
    if len(found) < 2:
        raise ConfigError(
            "A blend cannot be scored.", expected=f"at least two validation {units}", found="one", fix=LARGER_VALIDATION
        )
    if metric in ("auc", "r2") and np.isneginf(pool.gains(metric)).all():
        expected, found = ("rows of two classes", "one class") if metric == "auc" else ("different numbers", "one")
        raise ConfigError(
            f"The validation rows have no {metric}.", expected=expected, found=found, fix=LARGER_VALIDATION
        )


def _candidates(settings: Ensemble, pool: Pool, *, only: bool) -> list[tuple[str, str]]:
    """The pairs (strategy, average) to score, from the simplest strategy on."""
    large, has_probabilities = not compares_all_strategies(*pool.log_probabilities.shape), pool.target.has_probabilities
    only = only or large
    names = STRATEGIES.keys() - (SLOW if large else {}) - (set() if has_probabilities else NOT_OF_NUMBERS)
    if only and settings.strategy != "auto":
        names = {"best", "uniform", settings.strategy}
    averages = AVERAGES if has_probabilities and not only else [settings.average]
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
        repeats = [scores_of(repeat, pool.labels, metric, pool.target) for repeat in crossed.probabilities[place]]
        index = eligible.index(place) if place in eligible else None
        scores.append(
            StrategyScore(
                strategy=blend.strategy,
                average=blend.average,
                cross_fitted={name: float(np.mean([repeat[name] for repeat in repeats])) for name in repeats[0]},
                interval=None if index is None else estimate(resampled, index, metric=metric, tests=1).interval,
                in_sample=scores_of(blend.values(logs), pool.labels, metric, pool.target),
            )
        )
    return tuple(scores)


def _comparisons(
    resampled: Bootstrap, probabilities: np.ndarray, pool: Pool, names: list[str], choice: int, unit: np.ndarray
) -> tuple[Comparison, ...]:
    """The chosen strategy compared with the best run, the uniform blend, and each strategy ahead of it beyond noise.

    probabilities (strategies, n, classes).
    """
    correct = np.stack([pool.target.merits(strategy, pool.labels) for strategy in probabilities])
    differ = holm([resampled.p(choice, place) for place in range(len(names))])
    return tuple(
        compare(resampled, correct, choice, place, unit=unit, against=name, counted=pool.counted)
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
            scores=scores_of(
                pool.target.values_of_logs(pool.log_probabilities[place]), pool.labels, metric, pool.target
            ),
            scored=about.get("scored", "unknown"),
            test_logits_from=about.get("test_logits_from", "unknown"),
        )
        for place, (run, choice, about) in enumerate(zip(pool.runs, choices, aligned.abouts, strict=True))
    )


def _caveats(aligned: Aligned, blend: Blend, score: Estimate, metric: str) -> tuple[str, ...]:
    """What the cross-fitted score does not measure."""
    caveats, rows = [], len(aligned.oof_ids)
    if rows < FEW_ROWS:
        low, high = score.interval
        caveats.append(f"only {rows} validation rows: the true {metric} may be anywhere from {low:.4f} to {high:.4f}")
    if unseen := np.flatnonzero(aligned.target.shares(aligned.oof_labels) == 0).tolist():
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
