"""Kill commands at random moments, repeat them, and compare every byte with commands that were left alone.

    python benchmarks/chaos.py [--kills 120] [--seed 1] [--only train submit] [--images 2100] [--no-writes]
                               [--no-checkpoints]

Each trial copies a small project, starts a command, kills it by SIGKILL, SIGTERM or SIGINT, sometimes several times,
and repeats it until it ends well. A kill is survived if the project then has the files and folders, byte for byte, of
one whose command was left alone, and no process and no lock, temporary or partial file is left. The victim is the
whole process group, the first process alone, or one process of several under make. Then each command is also killed
just before each flush, rename and removal of a file (`at writes`).

Bytes that are times are not compared: `created`, `seconds` and `images_per_second` in the description of predictions
and parameters; the columns `images_per_second`, `seconds` and `seconds_left` of a history; `time` in the ledger; the
time on the report's page; `seconds` of lr_find, and its picture, which shows them. Of `make all`, whose ensemble has
the hashes of files with such times, `inputs`, `stamp`, `content_sha256` in ensemble.json are not compared either. The
ledger may have more rows than that of an undisturbed upload, if they are `lost` or `refused`: uploads that did not
arrive. Kaggle must have one submission.

The seconds that a kill costs are the seconds of all attempts, less those of undisturbed ones; measure them on a quiet
machine. With `--no-checkpoints`, each kill also removes what the run would go on from.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "kaggle"))

from fake.server import FakeServer
from fake.state import Graded, State

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST_ATTEMPTS, END_SECONDS = 30, 60
# What a repeated upload says if the kill came when the score was recorded, before the command ended.
ALREADY_SCORED = "Kaggle has this file already"
COMPETITION = """
title = "Noise of three brightnesses"
[data]
source = "folders"
archive = "toy.zip"
[validation]
kind = "k-fold"
folds = 2
[kaggle]
competition = "toy"
"""
COMMON = "stored_pixels = 16\nepochs = 4\nhard_share = 0.5\nema_decay = 0.9\nrefit = true\n"
RECIPES = {
    "fast": f'architecture = "fastnet"\noptimiser = "muon"\nlearning_rate = "find"\n{COMMON}'
    '[fastnet]\nwidths = [32, 32]\n[augment]\nflip = "alternating"\n',
    "tiny": f'architecture = "timm:test_resnet"\nlearning_rate = 0.01\nbatch_size = 64\n{COMMON}',
}
CLASSES = ("bird", "cat", "dog")
TIMES = ("created", "seconds", "images_per_second", "seconds_left", "time")
HASHES_OF_TIMES = ("inputs", "stamp", "content_sha256")
# Kills its own process just before the call of this number that changes files.
HOOK = """
import fcntl, itertools, os, signal
if number := int(os.environ.get("CHAOS_CALL", 0)):
    calls = itertools.count(1)

    def dying(call):
        def counted(*arguments, **options):
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)
        return counted

    os.fsync, os.replace, os.unlink, os.rename = map(dying, (os.fsync, os.replace, os.unlink, os.rename))
