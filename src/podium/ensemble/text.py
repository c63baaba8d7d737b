"""An ensemble and suggestions as lines of text, at most 100 columns wide; the command line prints them."""

from collections.abc import Mapping, Sequence
from textwrap import wrap

from podium.ensemble.build import EnsembleResult, compares_all_strategies
from podium.ensemble.compare import Comparison
from podium.ensemble.contribution import Suggestion
from podium.ensemble.strategies.table import ONE_AVERAGE
from podium.ensemble.write import WrittenEnsemble
from podium.metrics import METRICS
from podium.predictions.load import PoolSize


def cost_lines(size: PoolSize) -> list[str]:
    """What blending many logits costs, for before it begins; no lines where all strategies are compared."""
    if compares_all_strategies(size.runs, size.rows, size.classes):
        return []
    return [
        f"{size.runs:,} runs x {size.rows:,} validation rows x {size.classes:,} classes: at most "
        f"{size.memory_bytes / 1e9:.1f} GB of memory, and minutes.",
        "Not all strategies are compared: greedy and stack only if one is requested, as by STRATEGY=greedy.",
    ]


def ensemble_lines(written: WrittenEnsemble, *, stale: set[str]) -> list[str]:
    """The runs, the strategies, the cross-fitted score and its limits."""
    result = written.result
    return [
        "",
        *_run_lines(result, stale),
        "",
        *_strategy_lines(result),
        "",
        *_score_lines(result),
        *(line for warning in result.warnings for line in wrap(f"WARNING: {warning}", 100, subsequent_indent="  ")),
        "limits of this score:",
        *(f"  - {caveat}" for caveat in result.caveats),
        f"wrote {written.csv_file} and {written.json_file.name}"
        if written.csv_file
        else f'wrote {written.json_file}, and no submission: there are no test images ([data] test = "")',
    ]


def _run_lines(result: EnsembleResult, stale: set[str]) -> list[str]:
    width = max(len(run.run) for run in result.runs)
    metric, (factor, digits) = result.metric, (100, 2) if result.metric == "accuracy" else (1, 4)
    scores = max(8, len(metric))
    numbers = f"{metric:>8} {'weight':>7} {'temp.':>5} {'gain':>6} {'error corr.':>11}"
    lines = [f"{'run':<{width}} {numbers}  verdict; why (not) a member"]
    contributions = {contribution.run: contribution for contribution in result.contributions}
    for run in sorted(result.runs, key=lambda run: (-run.weight, -METRICS[metric].gain(run.scores[metric]), run.run)):
        contribution = contributions[run.run]
        weight = f"{run.weight:.4f}" if run.weight else "-"
        gain = f"{contribution.loss * factor:+.{digits}f}" if contribution.loss is not None else "-"
        lines.append(
            f"{run.run:<{width}} {run.scores[metric]:{scores}.4f} {weight:>7} {run.temperature:5.2f} {gain:>6} "
            f"{contribution.error_correlation:11.2f}  {contribution.verdict.split(':')[0]}; {run.reason}"
        )
    unit = "points" if factor == 100 else metric
    lines.append(f"gain: {unit} that the blend gains by this run; error corr.: of its errors with those of other runs")
    if stale_runs := [run.run for run in result.runs if run.run in stale]:
        lines.append(f"STALE, because the recipe or the data changed: {', '.join(stale_runs)}")
    return lines


def _strategy_lines(result: EnsembleResult) -> list[str]:
    metric, second = result.metric, result.blend.target.scores[1]
    first = max(11, len(metric))
    numbers = f"{metric:>11} {second.replace('_', ' '):>9} {'in sample':>10} {'optimism':>9}"
    title = f"cross-fitted on {result.validation_rows:,} validation rows:"
    lines = [title, f"{'strategy':<11} {'average':<14} {numbers}"]
    for score in result.strategies:
        average = "-" if score.strategy in ONE_AVERAGE else score.average
        in_sample, optimism = score.in_sample[metric], score.optimism(metric)
        mark = "  <- used" if score is result.used else ""
        lines.append(
            f"{score.strategy:<11} {average:<14} {score.cross_fitted[metric]:{first}.4f} "
            f"{score.cross_fitted[second]:9.4f} {in_sample:10.4f} {optimism:+9.4f}{mark}"
        )
    return lines


