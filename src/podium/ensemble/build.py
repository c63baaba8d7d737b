"""From joined runs to a blend, its scores and their intervals."""

from dataclasses import dataclass

import numpy as np

from podium.config.keys import Ensemble
from podium.ensemble.blend import Blend, blended
from podium.ensemble.compare import Bootstrap, Comparison, Estimate, bootstrap, choose, compare, estimate
from podium.ensemble.contribution import Contribution, contributions
from podium.ensemble.cross_fit import Candidate, cross_fit
from podium.ensemble.pool import Pool, pool_of
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
# What the cross-fitted score does not measure of members, by a key of their description, or a word in test_logits_from.
CAVEATS_OF_MEMBERS = {
    "refit": "were refitted on all labelled rows after they were scored",
    "average": "average their fold models on the test, but were scored singly",
    "pseudo_labels": "were trained on pseudo-labels, whose blend knew validation labels: their scores may be slightly "
    "too good",
    "imported": "are imported: Podium cannot check that they never saw the rows",
}


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
        return METRICS[metric].gain(self.in_sample[metric] - self.cross_fitted[metric])


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """The blend, its cross-fitted score, and the evidence for it.

    `test_probabilities` have the order of the test ids; `cross_fitted` and `uncalibrated`, the predictions for each
    validation row by a blend that was fitted without it, have the order of the joined runs' rows, cell by cell (see
    podium.targets).
    """

    aligned: Aligned
    pool: Pool
    runs: tuple[RunInBlend, ...]
    blend: Blend
    strategies: tuple[StrategyScore, ...]
    used: StrategyScore
    score: Estimate  # of the strategy in use
    comparisons: tuple[Comparison, ...]
    calibration: dict[str, dict[str, float]]  # before and after the blend's temperature, cross-fitted; of probabilities
    contributions: tuple[Contribution, ...]
    caveats: tuple[str, ...]
    warnings: tuple[str, ...]  # of runs that may know validation rows, and of a test that differs
    test_probabilities: np.ndarray
    cross_fitted: np.ndarray  # (n, classes), of cells
    uncalibrated: np.ndarray  # (n, classes), of cells: without the blend's temperature

    @property
    def best(self) -> RunInBlend:
        """The run, member or not, with the best score on these rows; of equal ones the first by name."""
        return max(self.runs, key=lambda run: self.pool.measure.gain(run.scores[self.pool.metric]))


def build_ensemble(aligned: Aligned, settings: Ensemble, *, metric: str, only: bool = False) -> EnsembleResult:
    """Fit and score blends of joined runs as `[ensemble]` says; rows of one group stay together.

    With `only`, or if there are very many logits, nothing but the requested strategy (of `auto`: those that are not
    SLOW), the best single run and the uniform blend is scored. Raises ConfigError if no run is a member, or the
    validation rows are too few to score a blend.
    """
    pool, target = pool_of(aligned, settings, metric=metric), aligned.target
    gains = pool.gains()
    members, reasons = pool.select(gains)
    _check(pool, gains, members)
    candidates = cross_fit(pool, _pairs(pool, only=only))
    # Only strategies with the configured average can be chosen.
    average = pool.settings.average
    eligible = [fit for fit in candidates if fit.blend.average == average or fit.blend.strategy in ONE_AVERAGE]
    names, is_auto = [fit.blend.strategy for fit in eligible], settings.strategy == "auto"
    resampled = bootstrap(pool, [fit.predicted for fit in eligible], outside=is_auto)
    choice = choose(resampled, resampled.whole, names) if is_auto else names.index(settings.strategy)
    used, tests = eligible[choice], len(aligned.test_ids) * target.cells_per_row
    chosen_among = names if is_auto and len(pool.runs) > 1 else None  # of one run, all strategies are the same blend
    score = estimate(resampled, choice, tests=tests, chosen_among=chosen_among)
    strategies = _strategy_scores(candidates, eligible, resampled)
    is_calibrated = target.has_probabilities and used.blend.cuts is None  # cut points shift the probabilities
    before, after = used.uncalibrated(pool), used.predicted[0]
    return EnsembleResult(
        aligned=aligned,
        pool=pool,
        runs=_runs(pool, used.blend, members, reasons),
        blend=used.blend,
        strategies=strategies,
        used=strategies[candidates.index(used)],
        score=score,
        comparisons=compare(resampled, eligible, choice),
        calibration=calibration_of(before, after, pool.labels) if is_calibrated else {},
        contributions=contributions(pool, used),
        caveats=_caveats(pool, aligned, used.blend, score),
        warnings=shift_warnings(pool, aligned.test_logits),
        test_probabilities=used.blend.of_rows(aligned.test_logits),
        cross_fitted=after,
        uncalibrated=before,
    )


