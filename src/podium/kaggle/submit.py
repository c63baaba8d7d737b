"""One submission, from the check of the CSV to its score: uploaded once, also if a command is killed on the way."""

import csv
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from podium.config.keys import Submission
from podium.errors import KaggleError, SubmissionError
from podium.files import atomic_write
from podium.kaggle.cli_messages import UploadError
from podium.kaggle.client import ListedSubmission
from podium.kaggle.ledger import LOST, PENDING, REFUSED, UPLOADING, Entry, find_submission, now, read_ledger, tag_of
from podium.kaggle.session import Session, settle, wait_for_score
from podium.lock import Lock
from podium.metrics import Z_95
from podium.plan.stamp import file_sha256
from podium.submission import check_submission

# Distance of the predicted class shares from the training labels' shares: a warning, a refusal.
UNUSUAL_SHARES = 0.10
WRONG_SHARES = 0.30
MAX_CLASSES_SHOWN = 4


@dataclass(frozen=True)
class CheckedFile:
    """A valid CSV: the user's file, the copy that is uploaded, and the JSON that records what made it."""

    file: Path
    copy: Path
    sha256: str
    description: dict

    def check_unchanged(self) -> None:
        """Raise SubmissionError if the user's file has changed since it was copied."""
        sha256 = file_sha256(self.file)
        if sha256 != self.sha256:
            raise SubmissionError(
                "The CSV changed after it was checked: nothing was uploaded.",
                file=self.file,
                expected=f"sha256 {self.sha256[:12]}",
                found=sha256[:12] or "no file",
                fix="wait until it is written, then repeat the command",
            )


def submit(session: Session, file: Path, message: str, *, force: bool = False) -> Entry:
    """Check a CSV, upload it, and wait for its score; returns the scored entry of the ledger.

    What an earlier command left open is settled first. The same bytes are not uploaded twice without `force`.
    Raises SubmissionError for a CSV that may not be submitted, and KaggleError where Kaggle fails, cannot score the
    submission, or has not scored it yet.
    """
    if not message.strip():
        raise SubmissionError("A submission needs a message.", fix="MESSAGE='what is new in it'")
    with session.locked(), tempfile.TemporaryDirectory() as folder:
        checked = _check(session, file, Path(folder), force=force)
        open_keys = {entry.key for entry in read_ledger(session.ledger) if entry.state in (UPLOADING, PENDING)}
        entries, submissions = settle(session)
        same = [entry for entry in entries if entry.sha256 == checked.sha256 and entry.is_at_kaggle]
        if same and same[-1].key in open_keys:
            session.log(f"{file} is at Kaggle as {same[-1].ref} already: waiting for its score, without an upload")
            return wait_for_score(session, same[-1])
        if not force:
            _refuse_duplicate(checked, same, submissions)
        _check_remaining(session)
        checked.check_unchanged()
        newest = max((submission.ref for submission in submissions), default=0)
        return wait_for_score(session, _upload(session, checked, message, after=newest))


def _check(session: Session, file: Path, folder: Path, *, force: bool) -> CheckedFile:
    """Copy a CSV into `folder` and check the copy, so that the checked bytes are uploaded."""
    name = session.workspace.name
    if not file.is_file():
        raise SubmissionError("There is no such file.", file=file, fix=f"make ensemble COMPETITION={name}")
    copy = _copy(file, folder / file.name)
    lock, settings = session.workspace.lock, session.workspace.competition.submission
    faults = check_submission(copy, lock=lock, settings=settings)
    if faults:
        raise SubmissionError(f"Not a submission of {name}: nothing was uploaded.", file=file, faults=faults)
    distance, differences = compare_shares(copy, lock=lock, settings=settings)
    if distance > WRONG_SHARES and not force:
        raise SubmissionError(
            "The predicted class shares differ from those of the training labels: nothing was uploaded.",
            file=file,
            expected=f"a distance of at most {WRONG_SHARES:.2f}; it is {distance:.2f} (0 to 1)",
            found=differences,
            fix="check the class names and their order; FORCE=1 submits the file as it is",
        )
    if distance > UNUSUAL_SHARES:
        session.log(f"unusual class shares: {differences}")
    sha256 = file_sha256(copy)
    return CheckedFile(file, copy, sha256, _read_description(file, sha256))


