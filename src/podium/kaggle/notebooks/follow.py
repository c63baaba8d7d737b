"""Runs trained in a notebook on Kaggle's GPUs: packed, pushed once, followed, and imported into `oof/`.

The push is recorded in `.kernel/<competition>/push.json` before it is sent. Whatever stops Podium in between, the next
command follows the same notebook and does not push another one.
"""

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from podium.errors import KaggleError
from podium.files import write_file
from podium.kaggle.answers import RefusedError, ServerError
from podium.kaggle.notebooks.account import COMPLETE, ENDED, Account, upload_dataset
from podium.kaggle.notebooks.import_output import ImportedOutput, OutputError, import_output, read_manifest
from podium.kaggle.notebooks.package import check_images, pack_notebook, push_request
from podium.kaggle.notebooks.script import MANIFEST
from podium.kaggle.waiting import Log, Patience, now, one_process
from podium.plan.runs import PlannedRun
from podium.workspace import Workspace

# A session of twelve hours, and some hours in the queue before it.
PATIENCE = Patience(first_pause_seconds=10, longest_pause_seconds=60, wait_seconds=17 * 3600, grace_seconds=60)
DATASET_PATIENCE = Patience(first_pause_seconds=3, longest_pause_seconds=20, wait_seconds=1200)
ATTEMPTS = 3
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Push:
    """A notebook that was pushed, or was about to be: the id `push` is in its script and in its output's manifest."""

    push: str
    notebook: str
    time: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class NotebookSession:
    """What the training of one competition at Kaggle needs."""

    workspace: Workspace
    account: Account
    log: Log
    patience: Patience = PATIENCE
    dataset_patience: Patience = DATASET_PATIENCE

    @property
    def push_file(self) -> Path:
        """The push whose output is not imported yet."""
        return self.workspace.paths.notebook_folder / "push.json"

    @property
    def command(self) -> str:
        """What the user types to continue."""
        return f"make kernel COMPETITION={self.workspace.name}"

    def save(self, push: Push) -> None:
        """Record a push."""
        write_file(self.push_file, json.dumps(asdict(push), indent=2).encode())


def train_in_notebook(
    session: NotebookSession, runs: Sequence[PlannedRun], *, force: bool = False
) -> ImportedOutput | None:
    """Train stale runs at Kaggle and import their predictions into `oof/`; returns None where nothing is to be done.

    A notebook that was pushed before is followed to its end instead, unless `force` forgets it.
    Raises KaggleError, with the command to type, for everything that goes wrong on the way.
    """
    lock_file = session.push_file.with_name(".lock")
    with one_process(lock_file, f"Another command follows the notebook of {session.workspace.name}."):
        if force:
            session.push_file.unlink(missing_ok=True)
        push = _pending_push(session)
        if push is None and not runs:
            return None
        if push is None:
            push = _push(session, runs, new_version=force)
        status, reason = _wait_for_end(session, push)
        return _import(session, push, status, reason)


