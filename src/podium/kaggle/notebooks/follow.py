"""Stale runs trained on Kaggle's GPUs: packed, pushed once, followed, and brought back into `oof/`.

What was pushed is written down in `.kernel/<competition>/push.json` before it is sent, so that whatever ends Podium in
between, the next command follows that kernel instead of pushing another one.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from podium.errors import KaggleError
from podium.files import atomic_write
from podium.kaggle.cli_messages import PushError, ServerError
from podium.kaggle.ledger import TIME, now
from podium.kaggle.notebooks.dataset import send_dataset
from podium.kaggle.notebooks.import_output import ManifestError, TakenIn, damaged, read_manifest, take_in
from podium.kaggle.notebooks.in_kernel import MANIFEST
from podium.kaggle.notebooks.kernels import COMPLETE, ENDED, Kernels
from podium.kaggle.notebooks.package import Publish, check_kernel, pack
from podium.kaggle.session import Patience, Tell, only_one
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun

# A session, and some hours in the queue before it.
PATIENCE = Patience(first_pause_seconds=10, longest_pause_seconds=60, wait_seconds=14 * 3600, grace_seconds=60)
DATASET_PATIENCE = Patience(first_pause_seconds=3, longest_pause_seconds=20, wait_seconds=1200)
ATTEMPTS = 3
LOG_LINES_SHOWN = 15
MOST_SILENT_ANSWERS = 20


@dataclass(frozen=True)
class Push:
    """A kernel that was pushed, or that was about to be: `push` is in its script, and in its output's manifest."""

    push: str
    kernel: str
    time: str
    runs: tuple[str, ...]
    arrived: bool = False

    def age_seconds(self) -> float:
        """Seconds since the push."""
        return (datetime.now(UTC) - datetime.strptime(self.time, TIME).replace(tzinfo=UTC)).total_seconds()


@dataclass(frozen=True)
class Bench:
    """Where kernels of one competition are made."""

    project: Project
    competition: str
    kernels: Kernels
    tell: Tell
    publish: Publish
    wheels: str = ""
    patience: Patience = PATIENCE
    dataset_patience: Patience = DATASET_PATIENCE

    @property
    def folder(self) -> Path:
        """Everything of these kernels that is here."""
        return self.project.kernel_folder(self.competition)

    @property
    def push_file(self) -> Path:
        """The push that is not brought back yet."""
        return self.folder / "push.json"

    @property
    def again(self) -> str:
        """What to type to go on."""
        return f"make kernel COMPETITION={self.competition}"


def train_in_kernel(bench: Bench, runs: Sequence[PlannedRun], *, force: bool = False) -> TakenIn | None:
    """Train stale runs at Kaggle and bring their predictions into `oof/`; None where nothing is to be done.

    A kernel that was pushed before is followed to its end instead, unless `force` forgets it. Raises KaggleError
    for everything that goes wrong on the way, with what to type.
    """
    with only_one(bench.folder / ".lock", f"Another command follows the kernel of {bench.competition}."):
        if force:
            bench.push_file.unlink(missing_ok=True)
        push = _pending(bench)
        if push is None:
            if not runs:
                return None
            push = _send(bench, runs, force=force)
        return _bring_back(bench, push)


