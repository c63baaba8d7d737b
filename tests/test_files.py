"""Locks that do not wait, and that outlive their holder."""

import subprocess
import sys

import pytest

from podium.files import file_lock


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
