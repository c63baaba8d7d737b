"""From the predictions in `oof/` to a checked CSV and the JSON that says what made it."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium import __version__
from podium.config import Competition, changed_ensemble, read_competition
from podium.data.lock import Lock, read_lock
from podium.ensemble.blend import pool_of
from podium.ensemble.build import EnsembleResult, build_ensemble
from podium.ensemble.contribution import Suggestion, suggest
from podium.ensemble.cross_fit import side_by_side
from podium.errors import PredictionsError, SubmissionError
from podium.files import atomic_write
from podium.plan import NAME
from podium.predictions import Aligned, align, examples, load_predictions
from podium.project import Project
from podium.stamp import ensemble_stamp, file_sha256
from podium.submission import check_submission, write_submission


@dataclass(frozen=True, eq=False)
class WrittenEnsemble:
    """An ensemble and the files that hold it."""

    result: EnsembleResult
    csv_file: Path
    json_file: Path


def write_ensemble(
    project: Project,
    competition_name: str,
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
    competition = read_competition(project.competition_folder(competition_name))
    asked = {name: one for name, one in (("strategy", strategy), ("threshold", threshold)) if one is not None}
    settings = changed_ensemble(competition.ensemble, asked)
    files = _prediction_files(project, competition_name)
    # Hashed before they are read: a file that changes meanwhile leaves an ensemble that counts as stale.
    made_of = {
        "stamp": ensemble_stamp(project, competition_name, settings),
        "inputs": {file.stem: file_sha256(file) for file in files},
    }
    aligned, lock = load_aligned(project, competition_name, rehearsed=rehearsed)
    groups = groups_of(lock, aligned)
    result = build_ensemble(
        aligned, settings, metric=competition.metric, groups=groups, only=strategy not in (None, "auto")
    )
    folder = project.submissions_folder(competition_name)
    written = WrittenEnsemble(result, folder / f"{out}.csv", folder / f"{out}.json")
    _write_csv(written, lock, competition)
    told = {"competition": competition_name, **made_of, **describe(result)}
    told["csv_sha256"] = file_sha256(written.csv_file)
    with atomic_write(written.json_file) as stream:
        stream.write((json.dumps(_rounded(told), indent=2) + "\n").encode())
    return written


def suggest_run(project: Project, competition_name: str, recipes: Sequence[str]) -> tuple[Suggestion, ...]:
    """Which of the recipes deserves one more run; raises PredictionsError."""
    competition = read_competition(project.competition_folder(competition_name))
    aligned, _ = load_aligned(project, competition_name)
    pool = pool_of(aligned, competition.ensemble)
    recipe_of = {run: about.get("recipe_name", "") for run, about in zip(aligned.runs, aligned.abouts, strict=True)}
    seconds = {
        run: about["seconds"] for run, about in zip(aligned.runs, aligned.abouts, strict=True) if "seconds" in about
    }
    return suggest(pool, recipe_of, seconds, recipes)


def load_aligned(project: Project, competition_name: str, *, rehearsed: bool = False) -> tuple[Aligned, Lock]:
    """All runs of a competition, joined and held against its lock; raises PredictionsError."""
    lock_file = project.lock_file(competition_name)
    lock = read_lock(lock_file)
    aligned = align(side_by_side(load_predictions, _prediction_files(project, competition_name)))
    refuse_other_data(aligned, lock, lock_file=lock_file, name=competition_name, rehearsed=rehearsed)
    return aligned, lock


def groups_of(lock: Lock, aligned: Aligned) -> np.ndarray | None:
    """The group of each joined validation row, (n,), where rows have groups."""
    return None if lock.groups is None else lock.groups[np.searchsorted(lock.train_ids, aligned.oof_ids)]


def _prediction_files(project: Project, competition_name: str) -> list[Path]:
    folder = project.predictions_folder(competition_name)
    if files := sorted(folder.glob("*.npz")):
        return files
    mend = f"make train COMPETITION={competition_name}"
    raise SubmissionError("There are no predictions to blend.", file=folder, mend=mend)


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


def _write_csv(written: WrittenEnsemble, lock: Lock, competition: Competition) -> None:
    """Write the CSV in the lock's row order and hold it against the competition."""
    result = written.result
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
        settings=competition.submission,
    )
    faults = check_submission(written.csv_file, lock=lock, settings=competition.submission)
    assert not faults, faults


def refuse_other_data(aligned: Aligned, lock: Lock, *, lock_file: Path, name: str, rehearsed: bool = False) -> None:
    """Raise PredictionsError where all runs agree with each other but not with the lock."""
    held_out = lock.folds >= 0
    judged = dict(zip(lock.train_ids[held_out].tolist(), lock.train_labels[held_out].tolist(), strict=True))
    found = dict(zip(aligned.oof_ids.tolist(), aligned.oof_labels.tolist(), strict=True))
    other_labels = [one for one in judged.keys() & found.keys() if judged[one] != found[one]]
    faults = []
    for key, expected in (("fingerprint", lock.fingerprint), ("fold_sha256", lock.fold_sha256)):
        if aligned.abouts[0][key] != expected:
            faults.append(f"{key} {aligned.abouts[0][key][:12]} instead of {expected[:12]}")
    if aligned.classes != tuple(lock.classes):
        faults.append(f"classes {examples(aligned.classes)} instead of {examples(lock.classes)}")
    if other_labels:
        faults.append(f"other labels in {len(other_labels)} rows ({examples(sorted(other_labels))})")
    for part, ids, expected in (
        ("validation", found.keys(), found.keys() & judged.keys() if rehearsed else judged.keys()),
        ("test", set(aligned.test_ids.tolist()), set(lock.test_ids.tolist())),
    ):
        for words, some in (("lack", expected - ids), ("have other", ids - expected)):
            if some:
                faults.append(f"{words} {part} ids: {len(some)} ({examples(sorted(some))})")
    if faults:
        raise PredictionsError(
            "The predictions belong to other data than the competition's lock.",
            file=lock_file,
            mend=f"move oof/{name}/ away and make train COMPETITION={name}, or bring {lock_file} back",
            faults=faults,
        )
