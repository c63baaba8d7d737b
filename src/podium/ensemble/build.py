"""From joined runs to a blend and everything that may be believed of it."""

from collections.abc import Sequence
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
    plain_interval,
)
from podium.ensemble.contribution import Contribution, contributions, disagreements, error_correlations
from podium.ensemble.cross_fit import CrossFit, cross_fit, split_rows
from podium.ensemble.strategies.calibrate import brier, calibration_error
from podium.ensemble.strategies.table import ONE_AVERAGE, STRATEGIES
from podium.metrics import METRICS, hits, log_loss, softmax
from podium.predictions.align import Aligned

AVERAGES = ("probabilities", "logits")
FEW_ROWS = 500


@dataclass(frozen=True)
class RunInBlend:
    """One run: whether it is a member, its share, why, and what it scores by itself."""

    run: str
    architecture: str
    member: bool
    weight: float
    temperature: float
    reason: str
    scores: dict[str, float]
    scored: str  # on which rows, by which model
    test_logits_from: str  # the model that was scored, or another


@dataclass(frozen=True)
class StrategyScore:
    """One strategy: cross-fitted, with the standard error of its difference to the best, and in sample."""

    strategy: str
    average: str
    cross_fitted: dict[str, float]
    error_of_difference: float
    interval: tuple[float, float] | None  # 95 %, of the metric; None for the average that is not in use
    in_sample: dict[str, float]

    def optimism(self, metric: str) -> float:
        """How much the in-sample score flatters."""
        return METRICS[metric].gain(self.in_sample[metric]) - METRICS[metric].gain(self.cross_fitted[metric])


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """The blend, its honest score, and what else there is to say.

    `test_probabilities` follow `test_ids`; `cross_fitted` and `uncalibrated`, what was said of each validation row by
    a blend fitted without it, follow the joined runs' rows.
    """

    runs: tuple[RunInBlend, ...]
    settings: Ensemble
    blend: Blend
    metric: str
    strategies: tuple[StrategyScore, ...]
    taken: StrategyScore
    honest: Estimate
    comparisons: tuple[Comparison, ...]
    calibration: dict[str, dict[str, float]]  # before and after the blend's temperature, cross-fitted
    contributions: tuple[Contribution, ...]
    error_correlation: np.ndarray  # (runs, runs)
    disagreement: np.ndarray  # (runs, runs)
    caveats: tuple[str, ...]
    validation_rows: int
    classes: tuple[str, ...]
    test_ids: np.ndarray
    test_probabilities: np.ndarray
    cross_fitted: np.ndarray  # (n, classes)
    uncalibrated: np.ndarray  # (n, classes): without the blend's temperature

    @property
    def members(self) -> tuple[RunInBlend, ...]:
        """The runs that the blend uses."""
        return tuple(run for run in self.runs if run.weight)

    @property
    def best(self) -> RunInBlend:
        """The run, member or not, with the best score on these rows; of equal ones the first by name."""
        metric = METRICS[self.metric]
        return max(self.runs, key=lambda run: np.nan_to_num(metric.gain(run.scores[self.metric]), nan=-np.inf))


def build_ensemble(
    aligned: Aligned, settings: Ensemble, *, metric: str, groups: np.ndarray | None = None, only: bool = False
) -> EnsembleResult:
    """Fit and judge blends of joined runs as `[ensemble]` says; `groups` (n,) keep rows of one thing together.

    With `only`, just the strategy that is asked for, beside the best single run and the uniform blend. Raises
    ConfigError where no run is a member.
    """
    pool = pool_of(aligned, settings)
    wanted = _wanted(settings, only=only)
    parts = split_rows(pool.labels, groups, settings)
    crossed = cross_fit(pool, parts, wanted, settings, metric=metric)
    places = [place for place, (name, average) in enumerate(wanted) if _is_configured(name, average, settings)]
    names = [wanted[place][0] for place in places]
    draws = draw_rows(len(pool.labels), groups, settings.seed)
    auto = settings.strategy == "auto"
    found = bootstrap(crossed.probabilities[places], pool.labels, metric=metric, draws=draws, outside=auto)
    errors = found.standard_errors()
    taken = int(choose(found.whole, errors, names)) if auto else names.index(settings.strategy)
    blends = fit_blends(pool, wanted, settings, metric=metric)
    strategies = tuple(
        _strategy_score(
            crossed,
            place,
            blend,
            logs,
            pool.labels,
            metric,
            error=_error(place, places, errors, found),
            interval=plain_interval(found, places.index(place), metric=metric) if place in places else None,
        )
        for place, (blend, logs) in enumerate(zip(blends, blended(blends, pool.log_probabilities), strict=True))
    )
    blend = blends[places[taken]]
    test_logits = aligned.test_logits.astype(np.float32, copy=False)
    honest = estimate(found, taken, names=names, metric=metric, chosen=auto, tests=len(aligned.test_ids))
    right = np.stack([hits(crossed.probabilities[place, 0], pool.labels) for place in places])
    return EnsembleResult(
        runs=_runs(aligned, pool, blend, metric),
        settings=settings,
        blend=blend,
        metric=metric,
        strategies=strategies,
        taken=strategies[places[taken]],
        honest=honest,
        comparisons=tuple(
            compare(found, right, taken, names.index(other), against=other)
            for other in ("best", "uniform")
            if names.index(other) != taken
        ),
        calibration=_calibration(crossed, places[taken], pool.labels),
        contributions=contributions(pool, crossed, places[taken], blend, metric=metric, draws=draws),
        error_correlation=error_correlations(pool.right),
        disagreement=disagreements(pool.said),
        caveats=_caveats(aligned, blend, honest, metric),
        validation_rows=len(pool.labels),
        classes=aligned.classes,
        test_ids=aligned.test_ids,
        test_probabilities=blend.probabilities(test_logits),
        cross_fitted=crossed.probabilities[places[taken], 0],
        uncalibrated=crossed.uncalibrated[places[taken]],
    )


