"""From the predictions in `oof/` to a checked CSV and the JSON that says what made it."""

import json
import math
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium import __version__
from podium.config.keys import changed_ensemble
from podium.ensemble.blend import pool_of
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.ensemble.contribution import Suggestion, suggest
from podium.errors import SubmissionError
from podium.files import atomic_write
from podium.plan.names import NAME
from podium.plan.stamp import ensemble_stamp, file_sha256
from podium.predictions.load import groups_of, load_runs, prediction_files
from podium.submission import check_submission, write_submission
from podium.workspace import Workspace


@dataclass(frozen=True, eq=False)
class WrittenEnsemble:
    """An ensemble and the files that hold it."""

    result: EnsembleResult
    csv_file: Path
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

    `strategy` and `threshold` stand for those of competition.toml; a strategy that is named here is judged alone,
    beside the best run and the uniform blend. Runs that were `rehearsed` have some of the validation rows. The same
    predictions, settings and lock give the same bytes. Raises SubmissionError where there are no predictions,
    PredictionsError where they are damaged or belong to other data than `data.lock`, ConfigError for settings that
    are none.
    """
    if not NAME.fullmatch(out):
        expected = "letters, digits, and _ . + - between them, such as try2"
        raise SubmissionError("That cannot be the name of a submission.", expected=expected, found=out)
    competition = workspace.competition
    asked = {name: one for name, one in (("strategy", strategy), ("threshold", threshold)) if one is not None}
    settings = changed_ensemble(competition.ensemble, asked)
    files = prediction_files(workspace.paths)
    # Hashed before they are read: a file that changes meanwhile leaves an ensemble that counts as stale.
    made_of = {
        "stamp": ensemble_stamp(workspace.paths, competition, settings),
        "inputs": {file.stem: file_sha256(file) for file in files},
    }
    aligned = load_runs(workspace, rehearsed=rehearsed)
    groups = groups_of(workspace.lock, aligned)
    result = build_ensemble(
        aligned, settings, metric=competition.metric, groups=groups, only=strategy not in (None, "auto")
    )
    folder = workspace.paths.submissions
    written = WrittenEnsemble(result, folder / f"{out}.csv", folder / f"{out}.json")
    _write_csv(written, workspace)
    told = {"competition": workspace.name, **made_of, **describe(result)}
    told["csv_sha256"] = file_sha256(written.csv_file)
    with atomic_write(written.json_file) as stream:
        stream.write((json.dumps(_rounded(told), indent=2) + "\n").encode())
    return written


def suggest_run(workspace: Workspace) -> tuple[Suggestion, ...]:
    """Which recipe deserves one more run; raises PredictionsError."""
    aligned = load_runs(workspace)
    pool = pool_of(aligned, workspace.competition.ensemble)
    recipe_of = {run: about.get("recipe_name", "") for run, about in zip(aligned.runs, aligned.abouts, strict=True)}
    seconds = {
        run: about["seconds"] for run, about in zip(aligned.runs, aligned.abouts, strict=True) if "seconds" in about
    }
    return suggest(pool, recipe_of, seconds, list(workspace.recipes))


def describe(result: EnsembleResult) -> dict[str, Any]:
    """What the JSON says of an ensemble: settings, runs with weights and reasons, scores, versions."""
    blend = result.blend
    return {
        "settings": asdict(result.settings),
        "metric": result.metric,
        "strategy": {"asked": result.settings.strategy, "used": blend.strategy, "average": blend.average},
        "runs": [asdict(run) for run in result.runs],
        "biases": None if blend.biases is None else dict(zip(result.classes, blend.biases.tolist(), strict=True)),
        "temperature": blend.temperature,
        "honest_score": {**asdict(result.honest), "scored": "cross-fitted on the validation rows"},
        "in_sample": {"scores": result.taken.in_sample, "optimism": result.taken.optimism(result.metric)},
        "validation_rows": result.validation_rows,
        "comparisons": [asdict(one) for one in result.comparisons],
        "calibration": result.calibration,
        "strategies": [asdict(one) for one in result.strategies],
        "contributions": [asdict(one) for one in result.contributions],
        "error_correlation": result.error_correlation.tolist(),
        "disagreement": result.disagreement.tolist(),
        "best_single_run": {"run": result.best.run, "scores": result.best.scores},
        "not_seen_by_the_score": list(result.caveats),
        "versions": {"podium": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def _rounded(told: Any) -> Any:
    """Numbers with eight decimals, which is more than they mean; what is undefined is null."""
    if isinstance(told, dict):
        return {name: _rounded(one) for name, one in told.items()}
    if isinstance(told, list | tuple):
        return [_rounded(one) for one in told]
    if isinstance(told, float):
        return round(told, 8) if math.isfinite(told) else None
    return told


def _write_csv(written: WrittenEnsemble, workspace: Workspace) -> None:
    """Write the CSV in the lock's row order and hold it against the competition."""
    result, lock, settings = written.result, workspace.lock, workspace.competition.submission
    ids = lock.test_ids.tolist()
    place = {one: row for row, one in enumerate(result.test_ids.tolist())}
    probabilities = result.test_probabilities[[place[one] for one in ids]]
    with atomic_write(written.csv_file.with_suffix(".probabilities.npz")) as stream:
        arrays = {"ids": lock.test_ids, "probabilities": probabilities.astype(np.float32)}
        np.savez_compressed(stream, **arrays, classes=np.array(result.classes))
    write_submission(
        written.csv_file,
        ids,
        probabilities=probabilities,
        classes=result.classes,
        settings=settings,
    )
    faults = check_submission(written.csv_file, lock=lock, settings=settings)
    assert not faults, faults
