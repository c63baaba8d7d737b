"""Downloads that are cut, unsafe or too large, by the real kaggle CLI."""

import shutil
import zipfile
from collections import namedtuple

import pytest
from fake.state import Fault

from podium.errors import DataError, KaggleError
from podium.kaggle.download import download

CONTENT = b"id,label\n" + b"1,bird\n" * 2000
CHUNK = 1 << 20  # what the kaggle CLI writes at once
LONG = bytes(3 * CHUNK)


@pytest.fixture
def offered(project):
    def offer(names=("train.csv",), listed=None, content=CONTENT):
        file = project.folder / "made.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, content)
        project.state.archive = file.read_bytes()
        project.state.files = listed or dict.fromkeys(names, len(content))

    offer()
    project.offer = offer
    return project


def fetch(project):
    return download(project.session().kaggle, project.folder / "data", log=project.lines.append)


def test_a_download_is_whole_and_is_not_fetched_again(offered):
    file = fetch(offered)
    assert file.read_bytes() == offered.state.archive and [other.name for other in file.parent.iterdir()] == [file.name]
    asked = offered.state.asked.count("DownloadDataFiles")
    assert fetch(offered) == file and offered.state.asked.count("DownloadDataFiles") == asked
    assert "exists and is whole; 1 file(s) have the names" in offered.lines[-1]


@pytest.mark.parametrize("announced", [True, False])
def test_a_truncated_download_with_exit_code_0_is_fetched_anew(offered, announced):
    offered.state.announce_length = announced
    offered.state.script["archive.zip"] = [Fault(cut=True)]
    assert fetch(offered).read_bytes() == offered.state.archive
    assert "attempt 2" in offered.lines[-2] and "cut or damaged" in offered.lines[-2]


def test_a_connection_that_breaks_in_mid_download_is_resumed_where_it_broke(offered):
    offered.offer(content=LONG)
    offered.state.script["archive.zip"] = [Fault(stall_seconds=0)]
    assert fetch(offered).read_bytes() == offered.state.archive and offered.state.resumed == [CHUNK]


def test_a_download_that_was_stopped_is_resumed_by_the_next_command(offered):
    offered.offer(content=LONG)
    offered.state.script["archive.zip"] = [Fault(stall_seconds=6)]
    partial = offered.folder / "data" / ".download-birds-and-others"
    with pytest.raises(KaggleError, match="did not answer in time"):
        offered.session().kaggle.download(partial, force=False, timeout_seconds=4)
    assert (partial / "birds-and-others.zip").stat().st_size == CHUNK
    assert fetch(offered).read_bytes() == offered.state.archive
    assert offered.state.resumed == [CHUNK] and not partial.exists()


def test_a_download_that_is_always_truncated_is_never_taken(offered):
    offered.state.script["archive.zip"] = [Fault(cut=True, times=99)]
    with pytest.raises(KaggleError, match="The download is not whole"):
        fetch(offered)
    assert not list((offered.folder / "data").glob("*.zip"))


def test_a_truncated_file_that_is_there_already_is_replaced(offered):
    target = offered.folder / "data" / "birds-and-others.zip"
    target.parent.mkdir()
    target.write_bytes(offered.state.archive[:100])
    assert fetch(offered).read_bytes() == offered.state.archive


def test_a_file_of_another_size_than_kaggle_lists_is_told(offered):
    offered.offer(listed={"train.csv": 5, "test.csv": 7})
    with pytest.raises(KaggleError, match=r"test.csv: missing") as refusal:
        fetch(offered)
    assert f"train.csv: {len(CONTENT):,} bytes, Kaggle lists 5" in str(refusal.value)


@pytest.mark.parametrize("last", ["e.csv", "f.csv"])
def test_a_list_of_many_pages_is_compared_to_its_end(offered, last):
    offered.offer(["a.csv", "b.csv", "e.csv"], listed=dict.fromkeys(["a.csv", "b.csv", last], len(CONTENT)))
    offered.state.page_size = 1
    if last == "e.csv":
        fetch(offered)
        assert "3 file(s) have the names and sizes that Kaggle lists" in offered.lines[-1]
    else:
        with pytest.raises(KaggleError, match=r"f\.csv: missing"):
            fetch(offered)


def test_what_was_not_compared_is_not_claimed(offered, monkeypatch):
    offered.state.files = {}
    fetch(offered)
    assert offered.lines[-1].endswith("is whole; 0 file(s) have the names and sizes that Kaggle lists")
    monkeypatch.setattr("podium.kaggle.client.MAX_PAGES", 2)
    offered.offer(("a.csv", "b.csv", "c.csv"))
    offered.state.page_size = 1
    fetch(offered)
    assert offered.lines[-1].endswith("; 2 file(s) have the names and sizes that Kaggle lists")


def test_a_zip_with_a_path_that_leaves_its_folder_is_refused(offered):
    offered.offer(("../../evil.csv",))
    with pytest.raises(DataError, match="leads out of its folder"):
        fetch(offered)
    assert not list((offered.folder / "data").glob("*.zip")) and not list(offered.folder.rglob("evil.csv"))


def test_a_disk_that_is_too_full_is_told_before_the_download(offered, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(DataError, match="do not fit on the disk") as refusal:
        fetch(offered)
    assert "free space" in refusal.value.fix and "DownloadDataFiles" not in offered.state.asked
