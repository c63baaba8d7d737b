"""A notebook at Kaggle: pushed once, followed to its end, and its output downloaded.

The push is recorded in `.kernel/<competition>/<goal of make>/push.json` before it is sent. Whatever stops Podium in
between, the next command follows the same notebook and does not push another one.
"""

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from podium.errors import KaggleError
from podium.files import DAMAGE, write_file
from podium.kaggle.account import COMPLETE, ENDED, FAILED, READY, RUNNING
from podium.kaggle.answers import RefusedError, ServerError
from podium.kaggle.notebooks.package import DATASET, Push, push_request
from podium.kaggle.notebooks.script import MANIFEST
from podium.kaggle.session import Session
from podium.kaggle.waiting import now
from podium.plan.stamp import file_sha256

ATTEMPTS = 3
DATASET_SECONDS = 1200  # in which a dataset becomes ready, if it ever does
LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Ended:
    """A notebook that has ended: its downloaded output and manifest, and if it failed why."""

    push: Push
    output: Path
    manifest: Mapping[str, Any]
    failure: str

    def error(self, session: Session, what: str, found: str, faults: Sequence[str], *, log: bool) -> KaggleError:
        """The error for a notebook that failed, or whose output is not what it should be; with the end of its `log`."""
        return KaggleError(
            "The notebook failed at Kaggle." if self.failure else what,
            file=self.output,
            found="; ".join(filter(None, [self.failure, found])) or None,
            faults=[*faults, *(_read_log(self.output)[-LOG_LINES_SHOWN:] if log else [])],
            fix=f"correct the cause, then {session.command()} again; "
            f"the notebook's page: https://www.kaggle.com/code/{self.push.notebook}",
        )


def pending_push(session: Session, *, force: bool) -> Push | None:
    """The recorded push, unless `force` forgets it; None where Kaggle's newest version of the notebook is another."""
    if force:
        session.push_file.unlink(missing_ok=True)
    try:
        push = Push(**json.loads(session.push_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        fix = f"{session.command()} FORCE=1 forgets the push"
        raise KaggleError("Not a record of a push.", file=session.push_file, found=str(error), fix=fix) from None
    while True:
        source, version = session.kaggle.notebook_source(push.notebook)
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


def push_package(session: Session, push: Push) -> Push:
    """Upload the dataset of a packed notebook if it changed, and push the notebook, which then runs."""
    upload_dataset(session, push.dataset, session.folder / DATASET / push.archive)
    push = replace(push, time=now())
    _record(session, push)
    try:
        version = session.kaggle.push_notebook(push_request(session.workspace, session.folder, push))
    except RefusedError:
        session.push_file.unlink()
        raise
    except BaseException:
        _record(session, replace(push, time=now()))  # it may have arrived: the next command asks Kaggle
        raise
    push = replace(push, version=version)
    _record(session, push)
    session.log(
        f"pushed {push.notebook}, version {version}: it runs on without this command, {session.command()} follows"
    )
    return push


def _record(session: Session, push: Push) -> None:
    write_file(session.push_file, json.dumps(asdict(push), indent=2).encode())


def upload_dataset(session: Session, name: str, archive: Path) -> None:
    """Upload a dataset's archive unless Kaggle has it already, and wait until the dataset is ready.

    The package kaggle skips a file that it cannot upload, without an error: only Kaggle's list shows what arrived.
    Raises KaggleError where the archive is not there in time.
    """
    account, before = session.kaggle, session.kaggle.dataset_files(name)
    if archive.name in (before or ()):
        session.log(f"{archive.name} is at Kaggle already")
    else:
        session.log(f"uploading {archive.name} into {name}: {archive.stat().st_size:,} bytes")
        account.upload_dataset(archive.parent, new=before is None, message=archive.name)
    for _ in session.patience.attempts(most_seconds=DATASET_SECONDS):
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
        fix=f"{session.command()}; or first delete https://www.kaggle.com/datasets/{name}",
    )


def wait_for_output(session: Session, push: Push) -> Ended:
    """Wait until the notebook has ended, and download its output; raises KaggleError where one takes too long."""
    status, reason, lines_shown = _wait_for_end(session, push)
    output, failure = session.folder / "output", "" if status == COMPLETE else reason or f"status {status}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if failure:
        session.log(f"{push.notebook} failed: {failure}; FORCE=1 would forget it")
    manifest = _download(session, push, output, may_be_empty=bool(failure))
    _show_log(session, _read_log(output), lines_shown)
    return Ended(push, output, manifest, failure)


def _wait_for_end(session: Session, push: Push) -> tuple[str, str, int]:
    """Show the log until the notebook has ended; returns the status, why it failed, and how many lines were shown.

    Server errors are waited out.
    """
    lines_shown = 0
    for waited in session.patience.attempts():
        try:
            status, reason = session.kaggle.notebook_status(push.notebook)
        except ServerError as error:
            status = f"unknown ({error.what})"
        # Just after the push it may still be the status of the version before, which FORCE=1 did not wait for.
        is_own = session.patience.grace_left(push.time) <= 0
        if is_own and status in ENDED:
            return status, reason, lines_shown
        session.log(f"{push.notebook} is {status.lower()}, not done yet ({waited:.0f} s)")
        if is_own and status == RUNNING:
            lines_shown = _show_log(session, session.kaggle.follow_log(push.notebook), lines_shown)
    raise KaggleError(
        "The notebook has not ended yet.",
        file=push.notebook,
        found=f"status {status} after {waited / 3600:.1f} hours",
        fix=f"later: {session.command()} follows it; https://www.kaggle.com/code/{push.notebook}",
    )


def _show_log(session: Session, log: Iterable[str], lines_shown: int) -> int:
    """Log the lines of a notebook's log after those that were shown before; returns how many these are now."""
    for line in islice(filter(str.strip, log), lines_shown, None):
        session.log(f"  {line}")
        lines_shown += 1
    return lines_shown


def _download(session: Session, push: Push, output: Path, *, may_be_empty: bool) -> dict[str, Any]:
    """Download the output until every file is as the manifest says; returns the manifest.

    The output of a failed notebook `may_be_empty`: then no run has ended. Raises KaggleError after some attempts.
    """
    faults: list[str] = []
    for attempt in range(ATTEMPTS):
        session.log("downloading the output" + (f" again, attempt {attempt + 1}: {faults[0]}" if faults else ""))
        try:
            session.kaggle.download_output(push.notebook, output)
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
        fix=f"{session.command()} downloads it again; it stays at https://www.kaggle.com/code/{push.notebook}",
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
