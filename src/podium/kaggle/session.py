"""What commands about one competition at Kaggle share; and the ledger, updated from Kaggle's list of submissions."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from podium.errors import ConfigError, KaggleError
from podium.kaggle.account import Account
from podium.kaggle.client import ListedSubmission
from podium.kaggle.ledger import FAILED, LEDGER, LOST, SCORED, UPLOADING, Entry, match, read_ledger, write_ledger
from podium.kaggle.waiting import NOTEBOOK, Log, Patience, one_process
from podium.workspace import Workspace


@dataclass(frozen=True)
class Session:
    """A competition, its client for Kaggle, the log function, how long to wait, and the goal of make that runs."""

    workspace: Workspace
    kaggle: Account
    log: Log
    patience: Patience
    goal: str = "submit"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.workspace.paths.submissions / LEDGER

    @property
    def folder(self) -> Path:
        """Where the files of the goal's notebook are."""
        return self.workspace.paths.notebook_folder / self.goal

    @property
    def push_file(self) -> Path:
        """The push whose output was not used yet."""
        return self.folder / "push.json"

    def command(self, goal: str = "") -> str:
        """What the user types to continue."""
        return f"make {goal or self.goal} COMPETITION={self.workspace.name}"

    def ledger_lock(self) -> AbstractContextManager[None]:
        """Hold the ledger's lock; raises KaggleError where another process holds it."""
        message = f"Another command submits to {self.workspace.name}, or asks for its scores."
        return one_process(self.ledger.with_name(".ledger.lock"), message)

    def notebook_lock(self) -> AbstractContextManager[None]:
        """Hold the notebook's lock; raises KaggleError where another process holds it."""
        return one_process(self.folder / ".lock", f"Another command follows the notebook of {self.workspace.name}.")

    def save(self, entry: Entry) -> None:
        """Write an entry into the ledger, in place of the one with the same key."""
        entries = {known.key: known for known in read_ledger(self.ledger)} | {entry.key: entry}
        write_ledger(self.ledger, list(entries.values()))


def open_session(workspace: Workspace, *, log: Log, goal: str = "submit", names_competition: bool = True) -> Session:
    """The session of a competition for a goal of make.

    Raises ConfigError where it must be named in competition.toml which competition on Kaggle this is, and is not.
    """
    slug = workspace.competition.kaggle.competition
    if names_competition and not slug:
        raise ConfigError(
            f"competition.toml does not say which competition on Kaggle '{workspace.name}' is.",
            file=workspace.paths.settings_file,
            expected='[kaggle] with competition = "<slug>", as in kaggle.com/competitions/<slug>',
            fix=f"add it; make check COMPETITION={workspace.name} checks the CSV without Kaggle",
        )
    return Session(workspace, Account(slug), log, Patience() if goal == "submit" else NOTEBOOK, goal)


def settle(session: Session) -> tuple[list[Entry], list[ListedSubmission]]:
    """Update the ledger from Kaggle's list; return all entries and the list. Call it inside `session.ledger_lock()`.

    Where a recent upload is missing in the list, Kaggle is asked again until the grace period ends.
    """
    entries = read_ledger(session.ledger)
    for _ in session.patience.attempts():
        submissions = session.kaggle.submissions()
        settled = match(entries, submissions)
        missing = [entry for entry in settled if entry.state in (UPLOADING, LOST)]
        seconds = max((session.patience.grace_left(entry.time) for entry in missing), default=0)
        if seconds <= 0:
            break
        session.log(f"waiting at most {seconds:.0f} s: Kaggle may not list a recent upload yet")
    for index, entry in enumerate(settled):
        if entry.state == UPLOADING:
            session.log(f"{entry.file} of {entry.time} did not arrive at Kaggle; it may be submitted again")
            settled[index] = replace(entry, state=LOST, reason="it did not arrive")
        elif entry.state == FAILED and not entry.reason:
            settled[index] = replace(entry, reason=session.kaggle.reason(entry.ref))
    if settled != entries:
        write_ledger(session.ledger, settled)
    return settled, submissions


def settle_entry(session: Session, entry: Entry) -> Entry:
    """Update the ledger from Kaggle's list, and return the new version of this entry."""
    return next(known for known in settle(session)[0] if known.key == entry.key)


def wait_for_score(session: Session, entry: Entry) -> Entry:
    """The scored entry; raises KaggleError where Kaggle could not score it, or the wait is over."""
    for waited in session.patience.attempts():
        if waited:
            entry = settle_entry(session, entry)
        if entry.state == SCORED:
            return entry
        if entry.state == FAILED:
            raise _scoring_error(session, entry)
        session.log(f"{entry.file} is at Kaggle as {entry.ref}, not scored yet ({waited:.0f} s)")
    raise KaggleError(
        "Kaggle has not scored the submission yet.",
        file=entry.file,
        expected=f"a score within {session.patience.wait_seconds:.0f} s",
        found=f"submission {entry.ref} is pending, as {session.ledger} records",
        fix=f"later: {session.command('submissions')}",
    )


def _scoring_error(session: Session, entry: Entry) -> KaggleError:
    """The error for a CSV, or for a notebook and its hidden test images, that Kaggle could not score."""
    name = session.workspace.name
    expected = "the format of Kaggle's sample submission; the local check found no fault"
    check = f"compare {name}'s sample submission with Kaggle's"
    if entry.is_notebook:
        expected = "a submission of the hidden test images, which may be more and larger than the visible ones"
        check = f"compare the time of make rehearse-notebook COMPETITION={name} with the competition's limit"
    return KaggleError(
        "Kaggle could not score the submission.",
        file=entry.file,
        expected=expected,
        found=f"submission {entry.ref}: {entry.reason or 'Kaggle did not answer when asked for the reason'}",
        fix=f"{check}, and see https://www.kaggle.com/competitions/{session.kaggle.slug}/submissions",
    )