def _pending(bench: Bench) -> Push | None:
    """The push that is still to be followed, if it arrived at Kaggle."""
    try:
        told = json.loads(bench.push_file.read_text(encoding="utf-8"))
        push = Push(**told | {"runs": tuple(told["runs"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise KaggleError(
            "Not a note of a push.", file=bench.push_file, found=str(error), fix=f"{bench.again} FORCE=1 forgets it"
        ) from None
    if not push.arrived:
        if not _arrived(bench, push):
            bench.tell(f"the push of {push.time} never arrived at Kaggle")
            bench.push_file.unlink()
            return None
        push = _note(bench, replace(push, arrived=True))
    bench.tell(f"{push.kernel} of {push.time} is followed ({', '.join(push.runs)}); FORCE=1 would forget it")
    return push


def _arrived(bench: Bench, push: Push) -> bool:
    """Whether Kaggle shows the push; it may take its time to."""
    while True:
        is_last_look = push.age_seconds() >= bench.patience.grace_seconds
        if _is_newest(bench, push):
            return True
        if is_last_look:
            return False
        bench.tell(f"the push of {push.time} is not at Kaggle yet")
        time.sleep(bench.patience.first_pause_seconds)


def _is_newest(bench: Bench, push: Push) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return push.push in bench.kernels.source(push.kernel, Path(folder))


def _note(bench: Bench, push: Push) -> Push:
    with atomic_write(bench.push_file) as stream:
        stream.write((json.dumps(asdict(push), indent=2) + "\n").encode())
    return push


def _send(bench: Bench, runs: Sequence[PlannedRun], *, force: bool) -> Push:
    """Pack, send the dataset if Kaggle has another one, and push."""
    check_kernel(bench.project, bench.competition)
    user = bench.kernels.user()
    package = pack(
        bench.project,
        bench.competition,
        runs,
        user=user,
        wheels=bench.wheels,
        publish=bench.publish,
        tell=bench.tell,
        force=force,
    )
    for one in package.brought:
        bench.tell(f"  {one.bytes:>12,}  {one.name}")
    bench.tell(f"  {sum(package.sizes.values()):>12,}  bytes in {len(package.brought)} files: {package.files}")
    patience = bench.dataset_patience
    send_dataset(bench.kernels, package, tell=bench.tell, patience=patience, again=bench.again, force=force)
    push = Push(package.push, package.kernel, now(), tuple(one.run for one in runs))
    _note(bench, push)
    try:
        bench.kernels.push(package.script)
    except PushError:
        bench.push_file.unlink()
        raise
    except BaseException:
        _note(bench, replace(push, time=now()))  # it may have arrived: the next command looks
        raise
    bench.tell(f"pushed {push.kernel}: {len(runs)} runs; it goes on without this command, {bench.again} follows it")
    return _note(bench, replace(push, arrived=True))


def _bring_back(bench: Bench, push: Push) -> TakenIn:
    """Wait for the end, fetch what the kernel left, and take it in."""
    status, failure = _follow(bench, push)
    output = bench.folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if status != COMPLETE:
        raise _failed(bench, push, output, failure or f"status {status}")
    taken = _taken(bench, output, _fetch(bench, push, output))
    bench.push_file.unlink()
    failed = [run for run in push.runs if run not in (*taken.taken, *taken.kept, *taken.refused, *taken.left)]
    if taken.refused or failed:
        faults = [*taken.refusals, *(f"{run}: its training failed" for run in failed)]
        told = f"{len(taken.taken)} taken in: {', '.join(taken.taken) or 'none'}"
        log = _log(output)[-LOG_LINES_SHOWN:] if failed else []
        raise KaggleError(
            "Not every run of the kernel could be taken in.",
            file=output,
            found=told,
            faults=[*faults, *log],
            fix=f"fix it, then {bench.again} trains what is stale",
        )
    return taken


def _follow(bench: Bench, push: Push) -> tuple[str, str]:
    """Ask until the kernel has ended; a server that fails now and then ends nothing."""
    silent = 0
    for pause in bench.patience.pauses():
        try:
            status, failure = bench.kernels.status(push.kernel)
            silent = 0
        except ServerError as error:
            silent += 1
            if silent > MOST_SILENT_ANSWERS:
                raise
            status, failure = f"silent ({error.what})", ""
        # Just after a push the answer may be about the kernel before it.
        if status in ENDED and push.age_seconds() >= bench.patience.grace_seconds:
            return status, failure
        bench.tell(f"{push.kernel} is {status.lower()}, not done yet ({push.age_seconds():.0f} s)")
        time.sleep(pause)
    raise KaggleError(
        "The kernel has not ended yet.",
        file=push.kernel,
        found=f"status {status} after {push.age_seconds() / 3600:.1f} hours",
        fix=f"later: {bench.again} follows it; https://www.kaggle.com/code/{push.kernel}",
    )


def _taken(bench: Bench, output: Path, manifest: dict) -> TakenIn:
    taken = take_in(bench.project, bench.competition, output, manifest)
    if taken.kept:
        bench.tell(f"left as they are here, where they are up to date by now: {', '.join(taken.kept)}")
    return taken


def _fetch(bench: Bench, push: Push, output: Path, *, may_lack: bool = False) -> dict:
    """Fetch the output until every file is as the manifest says; raises KaggleError after some attempts.

    Where it `may_lack` a manifest, none means that no run has ended.
    """
    faults: list[str] = []
    for attempt in range(ATTEMPTS):
        bench.tell("fetching the output" + (f" again, attempt {attempt + 1}: {faults[0]}" if attempt else ""))
        try:
            bench.kernels.output(push.kernel, output)
            if may_lack and not (output / MANIFEST).exists():
                return {"trained": [], "left": []}
            manifest = read_manifest(output)
        except (ServerError, ManifestError) as error:
            faults = [f"{error.what} {error.found}"]
            time.sleep(bench.patience.first_pause_seconds)
            continue
        if manifest.get("push") != push.push:
            raise _of_another_push(bench, push, manifest)
        faults = [f"{name}: not as the kernel wrote it" for name in damaged(output, manifest)]
        if not faults:
            return manifest
    raise KaggleError(
        "The kernel's output did not arrive whole.",
        file=output,
        faults=faults,
        fix=f"{bench.again} fetches it again; it stays at https://www.kaggle.com/code/{push.kernel}",
    )


def _of_another_push(bench: Bench, push: Push, manifest: dict) -> KaggleError:
    """The error, after which the push is forgotten unless it is Kaggle's newest: then its output is still to come."""
    what = "The kernel's output is of the push before: Kaggle does not show this one's yet."
    if not _is_newest(bench, push):
        what = "The kernel's output is of another push: it was pushed again from elsewhere."
        bench.push_file.unlink()
    found = f"push {manifest.get('push')}"
    return KaggleError(what, file=push.kernel, expected=f"push {push.push}", found=found, fix=bench.again)


def _failed(bench: Bench, push: Push, output: Path, failure: str) -> KaggleError:
    """The error that shows the end of the log; runs that ended before it are taken in.

    Raises KaggleError, and still follows the push, where its output does not arrive: there may be such runs.
    """
    bench.tell(f"{push.kernel} failed: {failure}; FORCE=1 would forget it")
    taken = _taken(bench, output, _fetch(bench, push, output, may_lack=True))
    log = _log(output)
    bench.push_file.unlink()
    return KaggleError(
        "The kernel failed at Kaggle.",
        file=output if log else push.kernel,
        found=failure + (f"; taken in before it: {', '.join(taken.taken)}" if taken.taken else ""),
        faults=[*taken.refusals, *log[-LOG_LINES_SHOWN:]],
        fix=f"fix it, then {bench.again}; its page: https://www.kaggle.com/code/{push.kernel}",
    )


def _log(output: Path) -> list[str]:
    """The lines of the log that came with the output; Kaggle writes it as JSON with a piece of text each."""
    lines: list[str] = []
    for file in sorted(output.glob("*.log")):
        text = file.read_text(encoding="utf-8", errors="replace")
        with suppress(ValueError, TypeError, LookupError):
            text = "".join(piece["data"] for piece in json.loads(text))
        lines += [line.rstrip() for line in text.splitlines() if line.strip()]
    return lines
