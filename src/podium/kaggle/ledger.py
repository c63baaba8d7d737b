"""The ledger `submissions/<competition>/ledger.csv`: one row per submission, written before the upload.

A row is `uploading` until Kaggle lists the submission. Whatever ends Podium during the upload, the next command finds
the row and looks for the submission at Kaggle instead of uploading again.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import datetime
from pathlib import Path

from podium.errors import KaggleError
from podium.files import DAMAGE, os_error_as, write_file
from podium.kaggle.client import ListedSubmission
from podium.kaggle.waiting import TIME
from podium.text import csv_rows, csv_text

LEDGER = "ledger.csv"
# uploading: perhaps at Kaggle; pending: at Kaggle, without a score; failed: Kaggle could not score it;
# refused: Kaggle did not accept it; lost: it did not arrive.
UPLOADING, PENDING, SCORED, FAILED, REFUSED, LOST = "uploading", "pending", "scored", "failed", "refused", "lost"
STATES = (UPLOADING, PENDING, SCORED, FAILED, REFUSED, LOST)
STATE_OF_STATUS = {"COMPLETE": SCORED, "ERROR": FAILED}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the ledger; what is not known is None."""

    time: str  # of the upload, UTC
    state: str  # uploading, pending, scored, failed, refused or lost
    file: str  # the CSV, or user/notebook
    sha256: str  # of the CSV
    ensemble: str = ""  # copy of the ensemble.json: members and weights
    cross_fitted: float | None = None  # score of the blend on validation rows
    standard_error: float | None = None  # of this score
    public: float | None = None  # score on Kaggle
    private: float | None = None  # score after the deadline
    ref: int | None = None  # number of the submission at Kaggle
    after: int = 0  # the newest ref before the upload
    reason: str = ""  # why it failed or was refused
    message: str = ""  # MESSAGE= of make submit

    @property
    def tag(self) -> str:
        """The beginning of the message at Kaggle."""
        return tag_of(self.sha256)

    @property
    def is_notebook(self) -> bool:
        """Whether a version of a notebook was submitted, instead of a CSV."""
        return "/" in self.file

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the entry."""
        return self.time, self.sha256

    def updated(self, listed: ListedSubmission) -> "Entry":
        """The entry with the state and the scores that Kaggle lists."""
        scores = {"public": listed.public, "private": listed.private}
        known = {name: score for name, score in scores.items() if score is not None}
        return replace(self, state=STATE_OF_STATUS.get(listed.status, PENDING), ref=listed.ref, **known)


COLUMNS = tuple(field.name for field in fields(Entry))
NUMBERS = {"after": int, "ref": int} | dict.fromkeys(("cross_fitted", "standard_error", "public", "private"), float)


def score_text(score: float | None) -> str:
    """A score in a message."""
    return "unknown" if score is None else f"{score:.6g}"


def tag_of(sha256: str) -> str:
    """What the message of a file's submission begins with: `(sha256 1a2b3c4d5e6f)`. Kaggle may cut its end."""
    return f"(sha256 {sha256[:12]})"


def read_ledger(file: Path) -> list[Entry]:
    """All entries, oldest first; none where there is no file. Raises KaggleError for a damaged ledger."""
    entries: list[Entry] = []
    try:
        rows = [row for _, row in csv_rows(file.read_bytes())]
        if tuple(rows[0]) != COLUMNS:
            raise ValueError(f"other columns than {','.join(COLUMNS)}")
        for row in rows[1:]:
            entries.append(_entry(row))
    except FileNotFoundError:
        return []
    except DAMAGE as error:
        found, fix = f"after {len(entries)} rows: {error}", f"git checkout {file}"
        raise KaggleError("The ledger cannot be read.", file=file, found=found, fix=fix) from None
    return entries


def _entry(row: Sequence[str]) -> Entry:
    """The entry in a row; raises ValueError."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} cells, expected {len(COLUMNS)}")
    cells = {name: NUMBERS.get(name, str)(cell) for name, cell in zip(COLUMNS, row, strict=True) if cell}
    entry = Entry(**cells)
    if entry.state not in STATES:
        raise ValueError(f"state '{entry.state}', expected one of {', '.join(STATES)}")
    datetime.strptime(entry.time, TIME)
    return entry


def write_ledger(file: Path, entries: Sequence[Entry]) -> None:
    """Write the whole ledger atomically; raises KaggleError where that fails."""
    rows = ([f"{value:.10g}" if isinstance(value, float) else value for value in astuple(entry)] for entry in entries)
    fix = "free space, then repeat the command"
    with os_error_as(KaggleError, "The ledger cannot be written.", fix=fix):
        write_file(file, csv_text([COLUMNS, *rows]).encode())


def match(entries: Sequence[Entry], submissions: Sequence[ListedSubmission]) -> list[Entry]:
    """The entries with the states and scores that Kaggle lists; an entry that is not listed stays as it is."""
    matched, other_refs = list(entries), {entry.ref for entry in entries if entry.ref is not None}
    # Lost and refused entries last: they may have arrived, but must not take another entry's submission.
    for index in sorted(range(len(entries)), key=lambda index: entries[index].state in (LOST, REFUSED)):
        listed = find_submission(entries[index], submissions, other_refs=other_refs)
        if listed is not None:
            matched[index] = entries[index].updated(listed)
            other_refs.add(listed.ref)
    return matched


def find_submission(
    entry: Entry, submissions: Sequence[ListedSubmission], *, other_refs: Collection[int] = ()
) -> ListedSubmission | None:
    """The entry's submission in Kaggle's list: by its ref, else the oldest one after the upload began with its tag.

    `other_refs` belong to other entries.
    """
    if entry.ref is not None:
        return next((listed for listed in submissions if listed.ref == entry.ref), None)
    newer = [listed for listed in submissions if listed.ref > entry.after and listed.ref not in other_refs]
    return min((listed for listed in newer if entry.tag in listed.message), key=lambda listed: listed.ref, default=None)
