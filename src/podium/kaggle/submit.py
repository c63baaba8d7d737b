"""One submission, from the check to its score: uploaded once, whatever happens on the way."""

import csv
import json
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from podium.config.keys import Submission
from podium.errors import KaggleError, SubmissionError
from podium.files import atomic_write
from podium.kaggle.cli_messages import UploadError
from podium.kaggle.client import Row
from podium.kaggle.ledger import LOST, REFUSED, SENT, UPLOADING, Entry, now, read_ledger, refreshed, row_of, tag_of
from podium.kaggle.session import Desk, alone, await_score, settle, with_reason
from podium.lock import read_lock
from podium.metrics import Z_95
from podium.plan.stamp import file_sha256
from podium.submission import check_submission

if TYPE_CHECKING:
    from podium.lock import Lock


def submit(desk: Desk, file: Path, message: str, *, force: bool = False) -> Entry:
    """Check a CSV, upload it, and wait for its score; returns its entry in the ledger, scored.

    What an earlier command left open is settled first, and the same bytes are not uploaded twice without `force`.
    Raises SubmissionError for a CSV that may not be submitted, KaggleError for everything on the way to Kaggle and
    for a submission that Kaggle could not score or has not scored yet.
    """
    if not message.strip():
        raise SubmissionError("A submission without a message.", fix="MESSAGE='what is new in it'")
    with alone(desk), tempfile.TemporaryDirectory() as folder:
        checked = _checked(desk, file, Path(folder), force=force)
        left_open = {one.key for one in read_ledger(desk.ledger) if one.is_open}
        entries, rows = settle(desk)
        same = [one for one in entries if one.sha256 == checked.sha256 and one.is_at_kaggle]
        if same and same[-1].key in left_open:
            desk.tell(f"{file} is at Kaggle as {same[-1].ref} already: it is picked up, not uploaded again")
            return await_score(desk, same[-1])
        if not force:
            _refuse_twice(checked, same, rows)
        _refuse_none_left(desk)
        entry = _send(desk, checked, message, after=max((row.ref for row in rows), default=0))
        return await_score(desk, entry)


@dataclass(frozen=True)
class Checked:
    """A CSV as it was when it was checked: `copy` is what will be uploaded, `made` is what its JSON says."""

    file: Path
    copy: Path
    sha256: str
    made: dict

    def refuse_changed(self) -> None:
        """Raise SubmissionError if the user's file is another one by now."""
        found = file_sha256(self.file)
        if found != self.sha256:
            raise SubmissionError(
                "The CSV changed after it was checked: nothing was uploaded.",
                file=self.file,
                expected=f"sha256 {self.sha256[:12]}",
                found=found[:12] or "no file",
                fix="wait for what writes it, then the same again",
            )


def _checked(desk: Desk, file: Path, folder: Path, *, force: bool) -> Checked:
    """Copy a CSV into `folder`, so that what is uploaded is what was checked, and check the copy."""
    if not file.is_file():
        fix = f"make ensemble COMPETITION={desk.competition}"
        raise SubmissionError("There is no such file.", file=file, fix=fix)
    copy = _copied(file, folder / file.name)
    checked = Checked(file, copy, file_sha256(copy), _made_by(file, file_sha256(copy)))
    lock = read_lock(desk.project.lock_file(desk.competition))
    faults = check_submission(copy, lock=lock, settings=desk.settings.submission)
    if faults:
        raise SubmissionError(
            f"Not a submission of {desk.competition}: nothing was uploaded.", file=file, faults=faults
        )
    shares = class_shares(copy, lock=lock, settings=desk.settings.submission)
    if shares.is_absurd and not force:
        raise SubmissionError(
            "The classes are predicted in other shares than they have in training: nothing was uploaded.",
            file=file,
            expected=f"shares like those of the training labels; these are {shares.distance:.2f} away (0 to 1)",
            found=shares.told(),
            fix="look at class names and their order; FORCE=1 submits it as it is",
        )
    if shares.is_strange:
        desk.tell(f"look at the class shares: {shares.told()}")
    return checked


