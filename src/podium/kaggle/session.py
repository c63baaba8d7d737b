"""Where submissions of one competition are made: its settings, its ledger, and what Kaggle says of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from podium.config.keys import Competition, read_competition
from podium.errors import ConfigError, KaggleError
from podium.files import file_lock
from podium.kaggle.client import Kaggle, Row
from podium.kaggle.ledger import (
    FAILED,
    LOST,
    REFUSED,
    SCORED,
    UPLOADING,
    Entry,
    ledger_file,
    read_ledger,
    refreshed,
    row_of,
    write_ledger,
)
from podium.plan.paths import Project

Tell = Callable[[str], None]
"""Told one line of what is going on."""


@dataclass(frozen=True)
class Patience:
    """How often Kaggle is asked for a score, and for how long."""

    first_pause_seconds: float = 2
    longest_pause_seconds: float = 15
    wait_seconds: float = 600
    grace_seconds: float = 60  # how long Kaggle may take to list what it was sent

    def pauses(self) -> Iterator[float]:
        """Seconds between questions, until the wait is over."""
        pause, waited = self.first_pause_seconds, 0.0
        while waited < self.wait_seconds:
            yield pause
            waited += pause
            pause = min(pause * 1.5, self.longest_pause_seconds)


@dataclass(frozen=True)
class Desk:
    """Where submissions of one competition are made: its settings, its ledger, its Kaggle."""

    project: Project
    competition: str
    settings: Competition
    kaggle: Kaggle
    tell: Tell
    patience: Patience

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return ledger_file(self.project, self.competition)

    def put(self, entry: Entry) -> Entry:
        """Write an entry over the one of the same time and bytes, or at the end."""
        entries = read_ledger(self.ledger)
        places = [i for i, one in enumerate(entries) if one.key == entry.key]
        entries[places[0] if places else len(entries) :] = [entry, *(entries[places[0] + 1 :] if places else [])]
        write_ledger(self.ledger, entries)
        return entry

    @property
    def again(self) -> str:
        """What to type to look for a score later."""
        return f"make submissions COMPETITION={self.competition}"


def open_desk(
    project: Project, competition: str, *, kaggle: Kaggle | None = None, tell: Tell, patience: Patience | None = None
) -> Desk:
    """The desk of a competition; raises ConfigError where competition.toml names none on Kaggle."""
    folder = project.competition_folder(competition)
    settings = read_competition(folder)
    if not settings.kaggle.competition:
        raise ConfigError(
            f"'{competition}' is not a competition on Kaggle.",
            file=folder / "competition.toml",
            expected='[kaggle] with competition = "<slug>", as in kaggle.com/competitions/<slug>',
            fix=f"name it there; make check COMPETITION={competition} checks the CSV without Kaggle",
        )
    return Desk(
        project, competition, settings, kaggle or Kaggle(settings.kaggle.competition), tell, patience or Patience()
    )


@contextmanager
def alone(desk: Desk) -> Iterator[None]:
    """Raise KaggleError if another process works on the same ledger."""
    file = desk.ledger.with_name(".ledger.lock")
    with only_one(file, f"Another command submits to {desk.competition}, or looks for scores."):
        yield


@contextmanager
def only_one(file: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock; raises KaggleError saying `otherwise` where another process holds it."""
    with ExitStack() as held:
        try:
            # The kaggle CLI holds it too: it may go on uploading where Podium is killed.
            held.enter_context(file_lock(file, wait=False, inherited=True))
        except BlockingIOError:
            raise KaggleError(otherwise, file=file, fix="wait for it, then the same again") from None
        yield


def settle(desk: Desk) -> tuple[list[Entry], list[Row]]:
    """Hold the ledger against Kaggle's list, and write down what is new; returns all entries, and the list.

    To be called `alone`: an upload that is still going on would be taken for one that never arrived.
    """
    entries, rows = read_ledger(desk.ledger), desk.kaggle.submissions()
    sent = [one for one in entries if one.state in (UPLOADING, LOST) and row_of(one, rows, taken=set()) is None]
    left = max((desk.patience.grace_seconds - one.age_seconds() for one in sent), default=0)
    if left > 0:
        desk.tell(f"waiting {left:.0f} s: Kaggle may be about to list what was sent a moment ago")
        time.sleep(left)
        rows = desk.kaggle.submissions()
    taken = {one.ref for one in entries if one.ref}
    settled = list(entries)
    for place in sorted(range(len(entries)), key=lambda place: entries[place].state in (LOST, REFUSED)):
        one = entries[place]
        row = row_of(one, rows, taken=taken)  # also what was given up: it may have arrived after all
        if row is not None:
            settled[place] = with_reason(desk, refreshed(one, row))
            taken.add(settled[place].ref)
        elif one.state == UPLOADING:
            desk.tell(f"{one.file} of {one.time} never arrived at Kaggle; it may be submitted again")
            settled[place] = one.changed(state=LOST, reason="it never arrived")
    if settled != entries:
        write_ledger(desk.ledger, settled)
    return settled, rows


def await_score(desk: Desk, entry: Entry) -> Entry:
    """Ask until an entry is scored; raises KaggleError where it failed, or the wait is over."""
    began = time.monotonic()
    if entry.state == SCORED:
        return entry
    for pause in desk.patience.pauses():
        row = row_of(entry, desk.kaggle.submissions(), taken=set())
        if row is not None:
            entry = desk.put(with_reason(desk, refreshed(entry, row)))
        if entry.state == SCORED:
            return entry
        if entry.state == FAILED:
            raise _failed(desk, entry)
        desk.tell(f"{entry.file} is at Kaggle as {entry.ref}, not scored yet ({time.monotonic() - began:.0f} s)")
        time.sleep(pause)
    raise KaggleError(
        "Kaggle has not scored the submission yet.",
        file=entry.file,
        expected=f"a score within {desk.patience.wait_seconds:.0f} s",
        found=f"submission {entry.ref} is pending; it is in {desk.ledger}",
        fix=f"later: {desk.again}",
    )


def with_reason(desk: Desk, entry: Entry) -> Entry:
    """A failed entry with Kaggle's reason; asked for again next time where Kaggle did not answer."""
    if entry.state == FAILED and not entry.reason:
        reason = desk.kaggle.reason(int(entry.ref))
        return entry if reason is None else entry.changed(reason=reason or "Kaggle gives no reason")
    return entry


def _failed(desk: Desk, entry: Entry) -> KaggleError:
    page = f"https://www.kaggle.com/competitions/{desk.kaggle.slug}/submissions"
    return KaggleError(
        "Kaggle could not score the submission.",
        file=entry.file,
        expected="the form of Kaggle's sample submission; the local check found no fault",
        found=f"submission {entry.ref}: {entry.reason or 'Kaggle did not answer when asked for the reason'}",
        fix=f"compare {desk.competition}'s sample_submission with Kaggle's; its page may say more: {page}",
    )
