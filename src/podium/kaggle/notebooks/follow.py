"""A notebook at Kaggle: pushed once, followed to its end, and its output downloaded.

The push is recorded in `.kernel/<competition>/<goal of make>/push.json` before it is sent. Whatever stops Podium in
between, the next command follows the same notebook and does not push another one.
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.files import DAMAGE, write_file
from podium.kaggle.answers import RefusedError, ServerError
from podium.kaggle.notebooks.account import COMPLETE, ENDED, FAILED, READY, RUNNING, Account
from podium.kaggle.notebooks.package import Package, push_request
from podium.kaggle.notebooks.script import MANIFEST
from podium.kaggle.waiting import DATASET, NOTEBOOK, Log, Patience, now, one_process
from podium.plan.stamp import file_sha256
from podium.workspace import Workspace

ATTEMPTS = 3
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Push:
    """A notebook that was pushed, or was about to be: the id `push` is in its script and in its output's manifest."""

    push: str
    notebook: str
    time: str
    runs: Sequence[str]
    archive: str = ""
    version: int = 0  # of the notebook; 0 until Kaggle reports it
    log_lines: int = 0  # so many lines of its log were shown


@dataclass(frozen=True)
class NotebookSession:
    """What a notebook of one competition at Kaggle needs."""

    workspace: Workspace
    account: Account
    log: Log
    patience: Patience = NOTEBOOK
    dataset_patience: Patience = DATASET
    goal: str = "kernel"  # of make

    @property
    def folder(self) -> Path:
        """Where the files of the notebook are."""
        return self.workspace.paths.notebook_folder / self.goal

    @property
    def push_file(self) -> Path:
        """The push whose output was not used yet."""
        return self.folder / "push.json"

    @property
    def command(self) -> str:
        """What the user types to continue."""
        return f"make {self.goal} COMPETITION={self.workspace.name}"

    def locked(self) -> AbstractContextManager[None]:
        """Hold the notebook's lock; raises KaggleError where another process holds it."""
        return one_process(self.folder / ".lock", f"Another command follows the notebook of {self.workspace.name}.")

    def save(self, push: Push) -> None:
        """Record a push."""
        write_file(self.push_file, json.dumps(asdict(push), indent=2).encode())


@dataclass(frozen=True)
class Ended:
    """A notebook that has ended: its downloaded output and manifest, and if it failed why."""

    push: Push
    output: Path
    manifest: Mapping[str, Any]
    failure: str

    def error(
        self, session: NotebookSession, what: str, found: str, faults: Sequence[str], *, log: bool
    ) -> KaggleError:
        """The error for a notebook that failed, or whose output is not what it should be; with the end of its `log`."""
        return KaggleError(
            "The notebook failed at Kaggle." if self.failure else what,
            file=self.output,
            found="; ".join(filter(None, [self.failure, found])) or None,
            faults=[*faults, *(_read_log(self.output)[-LOG_LINES_SHOWN:] if log else [])],
            fix=f"correct the cause, then {session.command} again; "
            f"the notebook's page: https://www.kaggle.com/code/{self.push.notebook}",
        )


