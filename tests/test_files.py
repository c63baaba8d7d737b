"""Atomic writes, and locks that do not wait or outlive their holder."""

import errno
import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podium.errors import PodiumError
from podium.files import atomic_write, cache_lock, file_lock, remove_abandoned_temporaries, write_file


def test_a_lock_that_does_not_wait_is_refused_while_another_holds_it_and_free_afterwards(tmp_path):
    with (
        file_lock(tmp_path / "lock", refusal=BlockingIOError()),
        pytest.raises(BlockingIOError),
        file_lock(tmp_path / "lock", refusal=BlockingIOError()),
    ):
        pass
    with file_lock(tmp_path / "lock", refusal=BlockingIOError()):
        pass


def test_of_many_at_once_one_holds_a_lock_and_the_last_one_leaves_no_file(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_):
        with file_lock(tmp_path / "lock"):  # removed and made anew all the time
            number = int(counter.read_text())
            counter.write_text(str(number + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(400)))
    assert counter.read_text() == "400" and os.listdir(tmp_path) == ["counter"]


def test_who_waits_for_a_lock_is_told_once_and_then_holds_it(tmp_path):
    waits = []
    with ThreadPoolExecutor(1) as pool:
        with file_lock(tmp_path / "lock", on_wait=lambda: waits.append("free")):
            told = pool.submit(lambda: file_lock(tmp_path / "lock", on_wait=lambda: waits.append("busy")).__enter__())
            while not waits:
                pass
        told.result(timeout=20)
    assert waits == ["busy"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_command_is_refused_and_a_file_is_written_whole(tmp_path, monkeypatch, number):
    """As on some network disks."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    for lock in (file_lock, cache_lock):
        with pytest.raises(PodiumError, match=r"(?s)has no locks.*lock.*local disk"), lock(tmp_path / "cache" / "lock"):
            pytest.fail("two commands could do this at once")
    write_file(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole" and sorted(os.listdir(tmp_path)) == ["cache", "file"]


@pytest.mark.parametrize("inherited", [True, False])
def test_an_inherited_lock_is_held_by_the_processes_that_were_started_meanwhile(tmp_path, inherited):
    with file_lock(tmp_path / "lock", inherited=inherited):
        command = [sys.executable, "-c", "input(1)"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        assert child.stdout.read(1) == b"1"  # it runs: a process that only begins still has everything open
    try:
        if inherited:
            with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", refusal=BlockingIOError()):
                pass
        else:
            with file_lock(tmp_path / "lock", refusal=BlockingIOError()):
                pass
    finally:
        child.communicate(b"\n")
    with file_lock(tmp_path / "lock", refusal=BlockingIOError()):
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


KILLED = """
import os, signal, sys
from pathlib import Path
from podium.files import atomic_write
with atomic_write(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_write_has_left_is_removed_by_the_next_write_of_the_file(tmp_path):
    file, other = tmp_path / "[a]", tmp_path / "b"
    for target in (file, file, other):
        assert subprocess.run([sys.executable, "-c", KILLED, target], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 2  # the second write has removed what the first had left
    with atomic_write(file) as stream:
        stream.write(b"new")
    left = [name for name in os.listdir(tmp_path) if name != "[a]"]
    assert file.read_bytes() == b"new" and len(left) == 1 and left[0].startswith(".b.")


def test_two_writes_of_one_file_at_a_time_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "file"
    with atomic_write(file) as first:
        first.write(b"first")
        with atomic_write(file) as second:
            second.write(b"second")
        assert file.read_bytes() == b"second"
    assert file.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]


def test_a_temporary_file_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    file, flock, removed = tmp_path / "file", fcntl.flock, []

    def remove_first(stream, operation):
        if not removed:
            removed.append(stream.name)
            os.unlink(stream.name)
        flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with atomic_write(file) as stream:
        stream.write(b"new")
    assert removed and file.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


def test_temporaries_of_the_cache_are_removed_unless_somebody_holds_the_lock(tmp_path):
    for name in ("dead", "alive"):
        (tmp_path / name / "a.tmp").mkdir(parents=True)
        for file in ("lock", "a.tmp/1.png", ".b.tmp", "train.npy"):
            (tmp_path / name / file).touch()
    with file_lock(tmp_path / "alive" / "lock"):
        remove_abandoned_temporaries(tmp_path)
        assert sorted(os.listdir(tmp_path / "alive")) == [".b.tmp", "a.tmp", "lock", "train.npy"]
    assert os.listdir(tmp_path / "dead") == ["train.npy"]


def test_a_file_that_is_written_without_the_lock_of_its_folder_is_not_abandoned(tmp_path):
    """As the features are, which have a lock of their own."""
    with atomic_write(tmp_path / "features" / "a.npz") as stream:
        remove_abandoned_temporaries(tmp_path)
        stream.write(b"features")
    assert (tmp_path / "features" / "a.npz").read_bytes() == b"features"
