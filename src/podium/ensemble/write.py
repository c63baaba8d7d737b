"""From the predictions in `oof/` to a checked CSV and the JSON that records how it was made, and the blend in it."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium import __version__
from podium.config.competition import NO_THRESHOLD, strategy_fault
from podium.config.keys import Ensemble
from podium.config.schema import build
from podium.ensemble.blend import Blend
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.ensemble.contribution import Suggestion, suggest
from podium.ensemble.pool import pool_of
from podium.errors import ConfigError, SubmissionError
from podium.files import atomic_write, file_lock, read_json, write_file
from podium.metrics import METRICS
from podium.plan import stamp
from podium.plan.runs import CHARACTERS, NAME
from podium.predictions.align import load_runs
from podium.submission import check_submission, submission_text
from podium.targets.target import Target
from podium.workspace import Workspace

# The JSON has the pairs of no more runs: of 1,000 runs, they would be two million lines.
MOST_RUNS_IN_PAIRS = 200


@dataclass(frozen=True, eq=False)
class WrittenEnsemble:
    """An ensemble and its files."""

    result: EnsembleResult
    csv_file: Path | None  # None: there are no test images
    json_file: Path


def write_ensemble(
    workspace: Workspace,
    *,
    out: str = "ensemble",
    strategy: str | None = None,
    threshold: float | None = None,
    rehearsed: bool = False,
) -> WrittenEnsemble:
    """Blend all runs of a competition into `submissions/<competition>/<out>.csv`, `.probabilities.npz`, `.json`.

    `strategy` and `threshold` override competition.toml; a strategy given here is scored only beside the best run and
    the uniform blend. Runs that were `rehearsed` have some of the validation rows. The same predictions, settings and
    lock give the same bytes. Raises SubmissionError if there are no predictions, PredictionsError if they are damaged
    or belong to other data than `data.lock`, ConfigError for invalid settings.
    """
    if not NAME.fullmatch(out):
        what = "This cannot be the name of a submission."
        raise SubmissionError(what, expected=CHARACTERS, found=out, fix="OUT=try2")
    competition, files = workspace.competition, workspace.paths.submissions / out
    given = {"strategy": strategy, "threshold": threshold}
    settings = overridden(workspace, **given)
    # Hashed before they are read: if a file changes meanwhile, the ensemble counts as stale.
    record = {
        "competition": workspace.name,
        "stamp": stamp.ensemble_stamp(workspace.paths, competition, settings),
        "lock_sha256": stamp.lock_sha256(workspace.paths.lock_file),
        "inputs": stamp.input_hashes(workspace.paths),
        "overridden": {name: value for name, value in given.items() if value is not None},
        "settings": asdict(settings),
    }
    aligned = load_runs(workspace, rehearsed=rehearsed)
    result = build_ensemble(aligned, settings, metric=competition.metric, only=strategy not in (None, "auto"))
    if strategy is None and not rehearsed:
        _check_against_best(result, workspace)
    csv_file = files.with_name(f"{out}.csv") if len(aligned.test_ids) else None
    written = WrittenEnsemble(result, csv_file, files.with_name(f"{out}.json"))
    with file_lock(files.with_name(f".{out}.lock")):  # the files of another command are not mixed with these
        if csv_file:
            _write_csv(result, csv_file, workspace)
        record = stamp.with_hashes(_rounded(record | _describe(result)), files)
        write_file(written.json_file, (json.dumps(record, indent=2) + "\n").encode())
    return written


def overridden(workspace: Workspace, *, strategy: str | None = None, threshold: float | None = None) -> Ensemble:
    """The competition's settings with another strategy, threshold or both; raises ConfigError."""
    if threshold is not None and not METRICS[workspace.competition.metric].greater_is_better:
        raise ConfigError(NO_THRESHOLD, fix="leave out THRESHOLD=", found=f"{threshold:g}")
    settings, faults = asdict(workspace.competition.ensemble), []
    settings |= {} if strategy is None else {"strategy": strategy}
    settings |= {} if threshold is None else {"threshold": threshold, "select": "rule"}
    changed = build(Ensemble, settings, "", faults)
    faults += filter(None, [strategy_fault(workspace.competition, strategy or "auto")])
    if faults:
        raise ConfigError("Wrong ensemble settings.", faults=faults, fix="correct STRATEGY= or THRESHOLD=")
    return changed


def _check_against_best(result: EnsembleResult, workspace: Workspace) -> None:
    """Raise SubmissionError if the blend of a fixed strategy is worse than the best run beyond noise."""
    name, metric = result.pool.settings.strategy, result.pool.metric
    for row in result.comparisons:
        if row.against == "best" and row.real and row.gain < 0 and name != "auto":
            low, high = row.interval
            raise SubmissionError(
                "The blend is worse than the best run beyond noise, so it was not written.",
                file=workspace.paths.settings_file,
                expected=f"a strategy that is not worse than {result.best.run} alone",
                found=f'strategy = "{name}": gain in {metric} {row.gain:+.4f}, 95 % {low:+.4f} to {high:+.4f}',
                fix=f'strategy = "auto" under [ensemble]; to write this blend, make ensemble STRATEGY={name}',
            )