def compares_all_strategies(runs: int, rows: int, classes: int) -> bool:
    """Whether an ensemble is small enough that all strategies are scored beside the requested one."""
    return runs * rows * classes * (runs + classes) <= MOST_WORK


def _check(pool: Pool, gains: np.ndarray, members: np.ndarray) -> None:
    """Raise ConfigError if blends cannot be fitted on some rows and scored on others, or no run is a member."""
    scored = {"auc": ("rows of two classes", "one class"), "r2": ("different numbers", "one")}
    fix = "increase [validation] rows in competition.toml"
    if not pool.units.any():
        what, expected, found = "A blend cannot be scored.", f"at least two validation {pool.counted}", "one"
    elif pool.metric in scored and np.isneginf(gains).all():
        what, (expected, found) = f"The validation rows have no {pool.metric}.", scored[pool.metric]
    elif not members.any():
        threshold, best = pool.settings.threshold, pool.settings.best_per_architecture
        what, fix = "No run is a member of the ensemble.", "edit [ensemble] in competition.toml"
        expected = "a [ensemble] threshold that some run reaches, or best_per_architecture = 1"
        found = f"threshold = {threshold:g}, best_per_architecture = {best}"
    else:
        return
    raise ConfigError(what, expected=expected, found=found, fix=fix)


def _pairs(pool: Pool, *, only: bool) -> list[tuple[str, str]]:
    """The pairs (strategy, average) to score, from the simplest strategy on."""
    strategy, average, has_probabilities = pool.settings.strategy, pool.settings.average, pool.target.has_probabilities
    is_large = not compares_all_strategies(*pool.logs.shape)
    names = STRATEGIES.keys() - (SLOW if is_large else set()) - (set() if has_probabilities else NOT_OF_NUMBERS)
    only = only or is_large
    if only and strategy != "auto":
        names = {"best", "uniform", strategy}
    averages = AVERAGES if has_probabilities and not only else [average]
    pairs = [(name, ["logits"] if name in ONE_AVERAGE else averages) for name in STRATEGIES if name in names]
    return [(name, average) for name, of_name in pairs for average in of_name]


def _strategy_scores(
    candidates: list[Candidate], eligible: list[Candidate], resampled: Bootstrap
) -> tuple[StrategyScore, ...]:
    """The scores of all candidates; `resampled` are the `eligible` ones."""
    pool, scores = resampled.pool, []
    in_sample = blended([candidate.blend for candidate in candidates], pool.logs)
    for candidate, logs in zip(candidates, in_sample, strict=True):
        blend, repeats = candidate.blend, [pool.scores(repeat) for repeat in candidate.predicted]
        place = eligible.index(candidate) if candidate in eligible else None
        scores.append(
            StrategyScore(
                strategy=blend.strategy,
                average=blend.average,
                cross_fitted={name: float(np.mean([repeat[name] for repeat in repeats])) for name in repeats[0]},
                interval=None if place is None else estimate(resampled, place, tests=1).interval,
                in_sample=pool.scores(blend.values(logs)),
            )
        )
    return tuple(scores)


def _runs(pool: Pool, blend: Blend, members: np.ndarray, reasons: list[str]) -> tuple[RunInBlend, ...]:
    return tuple(
        RunInBlend(
            run=run,
            architecture=about["architecture"],
            member=bool(members[place]),
            weight=float(blend.weights[place]),
            temperature=float(blend.temperatures[place]),
            reason=reasons[place],
            scores=pool.scores(pool.target.values(pool.logs[place])),
            scored=about.get("scored", "unknown"),
            test_logits_from=about.get("test_logits_from", "unknown"),
        )
        for place, (run, about) in enumerate(zip(pool.runs, pool.abouts, strict=True))
    )


def _caveats(pool: Pool, aligned: Aligned, blend: Blend, score: Estimate) -> tuple[str, ...]:
    """What the cross-fitted score does not measure."""
    caveats, rows, (low, high) = [], len(aligned.oof_ids), score.interval
    if rows < FEW_ROWS:
        anywhere = f"anywhere from {low:.4f} to {high:.4f}"
        caveats.append(f"only {rows} validation rows: the true {pool.metric} may be {anywhere}")
    if unseen := np.flatnonzero(pool.target.shares(aligned.oof_labels) == 0).tolist():
        named = examples([repr(aligned.classes[label]) for label in unseen])
        caveats.append(f"no validation row has the class {named}: no score tells how well it is predicted")
    caveats.append("the final weights use all validation rows, so they are slightly better than the scored ones")
    members = [pool.abouts[place] for place in np.flatnonzero(blend.weights)]
    for word, what in CAVEATS_OF_MEMBERS.items():
        count = sum(word in about.get("test_logits_from", "") or bool(about.get(word)) for about in members)
        caveats += [f"{count} of {len(members)} members {what}"] if count else []
    return (*caveats, "if recipes were tuned, stopped early or picked on these rows, all scores are too good")
