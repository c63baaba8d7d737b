"""What there is to say of an ensemble, as lines of text; the command line prints them."""

from collections.abc import Mapping, Sequence

from podium.ensemble.build import EnsembleResult
from podium.ensemble.compare import Comparison
from podium.ensemble.contribution import Suggestion
from podium.ensemble.write import WrittenEnsemble


def ensemble_lines(written: WrittenEnsemble, *, stale: set[str]) -> list[str]:
    """The members and why, the strategies side by side, the honest score and what it cannot see."""
    result = written.result
    return [
        "",
        *_run_lines(result, stale),
        "",
        *_strategy_lines(result),
        "",
        *_score_lines(result),
        "what this score cannot see:",
        *(f"  - {caveat}" for caveat in result.caveats),
        f"wrote {written.csv_file} and {written.json_file.name}",
    ]


def _run_lines(result: EnsembleResult, stale: set[str]) -> list[str]:
    lines = [f"{'run':<20} {'accuracy':>8} {'weight':>7} {'temp.':>5} {'alike':>5} {'brings':>7}  why; verdict"]
    brings = {one.run: one for one in result.contributions}
    for run in sorted(result.runs, key=lambda one: (-one.weight, -one.scores["accuracy"], one.run)):
        one = brings[run.run]
        weight = f"{run.weight:.4f}" if run.weight else "-"
        gain = f"{one.loss * 100:+.2f}" if one.loss is not None else "-"
        words = f"{run.reason}; {one.verdict}"
        words += "; STALE: its recipe or data changed since" if run.run in stale else ""
        lines.append(
            f"{run.run:<20} {run.scores['accuracy']:8.4f} {weight:>7} {run.temperature:5.2f} "
            f"{one.error_correlation:5.2f} {gain:>7}  {words}"
        )
    return lines


def _strategy_lines(result: EnsembleResult) -> list[str]:
    metric = result.metric
    head = f"{'strategy':<11} {'average':<14} {metric:>11} {'log loss':>9} {'in sample':>10} {'optimism':>9}"
    lines = [f"cross-fitted on {result.validation_rows:,} validation rows:", head]
    for one in result.strategies:
        average = "-" if one.strategy in ("best", "stack") else one.average
        mark = "  <- used" if one is result.taken else ""
        lines.append(
            f"{one.strategy:<11} {average:<14} {one.cross_fitted[metric]:11.4f} {one.cross_fitted['log_loss']:9.4f} "
            f"{one.in_sample[metric]:10.4f} {one.optimism(metric):+9.4f}{mark}"
        )
    return lines


def _score_lines(result: EnsembleResult) -> list[str]:
    honest, taken, metric = result.honest, result.taken, result.metric
    low, high = honest.interval
    test_low, test_high = honest.test_interval
    asked = " (chosen by auto)" if result.settings.strategy == "auto" else ""
    lines = [
        f"{taken.strategy}{asked}: {metric} {honest.score:.4f}, cross-fitted; 95 % interval {low:.4f} to {high:.4f}",
        f"  on a test of {len(result.test_ids):,} rows: {test_low:.4f} to {test_high:.4f}",
        f"  in sample {taken.in_sample[metric]:.4f}, too good by {taken.optimism(metric):+.4f}",
    ]
    if honest.corrected_for_choosing:
        lines.append(
            f"  {honest.corrected_for_choosing:+.4f} was taken off because the strategy was chosen on these rows"
        )
    lines += [_comparison_line(one, result) for one in result.comparisons]
    before, after = result.calibration["before"], result.calibration["after"]
    told = (("log loss", "log_loss"), ("Brier", "brier"), ("calibration error", "calibration_error"))
    changes = ", ".join(f"{words} {before[name]:.4f} -> {after[name]:.4f}" for words, name in told)
    return [*lines, f"  temperature {result.blend.temperature:.2f}: {changes}"]


def _comparison_line(one: Comparison, result: EnsembleResult) -> str:
    against = f"the best single run ({result.best.run})" if one.against == "best" else "the uniform blend"
    low, high = one.interval
    verdict = "no difference beyond noise"
    if one.real:
        verdict = "the gain is real" if one.gain > 0 else "the loss is real"
    unit, words = (100, " points") if result.metric == "accuracy" else (1, "")
    rows = f"{one.won} rows won, {one.lost} lost, McNemar p {_p(one.p)}"
    return (
        f"  against {against}: {one.gain * unit:+.2f}{words} "
        f"({low * unit:+.2f} to {high * unit:+.2f}; {rows}): {verdict}"
    )


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"


def suggestion_lines(suggestions: Sequence[Suggestion], seeds: Mapping[str, Sequence[int]]) -> list[str]:
    """Recipes by what one more run of each may fix in an hour, and what to type for the first."""
    lines = [f"{'recipe':<20} {'rescues':>8} {'seconds':>8} {'rows/hour':>10}"]
    for one in suggestions:
        rescued = f"{one.rescued:.1%}" if one.rescued is not None else "unknown"
        seconds = f"{one.seconds:.0f}" if one.seconds is not None else "unknown"
        hourly = f"{one.rescued_per_hour:.1f}" if one.rescued_per_hour is not None else "unknown"
        lines.append(f"{one.recipe:<20} {rescued:>8} {seconds:>8} {hourly:>10}")
    first = suggestions[0]
    what = f"seeds = {[*seeds[first.recipe], max(seeds[first.recipe]) + 1]} in {first.recipe}.toml"
    if first.rescued_per_hour is None and first.seconds is None:
        what = f"make {first.recipe}: it was never trained"
    return [
        *lines,
        "rescues: of the rows that the other recipes' vote has wrong, the share that its runs have right",
        f"next: {what}",
    ]