def _pending_push(session: NotebookSession) -> Push | None:
    """The recorded push; None where there is none, or Kaggle's newest version of the notebook is not this push."""
    try:
        record = json.loads(session.push_file.read_text(encoding="utf-8"))
        push = Push(**record | {"runs": tuple(record["runs"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        fix = f"{session.command} FORCE=1 forgets the push"
        raise KaggleError("Not a record of a push.", file=session.push_file, found=str(error), fix=fix) from None
    while push.push not in session.account.notebook_source(push.notebook):
        if session.patience.grace_left(push.time) <= 0:
            session.log(f"the push of {push.time} is not at Kaggle: it failed, or another push replaced it")
            session.push_file.unlink()
            return None
        session.log(f"the push of {push.time} is not at Kaggle yet")
        time.sleep(session.patience.first_pause_seconds)
    session.log(f"following {push.notebook}, pushed {push.time}: {', '.join(push.runs)}; FORCE=1 would forget it")
    return push


def _push(session: NotebookSession, runs: Sequence[PlannedRun], *, new_version: bool) -> Push:
    """Pack, upload the dataset if it changed, and push the notebook, which then runs."""
    check_images(session.workspace)
    account = session.account
    package = pack_notebook(session.workspace, runs, user=account.kaggle.user(), new_version=new_version)
    options = {"log": session.log, "patience": session.dataset_patience, "fix": session.command}
    upload_dataset(account, package.dataset, package.archive, **options)
    push = Push(package.push, package.notebook, now(), tuple(run.run for run in runs))
    session.save(push)
    try:
        account.push_notebook(push_request(session.workspace, package))
    except RefusedError:
        session.push_file.unlink()
        raise
    except BaseException:
        session.save(replace(push, time=now()))  # it may have arrived: the next command asks Kaggle
        raise
    session.log(f"pushed {push.notebook}: {len(runs)} runs; it runs on without this command, {session.command} follows")
    return push


def _wait_for_end(session: NotebookSession, push: Push) -> tuple[str, str]:
    """Ask for the status until the notebook has ended; returns it, and why it failed. Server errors are waited out."""
    for waited in session.patience.attempts():
        try:
            status, reason = session.account.notebook_status(push.notebook)
            # Just after the push it may still be the status of the version before, which FORCE=1 did not wait for.
            if status in ENDED and session.patience.grace_left(push.time) <= 0:
                return status, reason
        except ServerError as error:
            status = f"unknown ({error.what})"
        session.log(f"{push.notebook} is {status.lower()}, not done yet ({waited:.0f} s)")
    raise KaggleError(
        "The notebook has not ended yet.",
        file=push.notebook,
        found=f"status {status} after {waited / 3600:.1f} hours",
        fix=f"later: {session.command} follows it; https://www.kaggle.com/code/{push.notebook}",
    )


def _import(session: NotebookSession, push: Push, status: str, reason: str) -> ImportedOutput:
    """Download and import the output, and forget the push.

    Runs that ended before a failure are imported too. Raises KaggleError where the notebook or one of its runs failed,
    or a run was refused.
    """
    output, is_complete = session.workspace.paths.notebook_folder / "output", status == COMPLETE
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if not is_complete:
        session.log(f"{push.notebook} failed: {reason or status}; FORCE=1 would forget it")
    manifest = _download(session, push, output, may_be_empty=not is_complete)
    result = import_output(session.workspace, output, manifest)
    session.push_file.unlink()
    unfinished = [run for run in push.runs if run not in (*manifest["trained"], *manifest["left"])]
    if is_complete and not result.refused and not unfinished:
        return result
    faults = [f"{run}: {refusal}" for run, refusal in result.refused.items()]
    faults += [f"{run}: its training failed" for run in unfinished] if is_complete else []
    faults += _read_log(output)[-LOG_LINES_SHOWN:] if unfinished else []
    counted = f"{len(result.imported)} runs imported: {', '.join(result.imported) or 'none'}"
    raise KaggleError(
        "Not every run of the notebook was imported." if is_complete else "The notebook failed at Kaggle.",
        file=output,
        found=counted if is_complete else f"{reason or f'status {status}'}; {counted}",
        faults=faults,
        fix=f"correct the cause, then {session.command} trains what is stale; "
        f"the notebook's page: https://www.kaggle.com/code/{push.notebook}",
    )


def _download(session: NotebookSession, push: Push, output: Path, *, may_be_empty: bool) -> dict:
    """Download the output until every file is as the manifest says; returns the manifest.

    The output of a failed notebook `may_be_empty`: then no run has ended. Raises KaggleError after some attempts.
    """
    faults: list[str] = []
    for attempt in range(ATTEMPTS):
        session.log("downloading the output" + (f" again, attempt {attempt + 1}: {faults[0]}" if faults else ""))
        try:
            session.account.download_output(push.notebook, output)
            if may_be_empty and not (output / MANIFEST).exists():
                return {"trained": [], "left": []}
            manifest = read_manifest(output)
            if manifest.get("push") == push.push:
                return manifest
            faults = [f"Kaggle gives the output of another push: {manifest.get('push')}, not {push.push}"]
        except (ServerError, OutputError) as error:
            faults = list(error.faults) or [f"{error.what} {error.found}"]
        time.sleep(session.patience.first_pause_seconds)
    raise KaggleError(
        "The notebook's output did not arrive complete.",
        file=output,
        faults=faults,
        fix=f"{session.command} downloads it again; it stays at https://www.kaggle.com/code/{push.notebook}",
    )


def _read_log(output: Path) -> list[str]:
    """The lines of the notebook's log, which Kaggle writes as JSON: a list of pieces of text."""
    text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in output.glob("*.log"))
    with suppress(ValueError, TypeError, LookupError):
        text = "".join(piece["data"] for piece in json.loads(text))
    return [line.rstrip() for line in text.splitlines() if line.strip()]
