"""From the predictions in `oof/` to a checked CSV and the JSON that says what made it."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from podium import __version__
from podium.config import Competition, read_competition
from podium.data.lock import Lock, read_lock
from podium.ensemble.blend import EnsembleResult, build_ensemble
from podium.errors import PredictionsError, SubmissionError
from podium.files import atomic_write
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


def write_ensemble(project: Project, competition_name: str, *, out: str = "ensemble") -> WrittenEnsemble:
    """Blend all runs of a competition into `submissions/<competition>/<out>.csv` and `<out>.json`.

    The same predictions, settings and lock give the same bytes. Raises SubmissionError where there are no
    predictions, PredictionsError where they are damaged or belong to other data than `data.lock`.
    """
    if not out or Path(out).name != out:
        raise SubmissionError("A submission's name is no path.", expected="such as OUT=try2", found=out)
    competition = read_competition(project.competition_folder(competition_name))
    files = sorted(project.predictions_folder(competition_name).glob("*.npz"))
    if not files:
        raise SubmissionError(
            "There are no predictions to blend.",
            file=project.predictions_folder(competition_name),
            mend=f"make train COMPETITION={competition_name}",
        )
    # Hashed before they are read: a file that changes meanwhile leaves an ensemble that counts as stale.
    made_of = {
        "stamp": ensemble_stamp(project, competition_name),
        "inputs": {file.stem: file_sha256(file) for file in files},
    }
    lock_file = project.lock_file(competition_name)
    lock = read_lock(lock_file)
    aligned = align([load_predictions(file) for file in files])
    _refuse_other_data(aligned, lock, lock_file=lock_file, competition_name=competition_name)
    result = build_ensemble(aligned, competition.ensemble, metric=competition.metric)

    folder = project.submissions_folder(competition_name)
    written = WrittenEnsemble(result, folder / f"{out}.csv", folder / f"{out}.json")
    _write_csv(written, lock, competition)
    told = {"competition": competition_name, **made_of, **describe(result, competition)}
    told["csv_sha256"] = file_sha256(written.csv_file)
    with atomic_write(written.json_file) as stream:
        stream.write((json.dumps(told, indent=2) + "\n").encode())
    return written


def describe(result: EnsembleResult, competition: Competition) -> dict[str, Any]:
    """What the JSON says of an ensemble: settings, runs with weights and reasons, scores, versions."""
    return {
        "settings": asdict(competition.ensemble),
        "metric": result.metric,
        "runs": [asdict(run) for run in result.runs],
        "blend": {
            "scores": result.in_sample_scores,
            "scored": "in sample: members and weights were chosen on these validation rows",
            "validation_rows": result.validation_rows,
        },
        "best_single_run": {"run": result.best.run, "scores": result.best.scores},
        "versions": {"podium": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def _write_csv(written: WrittenEnsemble, lock: Lock, competition: Competition) -> None:
    """Write the CSV in the lock's row order and hold it against the competition."""
    result = written.result
    ids = lock.test_ids.tolist()
    place = {one: row for row, one in enumerate(result.test_ids.tolist())}
    write_submission(
        written.csv_file,
        ids,
        probabilities=result.test_probabilities[[place[one] for one in ids]],
        classes=result.classes,
        settings=competition.submission,
    )
    faults = check_submission(written.csv_file, lock=lock, settings=competition.submission)
    assert not faults, faults


def _refuse_other_data(aligned: Aligned, lock: Lock, *, lock_file: Path, competition_name: str) -> None:
    """Raise PredictionsError where all runs agree with each other but not with the lock."""
    held_out = lock.folds >= 0
    judged = dict(zip(lock.train_ids[held_out].tolist(), lock.train_labels[held_out].tolist(), strict=True))
    found = dict(zip(aligned.oof_ids.tolist(), aligned.oof_labels.tolist(), strict=True))
    other_labels = [one for one in judged.keys() & found.keys() if judged[one] != found[one]]
    faults = []
    for name, expected in (("fingerprint", lock.fingerprint), ("fold_sha256", lock.fold_sha256)):
        if aligned.abouts[0][name] != expected:
            faults.append(f"{name} {aligned.abouts[0][name][:12]} instead of {expected[:12]}")
    if aligned.classes != tuple(lock.classes):
        faults.append(f"classes {examples(aligned.classes)} instead of {examples(lock.classes)}")
    if other_labels:
        faults.append(f"other labels in {len(other_labels)} rows ({examples(sorted(other_labels))})")
    for part, ids, expected in (
        ("validation", found.keys(), judged.keys()),
        ("test", set(aligned.test_ids.tolist()), set(lock.test_ids.tolist())),
    ):
        for words, some in (("lack", expected - ids), ("have other", ids - expected)):
            if some:
                faults.append(f"{words} {part} ids: {len(some)} ({examples(sorted(some))})")
    if faults:
        raise PredictionsError(
            "The predictions belong to other data than the competition's lock.",
            file=lock_file,
            mend=f"make train COMPETITION={competition_name}",
            faults=faults,
        )
