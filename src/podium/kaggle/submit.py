"""One submission, from the check to its score: uploaded once, whatever happens on the way."""

import fcntl
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podium.data.lock import read_lock
from podium.errors import KaggleError, SubmissionError
from podium.files import atomic_write
from podium.kaggle.client import Row
from podium.kaggle.desk import Desk, await_score, settle, with_reason
from podium.kaggle.faults import UploadError
from podium.kaggle.ledger import LOST, REFUSED, SENT, UPLOADING, Entry, now, read_ledger, refreshed, row_of, tag_of
from podium.kaggle.preflight import class_shares
from podium.metrics import Z_95
from podium.stamp import file_sha256
from podium.submission import check_submission


def submit(desk: Desk, file: Path, message: str, *, force: bool = False) -> Entry:
    """Check a CSV, upload it, and wait for its score; returns its entry in the ledger, scored.

    What an earlier command left open is settled first, and the same bytes are not uploaded twice without `force`.
    Raises SubmissionError for a CSV that may not be submitted, KaggleError for everything on the way to Kaggle and
    for a submission that Kaggle could not score or has not scored yet.
    """
    if not message.strip():
        raise SubmissionError("A submission without a message.", mend="MESSAGE='what is new in it'")
    with _alone(desk):
        checked = _check_csv(desk, file, force=force)
        rows = desk.kaggle.submissions()
        left_open = {(one.time, one.sha256) for one in read_ledger(desk.ledger) if one.is_open}
        same = [one for one in settle(desk, rows) if one.sha256 == checked[0] and one.is_at_kaggle]
        if same and (same[-1].time, same[-1].sha256) in left_open:
            desk.tell(f"{file} is at Kaggle as {same[-1].ref} already: it is picked up, not uploaded again")
            return await_score(desk, same[-1])
        if not force:
            _refuse_twice(file, checked[0], same, rows)
        _refuse_none_left(desk)
        entry = _send(desk, file, checked, message, after=max((row.ref for row in rows), default=0))
        return await_score(desk, entry)