def _score_lines(result: EnsembleResult) -> list[str]:
    score, used, metric = result.score, result.used, result.metric
    low, high = score.interval
    chosen = " (chosen by auto)" if result.settings.strategy == "auto" else ""
    lines = [
        f"{used.strategy}{chosen}: {metric} {score.score:.4f}, cross-fitted; 95 % interval {low:.4f} to {high:.4f}",
    ]
    if score.test_interval:
        interval = "{:.4f} to {:.4f}".format(*score.test_interval)
        lines.append(f"  on a test of {len(result.test_ids):,} rows: {interval}")
    lines.append(f"  in sample {used.in_sample[metric]:.4f}, too good by {used.optimism(metric):+.4f}")
    if score.corrected_for_choosing:
        lines.append(f"  corrected by {-score.corrected_for_choosing:+.4f} for choosing the strategy on these rows")
    for comparison in result.comparisons:
        lines += _comparison_lines(comparison, result)
    if not result.calibration:
        return lines
    before, after = result.calibration["before"], result.calibration["after"]
    names = {"log_loss": "log loss", "brier": "Brier", "calibration_error": "calibration error"}
    changes = ", ".join(f"{words} {before[name]:.4f} -> {after[name]:.4f}" for name, words in names.items())
    return [*lines, f"  temperature {result.blend.temperature:.2f}:", f"    {changes}"]


def _comparison_lines(comparison: Comparison, result: EnsembleResult) -> list[str]:
    name = comparison.against
    other = {"best": f"the best single run ({result.best.run})", "uniform": "the uniform blend"}.get(name, name)
    low, high = comparison.interval
    verdict = "no difference beyond noise"
    if comparison.real:
        verdict = "the gain is real" if comparison.gain > 0 else f"the loss is real; try STRATEGY={name}"
    factor, unit = (100, " points") if result.metric == "accuracy" else (1, "")
    p = f"= {comparison.p:.3f}" if comparison.p >= 0.001 else "< 0.001"
    return [
        f"  compared with {other}: {comparison.gain * factor:+.2f}{unit}: {verdict}",
        f"    95 % interval {low * factor:+.2f} to {high * factor:+.2f}; "
        f"{comparison.won} {comparison.counted} won, {comparison.lost} lost, McNemar p {p}",
    ]


def suggestion_lines(suggestions: Sequence[Suggestion], seeds: Mapping[str, Sequence[int]]) -> list[str]:
    """A table of recipes, sorted by how many errors one more run may fix per hour, and the next step."""
    lines = [f"{'recipe':<20} {'fixes':>8} {'seconds':>8} {'fixed/hour':>10}"]
    for suggestion in suggestions:
        fixed = _number(suggestion.fixed, ".1%")
        seconds, per_hour = _number(suggestion.seconds, ".0f"), _number(suggestion.fixed_per_hour, ".1f")
        lines.append(f"{suggestion.recipe:<20} {fixed:>8} {seconds:>8} {per_hour:>10}")
    lines.append("fixes: of the rows that the other recipes' vote gets wrong, the share that its runs get right")
    recipe = suggestions[0].recipe
    if suggestions[0].seconds is None:
        return [*lines, f"next: make {recipe}, which was never trained"]
    needed = "" if suggestions[0].member else ', and [ensemble] select = "all": the rule takes no more of its runs'
    return [*lines, f"next: seeds = {[*seeds[recipe], max(seeds[recipe]) + 1]} in {recipe}.toml{needed}"]


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
