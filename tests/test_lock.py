"""A lock is read as it was written, and an edited lock is refused."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from podium.errors import DataError
from podium.lock import Lock, lock_text, read_lock, write_lock
from podium.plan.stamp import file_sha256, lock_sha256

LOCK = Lock(
    fingerprint="f" * 64,
    classes=("cat", "dög, large"),
    train_ids=np.array(["a,1", 'b"2', "c"]),
    train_labels=np.array([0, 1, 1]),
    folds=np.array([-1, 0, -1]),
    test_ids=np.array(["10", "9"]),
    validation={"kind": "holdout", "rows": 1},
)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "pets" / "data.lock"
    write_lock(file, LOCK)
    return file


def test_a_lock_reads_as_it_was_written(file):
    read = read_lock(file)
    for name in ("fingerprint", "classes", "validation", "fold_sha256"):
        assert getattr(read, name) == getattr(LOCK, name)
    for name in ("train_ids", "train_labels", "folds", "test_ids"):
        assert getattr(read, name).tolist() == getattr(LOCK, name).tolist()
    assert lock_text(read) == lock_text(LOCK)


def test_the_digests_of_files_are_kept_but_do_not_make_runs_stale(file):
    before, plain = file.read_bytes(), lock_sha256(file)
    assert plain == file_sha256(file)
    write_lock(file, dataclasses.replace(LOCK, files={"pets.zip": "1" * 64}))
    assert read_lock(file).files == {"pets.zip": "1" * 64}
    assert file.read_bytes() != before and lock_sha256(file) == plain
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1').replace("b", "d"))
    assert lock_sha256(file) != plain
    file.write_bytes(b'"files": {')
    assert lock_sha256(file) == file_sha256(file)


def test_only_a_file_with_another_digest_is_changed():
    lock = dataclasses.replace(LOCK, files={"a.zip": "1", "b.csv": "2"})
    assert lock.changed_files({"a.zip": "1", "b.csv": "3", "c.csv": "4"}) == ["b.csv"]


def test_a_lock_is_text_with_a_row_a_line(file):
    assert file.read_text().splitlines()[1:] == ['"a,1",0,-1', '"b""2",1,0', "c,1,-1", "10", "9"]


def test_a_lock_with_the_same_content_is_not_written(file):
    before = file.stat()
    write_lock(file, LOCK)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_missing_lock_says_what_to_type(tmp_path):
    with pytest.raises(DataError, match=r"not prepared(.|\n)*make prepare COMPETITION=pets"):
        read_lock(tmp_path / "pets" / "data.lock")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("c,1,-1", "c,1,0", "changed after it was written"),
        ("c,1,-1", "d,1,-1", "changed after it was written"),
        ("c,1,-1", "c,0,-1", "changed after it was written"),
        ("c,1,-1", "c,1", "changed after it was written"),
        ('"cat"', '"cow"', "changed after it was written"),
        ("10\n", "11\n", "changed after it was written"),
        ("10\n", "", "changed after it was written"),
        ('"train": 3', '"train": 2', r"5 rows; expected 2 \+ 2"),
        ('"train": 3, "test": 2', '"train": 2, "test": 3', "Not a data.lock"),
        ('"rows_sha256"', '"sha"', "rows_sha256"),
        ('"format": 1', '"format": 9', "format 9"),
        ('"classes"', '"klasses"', "classes"),
        ("{", "[", "Not a data.lock"),
    ],
)
def test_a_lock_that_was_edited_is_refused(file, old, new, match):
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=f"(.|\n)*{match}"):
        read_lock(file)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_an_id_with_the_end_of_a_line_in_it_survives(file, end):
    ids = [f"a{end}b", f"c{end}"]
    write_lock(file, dataclasses.replace(LOCK, test_ids=np.array(ids)))
    assert read_lock(file).test_ids.tolist() == ids


def test_a_lock_is_read_without_pillow_sklearn_or_torch():
    code = "import podium.lock, sys; print([m for m in ('PIL', 'sklearn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_competitions_with_the_same_data_refer_to_one_lock_until_one_of_them_changes(file, tmp_path):
    link = tmp_path / "other.lock"
    link.symlink_to(file)
    content = file.read_bytes()
    write_lock(link, LOCK)
    assert link.is_symlink()
    write_lock(link, dataclasses.replace(LOCK, test_ids=np.array(["1", "2"])))
    assert file.read_bytes() == content and read_lock(link).test_ids.tolist() == ["1", "2"]
