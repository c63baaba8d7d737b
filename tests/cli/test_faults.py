"""A disk that is full or cannot be written: one screen, every old file as it was, and nothing beside them."""

import errno
import io
import os
import shutil
import subprocess
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from podium.lock import read_lock

COMMANDS = {
    "prepare": ["prepare"],
    "train": ["train", "tiny"],
    "lr-find": ["lr-find", "tiny"],
    "import": ["import", "colleague.s1", "--oof", "oof.npz", "--test", "test.npz"],
    "ensemble": ["ensemble"],
    "pseudo": ["pseudo", "--threshold", "0.5"],
    "report": ["report"],
}
# Commands before one, whose files it reads.
BEFORE = {"prepare": [], "train": [], "lr-find": [], "import": []}
BEFORE |= {"pseudo": ["train", "import", "ensemble"], "report": ["train", "import", "ensemble"]}
# Commands that take seconds: only some of their writes fail.
SLOW = ("prepare", "train", "lr-find")


class FullDisk:
    """A disk on which one write, or one flush, has no space left: that of the number `fails_at`, counted from 1.

    Of each file, `every_write` counts, or only the first one.
    """

    def __init__(self, monkeypatch, *, every_write: bool):
        self.calls, self.fails_at, fsync, disk = 0, 0, os.fsync, self

        class Raw(io.FileIO):
            def write(self, content):
                if every_write or not self.tell():
                    disk.count()
                return super().write(content)

        def flush(descriptor):
            disk.count()
            fsync(descriptor)

        original = Path.open

        def opened(file, mode="r", *arguments, **keys):
            return io.BufferedWriter(Raw(file, "w")) if mode == "wb" else original(file, mode, *arguments, **keys)

        monkeypatch.setattr(Path, "open", opened)
        monkeypatch.setattr(os, "fsync", flush)

    def count(self):
        self.calls += 1
        if self.calls == self.fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_tables(folder: Path) -> None:
    """Tables of a colleague, for `import`."""
    lock = read_lock(folder / "competitions" / "digits" / "data.lock")
    for name, ids in [("oof", lock.train_ids[lock.folds >= 0]), ("test", lock.test_ids)]:
        logits = np.random.default_rng(len(ids)).normal(scale=9, size=(len(ids), 10))
        np.savez(folder / f"{name}.npz", id=ids, **dict(zip(lock.classes, logits.T, strict=True)))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def check_one_screen(done, reason: str) -> None:
    assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) < 12 and "file:" in done.stderr


@pytest.fixture
def started(project, podium):
    """A function that returns the project in which a command can be given."""

    def start(command: str) -> Path:
        (project / "competitions" / "digits" / "fast.toml").unlink()
        write_tables(project)
        for name in BEFORE.get(command, ["train", "import"]):
            assert podium(project, *COMMANDS[name]).returncode == 0
        if command == "prepare":
            (project / "competitions" / "digits" / "data.lock").unlink()
            shutil.rmtree(project / ".cache")
        return project

    return start


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_is_full_at_any_write_leaves_every_file_and_the_command_can_be_repeated(
    started, podium, monkeypatch, command
):
    project = started(command)
    disk, before = FullDisk(monkeypatch, every_write=command not in SLOW), files_of(project)
    for fails_at in count(1, 3 if command in SLOW else 1):
        disk.calls, disk.fails_at = 0, fails_at
        done = podium(project, *COMMANDS[command])
        if disk.calls < fails_at:
            break
        if "the training goes on" not in done.stdout:  # without a checkpoint
            check_one_screen(done, "No space left on device")
        after = files_of(project)
        assert not [name for name in after if name.endswith((".tmp", "/lock", ".s1.lock"))]
        assert all(after.get(name) == content for name, content in before.items())
        for name in after.keys() - before.keys():  # such as the CSV of an ensemble without its JSON
            (project / name).unlink()
    assert done.returncode == 0 and fails_at > 2


@contextmanager
def mounted(folder: Path, options: str):
    """A small disk at `folder`; the test is skipped where it may not be mounted."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no disk may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("command", "folder"), [("import", "oof"), ("ensemble", "submissions"), ("train", "oof"), ("report", "reports")]
)
def test_a_small_disk_that_is_really_full_is_one_screen(started, podium, command, folder):
    project = started(command)
    shutil.rmtree(project / folder, ignore_errors=True)
    with mounted(project / folder, "size=1m"):
        filler = project / folder / "filler"
        filler.write_bytes(bytes((1 << 20) - 8192))
        check_one_screen(podium(project, *COMMANDS[command]), "No space left on device")
        assert not list((project / folder).rglob("*.tmp"))
        filler.unlink()
        if command != "report":  # which needs a larger one, and the runs
            assert podium(project, *COMMANDS[command]).returncode == 0


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("prepare", ".cache"),
        ("prepare", "competitions"),
        ("train", "oof"),
        ("train", "models"),
        ("train", ".cache"),
        ("ensemble", "submissions"),
        ("report", "reports"),
        ("import", "oof"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_screen_and_nothing_is_trained(started, podium, command, folder):
    project = started(command)
    place, copy = project / folder, project / "copy"
    if place.is_dir():
        shutil.copytree(place, copy)
    with mounted(place, "size=64m"):
        if copy.is_dir():
            shutil.copytree(copy, place, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        done = podium(project, *COMMANDS[command])
        check_one_screen(done, "Read-only file system")
        assert "epochs of" not in done.stdout