"""
# The command line, with a shorter wait for uploads that Kaggle may not list yet: 2 s instead of 60 s.
QUICK_SUBMIT = (
    "import podium.kaggle.waiting as w; w.Patience.__init__.__defaults__ = (0.1, 0.1, 20, 2); "
    "from podium.cli.app import main; main()"
)


@dataclass(frozen=True)
class Case:
    """A command, the case whose result it starts from, and how it is killed."""

    name: str
    command: tuple[str, ...]
    start: str  # name of the case before it; empty: a project that has only settings
    share: float  # of all kills
    victim: str = "group"  # or "first": the first process alone; or "any": one of its processes
    kills: int = 8  # in each trial at most

    @property
    def key(self) -> tuple[str, ...]:
        """Cases with the same key do the same."""
        return (self.start, *self.command)


def podium(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "podium", *arguments, "--competition", "toy")


def make(goal: str) -> tuple[str, ...]:
    return ("make", f"PYTHON={sys.executable}", goal, "COMPETITION=toy")


SUBMIT = (sys.executable, "-c", QUICK_SUBMIT, "submit", "--message", "chaos", "--competition", "toy")
IMPORT = podium("import", "colleague.s1", "--oof", "../oof.csv", "--test", "../test.csv")
CASES = (
    Case("prepare", podium("prepare"), "", 0.03, "first"),
    Case("make prepare", make("prepare"), "", 0.02, "group"),
    Case("train", podium("train", "fast"), "prepare", 0.09, "first"),
    Case("make train", make("train"), "prepare", 0.06, "group"),
    Case("make train, one process", make("train"), "prepare", 0.06, "any"),
    Case("import", IMPORT, "train", 0.23, "first"),
    Case("ensemble", podium("ensemble"), "import", 0.23, "first"),
    Case("report", podium("report"), "ensemble", 0.08, "first"),
    Case("submit", SUBMIT, "ensemble", 0.08, "first"),
    Case("submit, group", SUBMIT, "ensemble", 0.07, "group"),
    Case("make all", make("all"), "", 0.05, "group"),
)


@dataclass
class Row:
    """What a line of the table says."""

    name: str
    alone: float  # seconds
    kills: int = 0
    survived: int = 0
    trials: int = 0
    seconds: float = 0.0  # of all attempts
    faults: list[str] = field(default_factory=list)

    @property
    def lost(self) -> float:
        """Seconds that a kill costs."""
        return (self.seconds - self.trials * self.alone) / max(self.kills, 1)

    def __str__(self) -> str:
        return f"| {self.name} | {self.kills} | {self.survived} | {self.alone:.1f} | {self.lost:.1f} |"


class Chaos:
    """A scratch folder with the images, a local Kaggle, and the results of undisturbed commands."""

    def __init__(self, folder: Path, server: FakeServer, seed: int, *, images: int, checkpoints: bool):
        self.folder, self.server, self.random, self.checkpoints = folder, server, random.Random(seed), checkpoints
        self.projects: dict[str, Path] = {}  # case -> the project that it starts from
        self.results: dict[tuple[str, ...], tuple[dict[str, str], float]] = {}
        self.trials = 0
        hook = folder / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        self.environment = server.environment(os.environ, folder / "home") | {
            "PYTHONPATH": f"{hook}:{ROOT / 'src'}",
            "PODIUM_DATA": str(folder),
            "MPLCONFIGDIR": str(folder / "matplotlib"),
            "OMP_NUM_THREADS": "1",
        }
        for name in ("PODIUM_CACHE", "MAKEFLAGS", "MAKELEVEL", "COMPETITION", "PODIUM_COMMIT"):
            self.environment.pop(name, None)
        write_images(folder / "toy.zip", images)

    def project(self, case: Case) -> Path:
        """A new copy of the project that a case starts from."""
        self.trials += 1
        folder = self.folder / f"project{self.trials}"
        if case.start:
            shutil.copytree(self.projects[case.start], folder, symlinks=True)
        else:
            write_project(folder)
        return folder

    def start(self, case: Case, project: Path, **environment: str) -> subprocess.Popen:
        environment = self.environment | {"TMPDIR": str(project / "tmp")} | environment
        with (project.parent / f"{project.name}.log").open("ab") as log:
            return subprocess.Popen(
                case.command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def leave_alone(self, case: Case) -> None:
        """Run a case without a kill, and the cases before it; keep its project, its files and its seconds."""
        if case.start and case.start not in self.projects:
            self.leave_alone(next(other for other in CASES if other.name == case.start))
        if case.key in self.results:
            return
        project, started = self.project(case), time.monotonic()
        self.server.state.submissions.clear()
        code = self.start(case, project).wait()
        seconds = time.monotonic() - started
        if code:
            sys.exit(f"{case.name} fails without a kill:\n{log_of(project)}")
        self.results[case.key] = files_of(project), seconds
        if case.start == "prepare" or case.name == "prepare":
            write_tables(project)
        self.projects[case.name] = project

    def trial(self, case: Case, row: Row, *, kills: int, call: int = 0) -> bool:
        """Kill a command several times, or just before a `call`, and repeat it; whether it was killed at all."""
        project, token, done, started = self.project(case), uuid.uuid4().hex, 0, time.monotonic()
        self.server.state.submissions.clear()
        environment = {"CHAOS_TRIAL": token}
        if call:
            done = int(self.start(case, project, **environment, CHAOS_CALL=str(call)).wait() != 0)
        for _ in range(0 if call else kills):
            process = self.start(case, project, **environment)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0, row.alone))
                break  # it ended before the kill
            self.kill(case, project, process, token)
            done += 1
        if done:
            row.faults += (faults := self.finish(case, project, environment))
            row.seconds += time.monotonic() - started
            row.kills, row.trials, row.survived = row.kills + done, row.trials + 1, row.survived + done * (not faults)
        if not done or not faults:
            shutil.rmtree(project)
        return bool(done)

    def kill(self, case: Case, project: Path, process: subprocess.Popen, token: str) -> None:
        number = self.random.choice(SIGNALS)
        with suppress(ProcessLookupError):
            if case.victim == "group":
                os.killpg(process.pid, number)
            else:
                others = sorted(processes_of(token)) if case.victim == "any" else []
                os.kill(self.random.choice(others or [process.pid]), number)
        process.wait()
        if not self.checkpoints:
            shutil.rmtree(project / ".cache" / "toy" / "checkpoints", ignore_errors=True)

    def finish(self, case: Case, project: Path, environment: Mapping[str, str]) -> list[str]:
        """Repeat a command until it ends well; returns what differs then."""
        for _ in range(MOST_ATTEMPTS):
            code = self.start(case, project, **environment).wait()
            if code == 0 or (code == 2 and ALREADY_SCORED in log_of(project)):
                break
            time.sleep(1)  # an upload that outlives its command must end first
        else:
            return [f"{case.name}: it fails after a kill:\n{log_of(project)}"]
        return self.compare(case, project, environment["CHAOS_TRIAL"])

    def compare(self, case: Case, project: Path, token: str) -> list[str]:
        """What differs from the undisturbed command once all processes have ended, and the processes that have not."""
        deadline = time.monotonic() + END_SECONDS
        while (left := processes_of(token)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        expected, found = self.results[case.key][0], files_of(project)
        faults = [f"process {pid} is left" for pid in left]
        faults += [f"{name} is left" for name in sorted(found.keys() - expected.keys())]
        faults += [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        faults += [f"{name} differs" for name in sorted(found) if found[name] != expected.get(name, found[name])]
        if "submit" in case.name and len(self.server.state.submissions) != 1:
            faults.append(f"{len(self.server.state.submissions)} submissions at Kaggle")
        return [f"{case.name}: {fault} ({project.name})" for fault in faults]


def write_images(file: Path, count: int) -> None:
    """An archive of images, five of seven labelled; 2,000 or more are decoded by several processes."""
    draws = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        for place in range(count):
            stream, kind = io.BytesIO(), place % 3
            pixels = draws.integers(0, 150, (16, 16, 3)) + 50 * kind
            Image.fromarray(pixels.astype(np.uint8)).save(stream, "PNG")
            folder = f"train/{CLASSES[kind]}" if place < count * 5 // 7 else "test"
            archive.writestr(f"toy/{folder}/{place}.png", stream.getvalue())


def write_project(folder: Path) -> None:
    """A checkout with one competition."""
    settings = folder / "competitions" / "toy"
    settings.mkdir(parents=True)
    (folder / "tmp").mkdir()
    (settings / "competition.toml").write_text(COMPETITION)
    for name, text in RECIPES.items():
        (settings / f"{name}.toml").write_text(text)
    for name in ("Makefile", "environment.mk", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / "src").symlink_to(ROOT / "src")


def write_tables(project: Path) -> None:
    """Tables of probabilities beside the projects, which `import` reads."""
    head, *rows = (project / "competitions/toy/data.lock").read_text().splitlines()
    head, draws = json.loads(head), np.random.default_rng(1)
    parts = {"oof": rows[: head["train"]], "test": rows[head["train"] :]}
    for name, lines in parts.items():
        shares = draws.dirichlet(np.ones(3), len(lines))
        table = [f"{row[0]},{','.join(map(str, share))}" for row, share in zip(csv.reader(lines), shares, strict=True)]
        (project.parent / f"{name}.csv").write_text("\n".join([f"id,{','.join(CLASSES)}", *table]) + "\n")


def files_of(project: Path) -> dict[str, str]:
    """Path -> hash of the content, without times; of a folder the word folder."""
    files = {}
    for folder, folders, names in os.walk(project):
        folders[:] = [name for name in folders if name != "src"]
        files |= {str(Path(folder, name).relative_to(project)): "folder" for name in folders}
        for file in (Path(folder, name) for name in names):
            files[str(file.relative_to(project))] = hashlib.sha256(content_of(file)).hexdigest()
    return files


def content_of(file: Path) -> bytes:
    """The content of a file, without times."""
    content = file.read_bytes()
    if file.suffix == ".npz" and file.parts[-3] == "oof":
        with zipfile.ZipFile(file) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        members["about.json"] = without(json.loads(members["about.json"]), TIMES)
        return b"".join(name.encode() + member for name, member in members.items())
    if file.suffix == ".safetensors":
        end = 8 + int.from_bytes(content[:8], "little")
        head = json.loads(content[8:end])
        metadata = head.get("__metadata__", {})
        about = without(json.loads(metadata.pop("about", "{}")), TIMES)
        return json.dumps(head, sort_keys=True).encode() + about + content[end:]
    if file.suffix == ".csv" and (file.parent.name == "history" or file.name == "ledger.csv"):
        rows = [row for row in csv.DictReader(io.StringIO(content.decode())) if not is_extra(row)]
        return b"\n".join(without(row, TIMES) for row in rows)
    if file.parent.name == "lr-find" and file.suffix in (".json", ".png"):  # the picture has the seconds too
        return without(json.loads(content), TIMES) if file.suffix == ".json" else b""
    if file.suffix == ".html":
        return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC", b"", content)
    if file.name == "ensemble.json":
        return without(json.loads(content), HASHES_OF_TIMES if made_by_all(file) else ())
    return content


def is_extra(row: Mapping[str, str]) -> bool:
    """Whether a row of the ledger is of an upload that did not arrive."""
    return row.get("state") in ("lost", "refused")


def made_by_all(file: Path) -> bool:
    """Whether an ensemble was made of runs that the same command trained: those have no run of a colleague."""
    return not (file.parents[2] / "oof" / "toy" / "colleague.s1.npz").exists()


def without(record: Mapping[str, object], keys: Sequence[str]) -> bytes:
    return json.dumps({key: value for key, value in record.items() if key not in keys}, sort_keys=True).encode()


def processes_of(token: str) -> list[int]:
    """The processes of a trial, which have its token in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if token.encode() in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def log_of(project: Path) -> str:
    """The last lines that the commands in a project printed."""
    return "\n".join((project.parent / f"{project.name}.log").read_text(errors="replace").splitlines()[-25:])