def _wanted(settings: Ensemble, *, only: bool) -> list[tuple[str, str]]:
    names = ["best", "uniform", settings.strategy] if only and settings.strategy != "auto" else list(STRATEGIES)
    averages = [settings.average] if only else AVERAGES
    return [
        (name, average)
        for name in STRATEGIES
        if name in names
        for average in (["logits"] if name in ONE_AVERAGE else averages)
    ]


def _is_configured(strategy: str, average: str, settings: Ensemble) -> bool:
    return strategy in ONE_AVERAGE or average == settings.average


def _error(place: int, places: Sequence[int], errors: np.ndarray, found: Bootstrap) -> float:
    """Standard error of a strategy's difference to the best one; NaN for the average that is not in use."""
    return float(errors[places.index(place), found.whole.argmax()]) if place in places else float("nan")


def _strategy_score(
    crossed: CrossFit,
    place: int,
    blend: Blend,
    logs: np.ndarray,
    labels: np.ndarray,
    metric: str,
    *,
    error: float,
    interval: tuple[float, float] | None,
) -> StrategyScore:
    repeats = [scores_of(one, labels, metric) for one in crossed.probabilities[place]]
    return StrategyScore(
        strategy=blend.strategy,
        average=blend.average,
        cross_fitted={name: float(np.mean([one[name] for one in repeats])) for name in repeats[0]},
        error_of_difference=error,
        interval=interval,
        in_sample=scores_of(softmax(logs / blend.temperature), labels, metric),
    )


def _runs(aligned: Aligned, pool: Pool, blend: Blend, metric: str) -> tuple[RunInBlend, ...]:
    return tuple(
        RunInBlend(
            run=choice.run,
            architecture=about["architecture"],
            member=choice.member,
            weight=float(blend.weights[place]),
            temperature=float(blend.temperatures[place]),
            reason=choice.reason,
            scores=scores_of(np.exp(pool.log_probabilities[place]), pool.labels, metric),
            scored=about.get("scored", "not said"),
            test_logits_from=about.get("test_logits_from", "not said"),
        )
        for place, (choice, about) in enumerate(zip(blend.choices, aligned.abouts, strict=True))
    )


def _calibration(crossed: CrossFit, place: int, labels: np.ndarray) -> dict[str, dict[str, float]]:
    measures = {"log_loss": log_loss, "brier": brier, "calibration_error": calibration_error}
    states = {"before": crossed.uncalibrated[place], "after": crossed.probabilities[place, 0]}
    return {
        when: {name: measure(said.astype(np.float64), labels) for name, measure in measures.items()}
        for when, said in states.items()
    }


def _caveats(aligned: Aligned, blend: Blend, honest: Estimate, metric: str) -> tuple[str, ...]:
    """What the honest score cannot see, in words."""
    told = ["the final weights are fitted on all validation rows, and so a little better than those that were scored"]
    used = [aligned.abouts[place] for place in np.flatnonzero(blend.weights)]
    refitted = sum("refit" in about.get("test_logits_from", "") for about in used)
    if refitted:
        told.append(
            f"{refitted} of {len(used)} members were refitted on all labelled rows: those are not the ones scored"
        )
    averaged = sum("average" in about.get("test_logits_from", "") for about in used)
    if averaged:
        told.append(f"{averaged} of {len(used)} members average their fold models on the test: each was scored alone")
    if imported := sum(bool(about.get("imported")) for about in used):
        told.append(f"that {imported} imported member(s) never saw these rows is their author's word")
    told.append("recipes that were tuned, stopped early or picked on these rows make every score on them too good")
    if len(aligned.oof_ids) < FEW_ROWS:
        low, high = honest.interval
        told.insert(
            0, f"{len(aligned.oof_ids)} validation rows are few: {metric} may be anywhere from {low:.4f} to {high:.4f}"
        )
    return tuple(told)