def suggest_run(workspace: Workspace) -> tuple[Suggestion, ...]:
    """Which recipe deserves one more run; raises PredictionsError, and ConfigError where there is no recipe."""
    recipes = list(dict.fromkeys(run.recipe_name for run in workspace.trainable_runs))
    competition = workspace.competition
    return suggest(pool_of(load_runs(workspace), competition.ensemble, metric=competition.metric), recipes)


def _describe(result: EnsembleResult) -> dict[str, Any]:
    """The blend in the JSON: runs with weights and reasons, scores, versions."""
    pool, blend, has_pairs = result.pool, result.blend, len(result.runs) <= MOST_RUNS_IN_PAIRS
    names = ("0", "1") if pool.target.has_columns else result.aligned.classes
    return {
        "metric": pool.metric,
        "strategy": {"asked": pool.settings.strategy, "used": blend.strategy, "average": blend.average},
        "runs": [asdict(run) for run in result.runs],
        "biases": None if blend.biases is None else dict(zip(names, blend.biases.tolist(), strict=True)),
        "temperature": blend.temperature,
        **({} if blend.cuts is None else {"cut_points": blend.cuts.tolist()}),
        "honest_score": {**asdict(result.score), "scored": "cross-fitted on the validation rows"},
        "in_sample": {"scores": result.used.in_sample, "optimism": result.used.optimism(pool.metric)},
        "validation_rows": len(result.aligned.oof_ids),
        "comparisons": [asdict(comparison) for comparison in result.comparisons],
        "calibration": result.calibration,
        "strategies": [asdict(score) for score in result.strategies],
        "contributions": [asdict(contribution) for contribution in result.contributions],
        "error_correlation": pool.error_correlation.tolist() if has_pairs else None,
        "disagreement": pool.disagreement.tolist() if has_pairs else None,
        "best_single_run": {"run": result.best.run, "scores": result.best.scores},
        "limits_of_the_score": [*result.warnings, *result.caveats],
        "versions": {"podium": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    """The record with numbers rounded to eight decimals; numbers that are not finite become null."""
    text = json.dumps(record)
    return json.loads(text, parse_float=lambda number: round(float(number), 8), parse_constant=lambda _: None)


def _write_csv(result: EnsembleResult, file: Path, workspace: Workspace) -> None:
    """Write the CSV and the probabilities, and check the CSV."""
    lock, settings, probabilities = workspace.lock, workspace.competition.submission, result.test_probabilities
    write_file(file, submission_text(probabilities, lock=lock, settings=settings).encode())
    classes = np.array(lock.classes)
    arrays = {"ids": lock.test_ids, "probabilities": probabilities.astype(np.float32), "classes": classes}
    with atomic_write(file.with_suffix(".probabilities.npz")) as stream:
        np.savez_compressed(stream, **arrays)
    faults = check_submission(file, lock=lock, settings=settings)
    assert not faults, faults


def read_blend(workspace: Workspace, out: str = "ensemble") -> tuple[tuple[str, ...], Blend]:
    """The names of the members in `submissions/<competition>/<out>.json`, and their blend.

    Its numbers have eight decimals. Raises SubmissionError where there is no such ensemble, its file was changed, or
    the predictions of a member have changed since. Predictions that are not here are not compared.
    """
    file, fix = workspace.paths.submissions / f"{out}.json", f"make ensemble COMPETITION={workspace.name}"
    record = read_json(file)
    if not isinstance(record, dict):
        raise SubmissionError("There is no ensemble here.", file=file, fix=fix)
    if record.get(stamp.CONTENT_KEY) != stamp.content_sha256(record):
        raise SubmissionError("The file of the ensemble was changed, or an older Podium wrote it.", file=file, fix=fix)
    members = [run for run in record["runs"] if run["weight"]]
    names = tuple(run["run"] for run in members)
    now = {name: stamp.file_sha256(workspace.paths.predictions_file(name)) for name in names}
    if changed := [name for name, sha256 in now.items() if sha256 not in ("", record["inputs"][name])]:
        found = f"other predictions of {', '.join(changed)}"
        raise SubmissionError("Runs were trained again after they were blended.", file=file, found=found, fix=fix)
    return names, _blend_of(record, members, workspace.lock.target)


def _blend_of(record: dict[str, Any], members: list[dict[str, Any]], target: Target) -> Blend:
    biases, cuts = record["biases"], record.get("cut_points")
    return Blend(
        strategy=record["strategy"]["used"],
        average=record["strategy"]["average"],
        temperatures=np.array([run["temperature"] for run in members]),
        weights=np.array([run["weight"] for run in members]),
        biases=None if biases is None else np.array(list(biases.values())),
        temperature=record["temperature"],
        target=target,
        cuts=None if cuts is None else np.array(cuts),
    )