@contextmanager
def opened(seed: int, *, images: int, checkpoints: bool) -> Iterator[Chaos]:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell would hand on "ignore"
    state = State("toy", lambda _: Graded("0.5", "0.5"), daily=10**6, polls_before_score=0)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, FakeServer(state) as server:
        yield Chaos(Path(folder), server, seed, images=images, checkpoints=checkpoints)


def kill_at_random(chaos: Chaos, case: Case, kills: int) -> Row:
    chaos.leave_alone(case)
    row = Row(f"{case.name} ({case.victim})", chaos.results[case.key][1])
    while row.kills < kills:
        chaos.trial(case, row, kills=min(case.kills, kills - row.kills))
    return row


def kill_at_writes(chaos: Chaos, case: Case) -> Row:
    chaos.leave_alone(case)
    row, call = Row(f"{case.name} (at writes)", chaos.results[case.key][1]), 1
    while chaos.trial(case, row, kills=1, call=call):
        call += 1
    return row


def start_two_at_once(chaos: Chaos, case: Case) -> list[str]:
    """What is wrong after two commands in one folder at the same time."""
    chaos.leave_alone(case)
    project, token = chaos.project(case), uuid.uuid4().hex
    codes = [process.wait() for process in [chaos.start(case, project, CHAOS_TRIAL=token) for _ in range(2)]]
    faults = chaos.compare(case, project, token)
    return faults if codes == [0, 0] else [*faults, f"exit codes {codes}:\n{log_of(project)}"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=120)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--only", nargs="+", default=[case.name for case in CASES])
    arguments.add_argument("--images", type=int, default=2100)
    arguments.add_argument("--no-writes", action="store_true")
    arguments.add_argument("--no-checkpoints", action="store_true")
    options = arguments.parse_args()
    cases, rows = [case for case in CASES if case.name in options.only], []
    print("| command (victim) | kills | survived | seconds undisturbed | seconds lost a kill |")
    print("| --- | --- | --- | --- | --- |")
    with opened(options.seed, images=options.images, checkpoints=not options.no_checkpoints) as chaos:
        for case in cases:
            kills = max(1, round(options.kills * case.share / sum(other.share for other in cases)))
            rows.append(kill_at_random(chaos, case, kills))
            print(rows[-1], flush=True)
        for case in cases if not options.no_writes else ():
            if case.victim == "first":
                rows.append(kill_at_writes(chaos, case))
                print(rows[-1], flush=True)
        faults = [fault for row in rows for fault in row.faults]
        for case in cases:
            if case.name == "make all":
                faults += (twice := start_two_at_once(chaos, case))
                print("two `make all` at once in one folder:", "other files" if twice else "the same files")
        print(*faults, sep="\n")
    kills, survived = sum(row.kills for row in rows), sum(row.survived for row in rows)
    print(f"{survived} of {kills} kills survived; load average {os.getloadavg()[0]:.1f}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
