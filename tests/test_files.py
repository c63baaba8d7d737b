"""Atomic writes, and locks that do not wait or outlive their holder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podium.files import atomic_write, file_lock


def test_a_lock_that_does_not_wait_is_refused_while_another_holds_it_and_free_afterwards(tmp_path):
    with (
        file_lock(tmp_path / "lock", wait=False),
        pytest.raises(BlockingIOError),
        file_lock(tmp_path / "lock", wait=False),
    ):
        pass
    with file_lock(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize("inherited", [True, False])
def test_an_inherited_lock_is_held_by_the_processes_that_were_started_meanwhile(tmp_path, inherited):
    with file_lock(tmp_path / "lock", inherited=inherited):
        command = [sys.executable, "-c", "input(1)"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout.read(1) == b"1"  # it runs: a process that only begins still has everything open
    try:
        if inherited:
            with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", wait=False):
                pass
        else:
            with file_lock(tmp_path / "lock", wait=False):
                pass
    finally:
        child.communicate(b"\n")
    with file_lock(tmp_path / "lock", wait=False):
        pass


def test_an_atomic_write_is_on_disk_before_it_replaces_the_file(tmp_path, monkeypatch):
    file, calls = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(("fsync", os.fstat(descriptor).st_size)))
    monkeypatch.setattr(os, "replace", lambda source, target: calls.append(("replace", Path(target))))
    with atomic_write(file) as stream:
        stream.write(b"12345")
    assert calls == [("fsync", 5), ("replace", file)]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(file) as stream:
        stream.write(b"new")
        raise RuntimeError
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
