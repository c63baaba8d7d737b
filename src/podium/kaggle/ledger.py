"""The ledger: one row for everything that was sent to Kaggle, written before it is sent.

`submissions/<competition>/ledger.csv`. A row is `uploading` from before the upload until Kaggle lists it; whatever
ends Podium in between, the next command finds the row and looks for it at Kaggle instead of uploading again.
"""

import csv
import dataclasses
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from podium.errors import KaggleError
from podium.files import atomic_write
from podium.kaggle.client import Row
from podium.plan.paths import Project

LEDGER = "ledger.csv"
SENT = "submitted"
TIME = "%Y-%m-%dT%H:%M:%SZ"
# Kaggle may cut a message of this length, and the tag at its end.
LONG_MESSAGE = 100
# uploading: perhaps at Kaggle; pending: there, not scored; scored; failed: Kaggle could not score it;
# refused: Kaggle did not take it; lost: it never arrived.
UPLOADING, PENDING, SCORED, FAILED, REFUSED, LOST = "uploading", "pending", "scored", "failed", "refused", "lost"
STATES = (UPLOADING, PENDING, SCORED, FAILED, REFUSED, LOST)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row; scores are as Kaggle wrote them, empty where unknown."""

    time: str
    state: str
    file: str
    sha256: str
    ensemble: str = ""  # the ensemble.json of then: members and weights
    cross_fitted: str = ""
    standard_error: str = ""
    public: str = ""
    private: str = ""
    ref: str = ""
    after: str = "0"  # the last ref before the upload
    reason: str = ""
    message: str = ""

    @property
    def is_open(self) -> bool:
        """Whether Kaggle has still to be asked about it."""
        return self.state in (UPLOADING, PENDING)

    @property
    def is_at_kaggle(self) -> bool:
        """Whether these bytes are, or may be, at Kaggle."""
        return self.state in (UPLOADING, PENDING, SCORED, FAILED)

    @property
    def tag(self) -> str:
        """What the message at Kaggle ends with: it names the bytes."""
        return tag_of(self.sha256)

    @property
    def key(self) -> tuple[str, str]:
        """What tells entries apart."""
        return self.time, self.sha256

    def age_seconds(self) -> float:
        """Seconds since the upload began."""
        return (datetime.now(UTC) - datetime.strptime(self.time, TIME).replace(tzinfo=UTC)).total_seconds()

    def changed(self, **changes: str) -> "Entry":
        """The entry with some cells changed."""
        return dataclasses.replace(self, **changes)


COLUMNS = tuple(field.name for field in dataclasses.fields(Entry))


def tag_of(sha256: str) -> str:
    """`(sha256 1a2b3c4d5e6f)`."""
    return f"(sha256 {sha256[:12]})"


def now() -> str:
    """The time as the ledger has it: UTC, to the second."""
    return datetime.now(UTC).strftime(TIME)


def ledger_file(project: Project, competition: str) -> Path:
    """Where the ledger is."""
    return project.submissions_folder(competition) / LEDGER


def read_ledger(file: Path) -> list[Entry]:
    """All entries, oldest first; none where there is no file. Raises KaggleError where it is no ledger."""
    try:
        header, *rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))) or [[]]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KaggleError("The ledger cannot be read.", file=file, found=str(error)) from None
    faults = [] if tuple(header) == COLUMNS else [f"line 1: other columns than {','.join(COLUMNS)}"]
    faults += [f"row {place}: {fault}" for place, row in enumerate(rows, start=1) if (fault := _fault(row))]
    if faults:
        raise KaggleError("Not a ledger of submissions.", file=file, faults=faults, fix=f"git checkout {file}")
    return [Entry(**dict(zip(COLUMNS, row, strict=True))) for row in rows]


def _fault(row: list[str]) -> str:
    """What is wrong with a row's cells; nothing if they can be an entry."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} cells, expected {len(COLUMNS)}"
    cells = dict(zip(COLUMNS, row, strict=True))
    if cells["state"] not in STATES:
        return f"state '{cells['state']}', expected one of {', '.join(STATES)}"
    try:
        datetime.strptime(cells["time"], TIME)
        int(cells["after"])
        [float(cells[name]) for name in ("cross_fitted", "standard_error", "public", "private", "ref") if cells[name]]
    except ValueError as error:
        return str(error)
    return ""


def write_ledger(file: Path, entries: list[Entry]) -> None:
    """Write the whole ledger atomically; raises KaggleError where that fails."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(dataclasses.astuple(entry) for entry in entries)
    try:
        with atomic_write(file) as stream:
            stream.write(text.getvalue().encode())
    except OSError as error:
        raise KaggleError(
            "The ledger cannot be written.", file=file, found=error.strerror, fix="free space, then the same again"
        ) from None


def row_of(entry: Entry, rows: list[Row], *, taken: set[str]) -> Row | None:
    """The row at Kaggle that is this entry: by its ref, else by the tag in its message, later than the upload began."""
    if entry.ref:
        return next((row for row in rows if str(row.ref) == entry.ref), None)
    new = [row for row in rows if row.ref > int(entry.after) and str(row.ref) not in taken]
    return next((row for row in sorted(new, key=lambda row: row.ref) if _is_of(entry, row)), None)


def _is_of(entry: Entry, row: Row) -> bool:
    sent = f"{entry.message} {entry.tag}"
    is_cut = len(row.message) >= LONG_MESSAGE and sent.startswith(row.message) and row.file == entry.file
    return entry.tag in row.message or is_cut


def refreshed(entry: Entry, row: Row) -> Entry:
    """The entry with what Kaggle says now."""
    state = {"COMPLETE": SCORED, "ERROR": FAILED}.get(row.status, PENDING)
    scores = {"public": _cell(row.public), "private": _cell(row.private)}
    return entry.changed(state=state, ref=str(row.ref), **{name: cell for name, cell in scores.items() if cell})


def _cell(score: float | None) -> str:
    return "" if score is None else f"{score:.10g}"