@contextmanager
def _alone(desk: Desk) -> Iterator[None]:
    """Raise KaggleError if another process submits to the same competition."""
    file = desk.ledger.with_name(".ledger.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mend = "wait for it; it uses up a submission of today"
            raise KaggleError(f"Another make submit of {desk.competition} is running.", file=file, mend=mend) from None
        yield


def _check_csv(desk: Desk, file: Path, *, force: bool) -> tuple[str, Path]:
    """Keep the CSV as it is now, check what was kept; returns its SHA-256 and the kept file.

    What is uploaded is what was checked: nobody writes to the kept file.
    """
    sha256 = file_sha256(file)
    if not sha256:
        mend = f"make ensemble COMPETITION={desk.competition}"
        raise SubmissionError("There is no such file.", file=file, mend=mend)
    kept = _keep(desk, file, sha256)
    lock = read_lock(desk.project.lock_file(desk.competition))
    faults = check_submission(kept, lock=lock, settings=desk.settings.submission)
    if faults:
        shutil.rmtree(kept.parent)
        raise SubmissionError(
            f"Not a submission of {desk.competition}: nothing was uploaded.", file=file, faults=faults
        )
    shares = class_shares(kept, lock=lock, settings=desk.settings.submission)
    if shares.is_absurd and not force:
        raise SubmissionError(
            "The classes are predicted in other shares than they have in training: nothing was uploaded.",
            file=file,
            expected=f"shares like those of the training labels; these are {shares.distance:.2f} away (0 to 1)",
            found=shares.told(),
            mend="look at class names and their order; FORCE=1 submits it as it is",
        )
    if shares.is_strange:
        desk.tell(f"look at the class shares: {shares.told()}")
    return sha256, kept


def _keep(desk: Desk, file: Path, sha256: str) -> Path:
    """Copy the CSV, and the JSON that says what made it, to `submitted/<hash>/`; raises KaggleError."""
    kept = desk.ledger.parent / SENT / sha256[:12] / file.name
    copies = [(file, kept)]
    if _made_by(file, sha256):
        copies.append((file.with_suffix(".json"), kept.with_suffix(".json")))
    try:
        for source, target in copies:
            with source.open("rb") as inside, atomic_write(target) as outside:
                shutil.copyfileobj(inside, outside)
    except OSError as error:
        mend = "free space, then the same again; nothing was uploaded"
        raise KaggleError("The CSV cannot be kept.", file=kept, found=error.strerror, mend=mend) from None
    _refuse_changed(file, sha256, kept)
    return kept


def _refuse_changed(file: Path, sha256: str, kept: Path) -> None:
    if file_sha256(file) != sha256 or file_sha256(kept) != sha256:
        raise SubmissionError(
            "The CSV changed after it was checked: nothing was uploaded.",
            file=file,
            expected=f"sha256 {sha256[:12]}",
            found=file_sha256(file)[:12] or "no file",
            mend="wait for what writes it, then the same again",
        )


def _refuse_twice(file: Path, sha256: str, earlier: list[Entry], rows: list[Row]) -> None:
    found = [f"{one.ref} of {one.time}, public score {one.public or 'unknown'}" for one in earlier]
    known = {one.ref for one in earlier}
    found += [f"{row.ref} of {row.date}" for row in rows if tag_of(sha256) in row.message and str(row.ref) not in known]
    if found:
        raise SubmissionError(
            "Kaggle has these bytes already: the same file gives the same score.",
            file=file,
            found=f"submission {found[-1]}",
            mend="FORCE=1 submits it once more",
        )


def _refuse_none_left(desk: Desk) -> None:
    left = desk.kaggle.remaining()
    if left == 0:
        mend = "tomorrow: Kaggle counts days in UTC"
        raise KaggleError("No submission is left today.", expected="1 or more", found="0", mend=mend)
    desk.tell("Kaggle does not say how many submissions are left" if left is None else f"{left} submissions left today")


def _send(desk: Desk, file: Path, checked: tuple[str, Path], message: str, *, after: int) -> Entry:
    """Write the entry, upload, and find the submission in Kaggle's list; raises KaggleError."""
    sha256, kept = checked
    _refuse_changed(file, sha256, kept)
    made = _made_by(file, sha256) if kept.with_suffix(".json").is_file() else {}
    honest = made.get("honest_score", {})
    entry = Entry(
        time=now(),
        state=UPLOADING,
        file=file.name,
        sha256=sha256,
        ensemble=str(kept.with_suffix(".json").relative_to(desk.ledger.parent)) if made else "",
        cross_fitted=_cell(honest.get("score")),
        standard_error=_cell(_standard_error(honest.get("interval"))),
        after=str(after),
        message=message,
    )
    desk.put(entry)
    desk.tell(f"uploading {file} ({kept.stat().st_size:,} bytes)")
    error = None
    try:
        desk.kaggle.submit(kept, f"{message} {entry.tag}")
    except UploadError as refused:
        desk.put(entry.changed(state=REFUSED, reason=refused.found or refused.what))
        raise
    except KaggleError as uncertain:
        error = uncertain
    return _arrived(desk, entry, error)


def _arrived(desk: Desk, entry: Entry, error: KaggleError | None) -> Entry:
    """The entry with Kaggle's ref: only the list of submissions says that one was made."""
    for pause in (*(desk.patience.first_pause_seconds,) * 2, 0):
        try:
            row = row_of(entry, desk.kaggle.submissions(), taken=set())
        except KaggleError as unreachable:
            raise KaggleError(
                "Whether the submission was made is not known: Kaggle stopped answering.",
                file=entry.file,
                found=(error or unreachable).found or (error or unreachable).what,
                mend=f"{desk.again} looks for it; until then the same file is not uploaded again",
            ) from None
        if row is not None:
            return desk.put(with_reason(desk, refreshed(entry, row)))
        time.sleep(pause)
    desk.put(entry.changed(state=LOST, reason=error.what if error else "exit code 0, but no submission"))
    raise KaggleError(
        "The submission was not made: Kaggle does not list it.",
        file=entry.file,
        expected="a new row in kaggle competitions submissions",
        found=f"{error.what} {error.found or ''}".strip() if error else "success, by the kaggle CLI's word",
        mend="the same again; no submission was used up",
    )


def _made_by(file: Path, sha256: str) -> dict:
    """What the JSON beside the CSV says, if it speaks of these bytes."""
    try:
        made = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) and made.get("csv_sha256") == sha256 else {}


def _standard_error(interval: object) -> float | None:
    if isinstance(interval, list) and len(interval) == 2 and all(isinstance(one, float | int) for one in interval):
        return (interval[1] - interval[0]) / (2 * Z_95)
    return None


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else ""
