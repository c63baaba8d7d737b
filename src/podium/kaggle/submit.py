"""One submission, from the check of the CSV to its score: uploaded once, also if a command is killed on the way."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from podium.config.keys import Submission
from podium.errors import KaggleError, SubmissionError
from podium.files import os_error_as, read_json, write_file
from podium.kaggle.answers import CommandError, RefusedError
from podium.kaggle.client import ListedSubmission
from podium.kaggle.ledger import LOST, PENDING, REFUSED, UPLOADING, Entry, read_ledger, score_text, tag_of
from podium.kaggle.session import Session, settle, settle_entry, wait_for_score
from podium.kaggle.waiting import now
from podium.lock import Lock
from podium.metrics import Z_95
from podium.submission import check_submission, read_probabilities

# Distance of the predicted class shares from the training labels' shares: a warning, a refusal.
UNUSUAL_SHARES = 0.10
WRONG_SHARES = 0.30
MAX_CLASSES_SHOWN = 4
UNREADABLE = "The CSV cannot be read: nothing was uploaded."


def submit(
    session: Session, file: Path, message: str, *, notebook: str = "", version: int = 0, force: bool = False
) -> Entry:
    """Check a CSV, upload it, and wait for its score; returns the scored entry of the ledger.

    What an earlier command left open is settled first. The same bytes are not uploaded twice without `force`. In a code
    competition, the version of the notebook that wrote the CSV is submitted, once too: the ledger has its name and the
    hash of the name, instead of the CSV's.
    Raises SubmissionError for a CSV that may not be submitted, and KaggleError where Kaggle fails, cannot score the
    submission, or has not scored it yet.
    """
    if not message.strip():
        raise SubmissionError("A submission needs a message.", fix="MESSAGE='what is new in it'")
    with session.ledger_lock():
        content = _check(session, file, force=force)
        name = f"{notebook} version {version}/{file.name}" if notebook else file.name
        sha256 = hashlib.sha256(name.encode() if notebook else content).hexdigest()
        open_keys = {entry.key for entry in read_ledger(session.ledger) if entry.state in (UPLOADING, PENDING)}
        entries, submissions = settle(session)
        same = [entry for entry in entries if entry.sha256 == sha256 and entry.state not in (REFUSED, LOST)]
        if same and same[-1].key in open_keys:
            session.log(f"{name} is at Kaggle as {same[-1].ref} already: waiting for its score, without an upload")
            return wait_for_score(session, same[-1])
        if not force:
            _refuse_duplicate(name, sha256, same, submissions)
        _check_remaining(session)
        newest = max((submission.ref for submission in submissions), default=0)
        entry = Entry(time=now(), state=UPLOADING, file=name, sha256=sha256, after=newest, message=message)
        send = partial(session.kaggle.submit, notebook=notebook, version=version)
        return wait_for_score(session, _upload(session, _write_entry(session, entry, file, content), send))


def _check(session: Session, file: Path, *, force: bool) -> bytes:
    """The content of a CSV that may be submitted; raises SubmissionError for another CSV."""
    name, lock, settings = session.workspace.name, session.workspace.lock, session.workspace.competition.submission
    if not file.is_file():
        raise SubmissionError("There is no such file.", file=file, fix=f"make ensemble COMPETITION={name}")
    with os_error_as(SubmissionError, UNREADABLE):
        content = file.read_bytes()
        faults = check_submission(file, lock=lock, settings=settings)
        if faults:
            raise SubmissionError(f"Not a submission of {name}: nothing was uploaded.", file=file, faults=faults)
        distance, differences = compare_shares(file, lock=lock, settings=settings)
        if file.read_bytes() != content:
            fix = "wait until it is written, then repeat the command"
            raise SubmissionError("The CSV changed during the check: nothing was uploaded.", file=file, fix=fix)
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
    return content


def compare_shares(file: Path, *, lock: Lock, settings: Submission) -> tuple[float, str]:
    """Compare a valid CSV's class shares with those of the training labels: a wrong order of classes shows here.

    Returns the total variation distance, 0 to 1, less what a sample of this size has by chance, and the classes that
    differ most: `cat 0.02 instead of 0.31`. A number has no classes, and no distance.
    """
    if not lock.target.has_classes:
        return 0.0, ""
    totals = read_probabilities(file, lock=lock, settings=settings).sum(axis=0)
    predicted = totals / (totals.sum() or 1)  # of several labels, there may be none
    trained = lock.target.shares(lock.train_labels)
    trained /= trained.sum()  # of all labels, where a row may have several
    by_chance = float(np.sqrt(trained * (1 - trained) / len(lock.test_ids)).sum())
    differences = np.abs(predicted - trained)
    order = np.argsort(-differences, kind="stable")[:MAX_CLASSES_SHOWN]
    shown = (f"{lock.classes[k]} {predicted[k]:.2f} instead of {trained[k]:.2f}" for k in order)
    return max(0.0, float(differences.sum()) / 2 - by_chance), ", ".join(shown)


def _refuse_duplicate(name: str, sha256: str, same: Sequence[Entry], submissions: Sequence[ListedSubmission]) -> None:
    refs = {entry.ref for entry in same}
    tag = tag_of(sha256)
    found = [f"{entry.ref} of {entry.time}, public score {score_text(entry.public)}" for entry in same]
    found += [f"{row.ref} of {row.date}" for row in submissions if tag in row.message and row.ref not in refs]
    if found:
        raise SubmissionError(
            "Kaggle has this file already: the same file gives the same score.",
            file=name,
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


def _write_entry(session: Session, entry: Entry, file: Path, content: bytes) -> Entry:
    """Keep copies of the CSV and of its JSON, and write the entry into the ledger, before anything is uploaded."""
    kept, copies = _kept_copy(session, entry), {}
    description = read_json(file.with_suffix(".json"))
    sha256 = hashlib.sha256(content).hexdigest()
    if isinstance(description, dict) and description.get("csv_sha256") == sha256:  # else it is of another CSV
        score, error = _honest_score(description)
        ensemble = kept.with_suffix(".json")
        copies[ensemble] = json.dumps(description, indent=2).encode() + b"\n"
        ensemble_place = str(ensemble.relative_to(session.ledger.parent))
        entry = replace(entry, ensemble=ensemble_place, cross_fitted=score, standard_error=error)
    fix = "free space, then repeat the command; nothing was uploaded"
    with os_error_as(KaggleError, "The CSV cannot be copied.", fix=fix):
        for target, copy in (copies | {kept: content}).items():
            write_file(target, copy)
    session.save(entry)
    return entry


def _upload(session: Session, entry: Entry, send: Callable[[Path, str], None]) -> Entry:
    """Submit by `send`, which gets the kept copy and the message; return the entry as Kaggle lists it.

    Raises KaggleError.
    """
    kept = _kept_copy(session, entry)
    session.log(f"submitting {entry.file}, kept as {kept} ({kept.stat().st_size:,} bytes)")
    state, outcome = LOST, "the kaggle command reported success"
    try:
        send(kept, f"{entry.tag} {entry.message}")
    except RefusedError as refusal:
        session.save(replace(entry, state=REFUSED, reason=refusal.found or refusal.what))
        raise
    except KaggleError as error:
        outcome = f"{error.what} {error.found or ''}".strip()
        state = REFUSED if isinstance(error, CommandError) else LOST
    # Only the list of submissions proves that one was made.
    try:
        entry = settle_entry(session, entry)
    except KaggleError as error:
        raise KaggleError(
            "It is not known whether the submission was made.",
            file=entry.file,
            found=f"{outcome}; then: {error.what} {error.found or ''}",
            fix=f"{session.command('submissions')} looks for it; until then the same file is not uploaded again",
        ) from None
    if entry.state == LOST:
        session.save(replace(entry, state=state, reason=outcome))
        raise KaggleError(
            "The submission was not made: Kaggle does not list it.",
            file=entry.file,
            expected="a new row in the list of submissions",
            found=outcome,
            fix="repeat the command: it looks for the submission before it uploads anything",
        )
    return entry


def _kept_copy(session: Session, entry: Entry) -> Path:
    return session.ledger.parent / "submitted" / entry.sha256[:12] / Path(entry.file).name


def _honest_score(description: dict) -> tuple[float | None, float | None]:
    """The cross-fitted score and its standard error; None where they are not known."""
    honest = description.get("honest_score") or {}
    interval = honest.get("interval")
    return honest.get("score"), (interval[1] - interval[0]) / (2 * Z_95) if interval else None
