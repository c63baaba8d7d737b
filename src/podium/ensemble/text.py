"""An ensemble and suggestions as lines of text, at most 100 columns wide; the command line prints them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap

from podium.ensemble.build import EnsembleResult, compares_all_strategies
from podium.ensemble.compare import Comparison
from podium.ensemble.contribution import Suggestion
from podium.ensemble.strategies.table import ONE_AVERAGE
from podium.ensemble.write import WrittenEnsemble
from podium.predictions.align import PoolSize
from podium.text import record_lines, table_lines


def cost_lines(size: PoolSize) -> list[str]:
    """What blending many logits costs, for before it begins; no lines where all strategies are compared."""
    if compares_all_strategies(size.runs, size.rows, size.values):
        return []
    return [
        f"{size.runs:,} runs x {size.rows:,} validation rows x {size.values:,} classes: at most "
        f"{size.memory_bytes / 1e9:.1f} GB of memory, and minutes.",
        "Not all strategies are compared: greedy and stack only if one is requested, as by STRATEGY=greedy.",
    ]


def ensemble_lines(written: WrittenEnsemble, *, stale: set[str]) -> list[str]:
    """The runs, the strategies, the cross-fitted score and its limits."""
    result = written.result
    file = f"{written.csv_file} and {written.json_file.name}"
    if not written.csv_file:
        file = f'{written.json_file}, and no submission: there are no test images ([data] test = "")'
    return [
        "",
        *_run_lines(result, stale),
        "",
        *_strategy_lines(result),
        *_score_lines(result),
        *(line for warning in result.warnings for line in wrap(f"WARNING: {warning}", 100, subsequent_indent="  ")),
        "limits of this score:",
        *(f"  - {caveat}" for caveat in result.caveats),
        "",
        _first_score_line(result),
        "next: make report, a page with the mistakes and what each run adds",
        f"wrote {file}",
    ]


def _difference(gain: float, metric: str) -> str:
    """A difference of the metric, of an accuracy in points."""
    return f"{gain * 100:+z.2f}" if metric == "accuracy" else f"{gain:+z.4f}"


def _run_lines(result: EnsembleResult, stale: set[str]) -> list[str]:
    metric, gain_of = result.pool.metric, result.pool.measure.gain
    pairs = zip(result.runs, result.contributions, strict=True)
    rows = [("run", metric, "weight", "temp.", "gain", "error corr.", " verdict; why (not) a member")]
    for run, contribution in sorted(pairs, key=lambda pair: (-pair[0].weight, -gain_of(pair[0].scores[metric]))):
        weight = f"{run.weight:.4f}" if run.weight else "-"
        gain = "-" if contribution.loss is None else _difference(contribution.loss, metric)
        numbers = (f"{run.scores[metric]:.4f}", weight, f"{run.temperature:.2f}", gain)
        verdict = f" {contribution.verdict.split(':')[0]}; {run.reason}"
        rows.append((run.run, *numbers, f"{contribution.error_correlation:.2f}", verdict))
    unit = "points" if metric == "accuracy" else metric
    stale_runs = [run.run for run in result.runs if run.run in stale]
    return [
        *table_lines(rows, "<>>>>><"),
        f"gain: {unit} that the blend gains by this run; error corr.: of its errors with those of other runs",
        *([f"STALE, because the recipe or the data changed: {', '.join(stale_runs)}"] if stale_runs else []),
    ]


def _strategy_lines(result: EnsembleResult) -> list[str]:
    metric, second = result.pool.metric, result.pool.target.scores[1]
    rows = [("strategy", "average", metric, second.replace("_", " "), "in sample", "optimism", "")]
    for score in result.strategies:
        average = "-" if score.strategy in ONE_AVERAGE else score.average
        numbers = (score.cross_fitted[metric], score.cross_fitted[second], score.in_sample[metric])
        optimism, mark = f"{score.optimism(metric):+z.4f}", " <- used" if score is result.used else ""
        rows.append((score.strategy, average, *(f"{number:.4f}" for number in numbers), optimism, mark))
    lines = [f"cross-fitted on {len(result.aligned.oof_ids):,} validation rows:"]
    # One run is the blend of every strategy.
    return [*lines, *table_lines(rows, "<<>>>><"), ""] if len(result.runs) > 1 else lines


def _score_lines(result: EnsembleResult) -> list[str]:
    score, used, metric = result.score, result.used, result.pool.metric
    lines = [_first_score_line(result)]
    if score.test_interval:
        interval = "{:.4f} to {:.4f}".format(*score.test_interval)
        lines.append(f"  on a test of {len(result.aligned.test_ids):,} rows: {interval}")
    lines.append(f"  in sample {used.in_sample[metric]:.4f}, too good by {used.optimism(metric):+z.4f}")
    if score.corrected_for_choosing:
        lines.append(f"  corrected by {-score.corrected_for_choosing:+z.4f} for choosing the strategy on these rows")
    for comparison in result.comparisons if len(result.runs) > 1 else ():
        lines += _comparison_lines(comparison, result)
    if result.calibration:
        before, after = result.calibration["before"], result.calibration["after"]
        names = {"log_loss": "log loss", "brier": "Brier", "calibration_error": "calibration error"}
        changes = ", ".join(f"{words} {before[name]:.4f} -> {after[name]:.4f}" for name, words in names.items())
        lines += [f"  temperature {result.blend.temperature:.2f}:", f"    {changes}"]
    return lines


def _first_score_line(result: EnsembleResult) -> str:
    score, (low, high) = result.score, result.score.interval
    chosen = " (chosen by auto)" if result.pool.settings.strategy == "auto" else ""
    numbers = f"{result.pool.metric} {score.score:.4f}, cross-fitted; 95 % interval {low:.4f} to {high:.4f}"
    return f"{result.used.strategy}{chosen}: {numbers}"


def _comparison_lines(comparison: Comparison, result: EnsembleResult) -> list[str]:
    name = comparison.against
    other = {"best": f"the best single run ({result.best.run})", "uniform": "the uniform blend"}.get(name, name)
    verdict = "no difference beyond noise"
    if comparison.real:
        verdict = "the gain is real" if comparison.gain > 0 else f"the loss is real; try STRATEGY={name}"
    metric = result.pool.metric
    gain, low, high = (_difference(value, metric) for value in (comparison.gain, *comparison.interval))
    p = f"= {comparison.p:.3f}" if comparison.p >= 0.001 else "< 0.001"
    return [
        f"  compared with {other}: {gain}{' points' if metric == 'accuracy' else ''}: {verdict}",
        f"    95 % interval {low} to {high}; "
        f"{comparison.won} {comparison.counted} won, {comparison.lost} lost, McNemar p {p}",
    ]


def suggestion_lines(suggestions: Sequence[Suggestion], seeds: Mapping[str, Sequence[int]]) -> list[str]:
    """A table of recipes, sorted by how many errors one more run may fix per hour, and the next step."""
    formats = {"recipe": "", "fixed": ".1%", "seconds": ".0f", "fixed_per_hour": ".1f"}
    lines = record_lines([asdict(suggestion) for suggestion in suggestions], formats)
    lines.append("fixed: of the rows that the other recipes' vote gets wrong, the share that its runs get right")
    recipe = suggestions[0].recipe
    if suggestions[0].seconds is None:
        return [*lines, f"next: make {recipe}, which was never trained"]
    needed = "" if suggestions[0].member else ', and [ensemble] select = "all": the rule takes no more of its runs'
    return [*lines, f"next: seeds = {[*seeds[recipe], max(seeds[recipe]) + 1]} in {recipe}.toml{needed}"]