def _copied(file: Path, target: Path) -> Path:
    try:
        with file.open("rb") as inside, atomic_write(target) as outside:
            shutil.copyfileobj(inside, outside)
    except OSError as error:
        fix = "free space, then the same again; nothing was uploaded"
        raise KaggleError("The CSV cannot be kept.", file=target, found=error.strerror, fix=fix) from None
    return target


def _kept(desk: Desk, checked: Checked) -> tuple[Path, str]:
    """`submitted/<hash>/<file>` and, relative to the ledger, the JSON beside it that says what made it."""
    kept = _copied(checked.copy, desk.ledger.parent / SENT / checked.sha256[:12] / checked.file.name)
    if not checked.made:
        return kept, ""
    made = checked.copy.with_suffix(".json")
    made.write_text(json.dumps(checked.made, indent=2) + "\n", encoding="utf-8")
    return kept, str(_copied(made, kept.with_suffix(".json")).relative_to(desk.ledger.parent))


def _refuse_twice(checked: Checked, earlier: list[Entry], rows: list[Row]) -> None:
    found = [f"{one.ref} of {one.time}, public score {one.public or 'unknown'}" for one in earlier]
    known = {one.ref for one in earlier}
    found += [
        f"{row.ref} of {row.date}"
        for row in rows
        if tag_of(checked.sha256) in row.message and str(row.ref) not in known
    ]
    if found:
        raise SubmissionError(
            "Kaggle has these bytes already: the same file gives the same score.",
            file=checked.file,
            found=f"submission {found[-1]}",
            fix="FORCE=1 submits it once more",
        )


def _refuse_none_left(desk: Desk) -> None:
    left = desk.kaggle.remaining()
    if left == 0:
        fix = "tomorrow: Kaggle counts days in UTC"
        raise KaggleError("No submission is left today.", expected="1 or more", found="0", fix=fix)
    desk.tell("Kaggle does not say how many submissions are left" if left is None else f"{left} submissions left today")


def _send(desk: Desk, checked: Checked, message: str, *, after: int) -> Entry:
    """Write the entry, upload, and find the submission in Kaggle's list; raises KaggleError."""
    checked.refuse_changed()
    kept, ensemble = _kept(desk, checked)
    honest = checked.made.get("honest_score") or {}
    entry = Entry(
        time=now(),
        state=UPLOADING,
        file=checked.file.name,
        sha256=checked.sha256,
        ensemble=ensemble,
        cross_fitted=_cell(honest.get("score")),
        standard_error=_cell(_standard_error(honest.get("interval"))),
        after=str(after),
        message=message,
    )
    desk.put(entry)
    desk.tell(f"uploading {checked.file} ({kept.stat().st_size:,} bytes)")
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
                fix=f"{desk.again} looks for it; until then the same file is not uploaded again",
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
        fix="the same again: it is looked for once more before anything is uploaded",
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


# Half the sum of the differences between two lists of shares: above the first a warning, above the second a refusal.
STRANGE = 0.10
ABSURD = 0.30
MOST_CLASSES_SHOWN = 4


@dataclass(frozen=True)
class Shares:
    """Class shares of the predictions and of the training labels, and their distance beyond what chance makes."""

    classes: tuple[str, ...]
    predicted: np.ndarray  # (classes,)
    trained: np.ndarray  # (classes,)
    distance: float  # total variation, 0 to 1, less what a sample of so many rows has by chance

    @property
    def is_strange(self) -> bool:
        """Whether to look at it."""
        return self.distance > STRANGE

    @property
    def is_absurd(self) -> bool:
        """Whether a wrong mapping, or one class for all, is likelier than such a test set."""
        return self.distance > ABSURD

    def told(self) -> str:
        """The classes that differ most: `cat 0.02 instead of 0.31`."""
        order = np.argsort(-np.abs(self.predicted - self.trained), kind="stable")[:MOST_CLASSES_SHOWN]
        pairs = (f"{self.classes[k]} {self.predicted[k]:.2f} instead of {self.trained[k]:.2f}" for k in order)
        return ", ".join(pairs)


def class_shares(file: Path, *, lock: "Lock", settings: Submission) -> Shares:
    """Compare a valid CSV's class shares with the training labels': a wrong mapping of classes shows there."""
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
    distance = max(0.0, float(np.abs(predicted - trained).sum()) / 2 - by_chance)
    return Shares(tuple(lock.classes), predicted, trained, distance)