def pending_push(session: NotebookSession, *, force: bool) -> Push | None:
    """The recorded push, unless `force` forgets it; None where Kaggle's newest version of the notebook is another."""
    if force:
        session.push_file.unlink(missing_ok=True)
    try:
        push = Push(**json.loads(session.push_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        fix = f"{session.command} FORCE=1 forgets the push"
        raise KaggleError("Not a record of a push.", file=session.push_file, found=str(error), fix=fix) from None
    while True:
        source, version = session.account.notebook_source(push.notebook)
        if push.push in source:
            break
        if session.patience.grace_left(push.time) <= 0:
            session.log(f"the push of {push.time} is not at Kaggle: it failed, or another push replaced it")
            session.push_file.unlink()
            return None
        session.log(f"the push of {push.time} is not at Kaggle yet")
        time.sleep(session.patience.first_pause_seconds)
    session.log(f"following {push.notebook}, pushed {push.time}: {', '.join(push.runs)}; FORCE=1 would forget it")
    return push if push.version else replace(push, version=version)


def push_package(session: NotebookSession, package: Package, runs: Sequence[str] = ()) -> Push:
    """Upload the package's dataset if it changed, and push the notebook, which then runs."""
    upload_dataset(session, package.dataset, package.archive)
    push = Push(package.push, package.notebook, now(), tuple(runs), package.archive.name)
    session.save(push)
    try:
        push = replace(push, version=session.account.push_notebook(push_request(session.workspace, package)))
    except RefusedError:
        session.push_file.unlink()
        raise
    except BaseException:
        session.save(replace(push, time=now()))  # it may have arrived: the next command asks Kaggle
        raise
    session.save(push)
    session.log(
        f"pushed {push.notebook}, version {push.version}: it runs on without this command, {session.command} follows"
    )
    return push


def upload_dataset(session: NotebookSession, name: str, archive: Path) -> None:
    """Upload a dataset's archive unless Kaggle has it already, and wait until the dataset is ready.

    The package kaggle skips a file that it cannot upload, without an error: only Kaggle's list shows what arrived.
    Raises KaggleError where the archive is not there in time.
    """
    account, before = session.account, session.account.dataset_files(name)
    if archive.name in (before or ()):
        session.log(f"{archive.name} is at Kaggle already")
    else:
        session.log(f"uploading {archive.name} into {name}: {archive.stat().st_size:,} bytes")
        account.upload_dataset(archive.parent, new=before is None, message=archive.name)
    for _ in session.dataset_patience.attempts():
        status = account.dataset_status(name)
        # While Kaggle makes a new version, it may list the previous version as ready.
        listed = account.dataset_files(name) or [] if status == READY else []
        if archive.name in listed:
            return
        if status == FAILED:
            break
        session.log(f"{name} is {status.lower().replace('_', ' ')} at Kaggle, not done yet")
    raise KaggleError(
        "The dataset is not ready at Kaggle: no notebook was pushed.",
        file=name,
        expected=f"status {READY}, with {archive.name}",
        found=f"status {status}, with {', '.join(listed) or 'no file'}",
        fix=f"{session.command}; or first delete https://www.kaggle.com/datasets/{name}",
    )


def wait_for_output(session: NotebookSession, push: Push) -> Ended:
    """Wait until the notebook has ended, and download its output; raises KaggleError where one takes too long."""
    push, status, reason = _wait_for_end(session, push)
    output, failure = session.folder / "output", "" if status == COMPLETE else reason or f"status {status}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if failure:
        session.log(f"{push.notebook} failed: {failure}; FORCE=1 would forget it")
    manifest = _download(session, push, output, may_be_empty=bool(failure))
    return Ended(_show_log(session, push, _read_log(output)), output, manifest, failure)


def _wait_for_end(session: NotebookSession, push: Push) -> tuple[Push, str, str]:
    """Show the log until the notebook has ended; returns the push, the status, and why the notebook failed.

    Server errors are waited out.
    """
    for waited in session.patience.attempts():
        try:
            status, reason = session.account.notebook_status(push.notebook)
        except ServerError as error:
            status = f"unknown ({error.what})"
        # Just after the push it may still be the status of the version before, which FORCE=1 did not wait for.
        is_own = session.patience.grace_left(push.time) <= 0
        if is_own and status in ENDED:
            return push, status, reason
        session.log(f"{push.notebook} is {status.lower()}, not done yet ({waited:.0f} s)")
        if is_own and status == RUNNING:
            push = _show_log(session, push, session.account.follow_log(push.notebook))
    raise KaggleError(
        "The notebook has not ended yet.",
        file=push.notebook,
        found=f"status {status} after {waited / 3600:.1f} hours",
        fix=f"later: {session.command} follows it; https://www.kaggle.com/code/{push.notebook}",
    )


def _show_log(session: NotebookSession, push: Push, log: Iterable[str]) -> Push:
    """Log the lines of a notebook's log that were not shown before; returns the push, recorded with their number."""
    shown = push.log_lines
    try:
        for line in islice(filter(str.strip, log), shown, None):
            session.log(f"  {line}")
            shown += 1
    finally:
        if shown > push.log_lines:
            push = replace(push, log_lines=shown)
            session.save(push)
    return push


def _download(session: NotebookSession, push: Push, output: Path, *, may_be_empty: bool) -> dict[str, Any]:
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
            manifest, faults = read_manifest(output)
            if not faults and manifest.get("push") == push.push:
                return manifest
            faults = faults or [f"Kaggle gives the output of another push: {manifest.get('push')}, not {push.push}"]
        except ServerError as error:
            faults = [f"{error.what} {error.found}"]
        time.sleep(session.patience.first_pause_seconds)
    raise KaggleError(
        "The notebook's output did not arrive complete.",
        file=output,
        faults=faults,
        fix=f"{session.command} downloads it again; it stays at https://www.kaggle.com/code/{push.notebook}",
    )


def read_manifest(output: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest that the script wrote, empty where there is none, and what is missing or damaged in the output."""
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        damaged = [name for name, sha256 in manifest["files"].items() if file_sha256(output / name) != sha256]
    except DAMAGE as error:
        return {}, [f"the output has no manifest: {error}"]
    return manifest, [f"{name}: not as the notebook wrote it" for name in damaged]


def _read_log(output: Path) -> list[str]:
    """The lines of the notebook's log, which Kaggle writes as JSON: a list of pieces of text."""
    text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in output.glob("*.log"))
    with suppress(ValueError, TypeError, LookupError):
        text = "\n".join(piece["data"].removesuffix("\n") for piece in json.loads(text))
    return [line.rstrip() for line in text.splitlines() if line.strip()]