def compare_shares(file: Path, *, lock: Lock, settings: Submission) -> tuple[float, str]:
    """Compare a valid CSV's class shares with those of the training labels: a wrong order of classes shows here.

    Returns the total variation distance, 0 to 1, less what a sample of this size has by chance, and the classes that
    differ most: `cat 0.02 instead of 0.31`.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if settings.kind == "labels":
        counts = Counter(row[settings.label_column] for row in rows)
        predicted = np.array([counts[name] for name in lock.classes]) / len(rows)
    else:
        totals = np.array([sum(float(row[name]) for row in rows) for name in lock.classes])
        predicted = totals / totals.sum()
    trained = np.bincount(lock.train_labels, minlength=len(lock.classes)) / len(lock.train_labels)
    by_chance = float(np.sqrt(trained * (1 - trained) / len(rows)).sum())
    differences = np.abs(predicted - trained)
    order = np.argsort(-differences, kind="stable")[:MAX_CLASSES_SHOWN]
    shown = (f"{lock.classes[k]} {predicted[k]:.2f} instead of {trained[k]:.2f}" for k in order)
    return max(0.0, float(differences.sum()) / 2 - by_chance), ", ".join(shown)


def _refuse_duplicate(checked: CheckedFile, same: Sequence[Entry], submissions: Sequence[ListedSubmission]) -> None:
    refs = {entry.ref for entry in same}
    tag = tag_of(checked.sha256)
    found = [f"{entry.ref} of {entry.time}, public score {entry.public or 'unknown'}" for entry in same]
    found += [f"{row.ref} of {row.date}" for row in submissions if tag in row.message and str(row.ref) not in refs]
    if found:
        raise SubmissionError(
            "Kaggle has this file already: the same file gives the same score.",
            file=checked.file,
            found=f"submission {found[-1]}",
            fix="FORCE=1 submits it once more",
        )


def _check_remaining(session: Session) -> None:
    remaining = session.kaggle.remaining()
    if remaining == 0:
        fix = "repeat the command tomorrow: Kaggle counts days in UTC"
        raise KaggleError("No submission is left today.", expected="1 or more", found="0", fix=fix)
    unknown = "Kaggle does not report how many submissions are left"
    session.log(unknown if remaining is None else f"{remaining} submissions left today")


def _upload(session: Session, checked: CheckedFile, message: str, *, after: int) -> Entry:
    """Write the entry, upload the copy, and return the entry as Kaggle lists it; raises KaggleError."""
    kept = session.ledger.parent / "submitted" / checked.sha256[:12] / checked.file.name
    _copy(checked.copy, kept)
    honest = checked.description.get("honest_score") or {}
    entry = Entry(
        time=now(),
        state=UPLOADING,
        file=checked.file.name,
        sha256=checked.sha256,
        ensemble=_keep_description(session, checked, kept),
        cross_fitted=_cell(honest.get("score")),
        standard_error=_cell(_standard_error(honest.get("interval"))),
        after=str(after),
        message=message,
    )
    session.save(entry)
    session.log(f"uploading {checked.file} ({kept.stat().st_size:,} bytes)")
    error = None
    try:
        session.kaggle.submit(kept, f"{message} {entry.tag}")
    except UploadError as refusal:
        session.save(entry.changed(state=REFUSED, reason=refusal.found or refusal.what))
        raise
    except KaggleError as uncertain:
        error = uncertain
    return _find_uploaded(session, entry, error)


def _find_uploaded(session: Session, entry: Entry, error: KaggleError | None) -> Entry:
    """The entry with Kaggle's ref: only the list of submissions proves that one was made."""
    for pause in (*(session.patience.first_pause_seconds,) * 2, 0):
        try:
            listed = find_submission(entry, session.kaggle.submissions())
        except KaggleError as unreachable:
            raise KaggleError(
                "Kaggle stopped answering: it is not known whether the submission was made.",
                file=entry.file,
                found=(error or unreachable).found or (error or unreachable).what,
                fix=f"{session.later} looks for it; until then the same file is not uploaded again",
            ) from None
        if listed is not None:
            return session.save(session.update(entry, listed))
        time.sleep(pause)
    session.save(entry.changed(state=LOST, reason=error.what if error else "exit code 0, but no submission"))
    raise KaggleError(
        "The submission was not made: Kaggle does not list it.",
        file=entry.file,
        expected="a new row in kaggle competitions submissions",
        found=f"{error.what} {error.found or ''}".strip() if error else "the kaggle CLI reported success",
        fix="repeat the command: it looks for the submission before it uploads anything",
    )


def _copy(file: Path, target: Path) -> Path:
    try:
        with file.open("rb") as source, atomic_write(target) as stream:
            shutil.copyfileobj(source, stream)
    except OSError as error:
        fix = "free space, then repeat the command; nothing was uploaded"
        raise KaggleError("The CSV cannot be copied.", file=target, found=error.strerror, fix=fix) from None
    return target


def _read_description(file: Path, sha256: str) -> dict:
    """The JSON beside the CSV; empty where it describes another file."""
    try:
        description = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) and description.get("csv_sha256") == sha256 else {}


def _keep_description(session: Session, checked: CheckedFile, kept: Path) -> str:
    """Write the JSON beside the kept CSV; returns its path relative to the ledger."""
    if not checked.description:
        return ""
    file = checked.copy.with_suffix(".json")
    file.write_text(json.dumps(checked.description, indent=2) + "\n", encoding="utf-8")
    return str(_copy(file, kept.with_suffix(".json")).relative_to(session.ledger.parent))


def _standard_error(interval: object) -> float | None:
    if isinstance(interval, list) and len(interval) == 2 and all(isinstance(end, float | int) for end in interval):
        return (interval[1] - interval[0]) / (2 * Z_95)
    return None


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else ""
