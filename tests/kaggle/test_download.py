"""Downloads that are cut, unsafe or too large, by the real kaggle CLI."""

import io
import shutil
import zipfile
from collections import namedtuple
from dataclasses import replace

import pytest
from fake.state import Fault

from podium.data.archives import file_digest
from podium.errors import DataError, KaggleError
from podium.files import RESERVE_BYTES
from podium.kaggle.download import check_recorded, download
from podium.lock import write_lock

CONTENT = b"id,label\n" + b"1,bird\n" * 2000
CHUNK = 1 << 20  # what the kaggle CLI writes at once
LONG = bytes(3 * CHUNK)  # half of two such files in a zip


@pytest.fixture
def offered(project):
    def offer(names=("train.csv", "test.csv"), listed=None, content=CONTENT):
        file = project.folder / "made.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, content)
        project.state.archive = file.read_bytes()
        project.state.files = listed or dict.fromkeys(names, len(content))

    offer()
    project.offer = offer
    return project


@pytest.fixture
def apart(project):
    """A competition whose files can be fetched by themselves."""

    def offer(contents):
        project.state.contents = contents
        project.state.files = {name.removesuffix(".zip"): len(content) for name, content in contents.items()}

    offer({"train.csv": CONTENT, "a/x.csv": b"first", "b/x.csv": b"second", "images.tar": b"1" * 10**6})
    project.offer = offer
    return project


def fetch(project, *names):
    return download(project.session().kaggle, project.folder / "data", names, log=project.lines.append)


def zip_of(name, content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def all_files(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_download_is_whole_and_is_not_fetched_again(offered):
    file = fetch(offered)
    assert file.read_bytes() == offered.state.archive and [other.name for other in file.parent.iterdir()] == [file.name]
    asked = offered.state.asked.count("DownloadDataFiles")
    assert fetch(offered) == file and offered.state.asked.count("DownloadDataFiles") == asked
    assert "exists and is whole; 2 file(s) have the names" in offered.lines[-1]


@pytest.mark.parametrize("announced", [True, False])
def test_a_truncated_download_with_exit_code_0_is_fetched_anew(offered, announced):
    offered.state.announce_length = announced
    offered.state.script["archive.zip"] = [Fault(cut=True)]
    assert fetch(offered).read_bytes() == offered.state.archive
    assert "attempt 2" in offered.lines[-2] and "cut or damaged" in offered.lines[-2]


def test_a_connection_that_breaks_in_mid_download_is_resumed_where_it_broke(offered):
    offered.offer(content=LONG)
    offered.state.script["archive.zip"] = [Fault(stall_seconds=0)]
    assert fetch(offered).read_bytes() == offered.state.archive and offered.state.resumed == [len(LONG)]


def test_a_download_that_was_stopped_is_resumed_by_the_next_command(offered):
    offered.offer(content=LONG)
    offered.state.script["archive.zip"] = [Fault(stall_seconds=6)]
    partial = offered.folder / "data" / ".download-birds-and-others"
    with pytest.raises(KaggleError, match="did not answer in time"):
        offered.session().kaggle.download(partial, force=False, timeout_seconds=4)
    assert (partial / "birds-and-others.zip").stat().st_size == len(LONG)
    assert fetch(offered).read_bytes() == offered.state.archive
    assert offered.state.resumed == [len(LONG)] and not partial.exists()


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
    offered.offer(("train.csv",), listed={"train.csv": 5, "test.csv": 7})
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
    offered.offer(("../../evil.csv", "train.csv"))
    with pytest.raises(DataError, match="leads out of its folder"):
        fetch(offered)
    assert not list((offered.folder / "data").glob("*.zip")) and not list(offered.folder.rglob("evil.csv"))


def test_a_disk_that_is_too_full_is_told_before_the_download(offered, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(DataError, match="do not fit on the disk") as refusal:
        fetch(offered)
    assert "free space" in refusal.value.fix and "DownloadDataFiles" not in offered.state.asked


def test_only_the_named_files_are_fetched_each_with_its_folder(apart):
    names = ("train.csv", "a/x.csv", "b/x.csv")
    folder = fetch(apart, *names)
    assert folder == apart.folder / "data" / "birds-and-others"
    assert all_files(folder.parent) == {f"{folder.name}/{name}": apart.state.contents[name] for name in names}
    assert apart.lines[-1].endswith("is whole; 3 file(s) have the names and sizes that Kaggle lists")
    asked = apart.state.asked.count("DownloadDataFile")
    assert fetch(apart, *names) == folder and apart.state.asked.count("DownloadDataFile") == asked == 3
    (folder / "a" / "x.csv").write_bytes(b"cut")
    fetch(apart, *names)
    assert apart.state.asked.count("DownloadDataFile") == 4 and (folder / "a" / "x.csv").read_bytes() == b"first"


def test_the_only_file_of_a_competition_is_fetched_as_it_is(apart):
    apart.offer({"train.csv": CONTENT})
    assert all_files(fetch(apart)) == {"train.csv": CONTENT} and "DownloadDataFiles" not in apart.state.asked


def test_a_file_that_kaggle_has_compressed_is_unpacked(apart):
    apart.offer({"a/x.csv.zip": zip_of("x.csv", CONTENT)})
    apart.state.files = {"a/x.csv": len(CONTENT)}
    assert all_files(fetch(apart, "a/x.csv")) == {"a/x.csv": CONTENT}


def test_a_compressed_file_with_a_wrong_checksum_is_never_taken(apart):
    good = zip_of("x.csv", CONTENT)
    apart.offer({"x.csv.zip": good.replace(b"bird", b"bard", 1)})
    apart.state.files = {"x.csv": len(CONTENT)}
    with pytest.raises(KaggleError, match="wrong checksum"):
        fetch(apart, "x.csv")
    assert not list((apart.folder / "data").glob("birds-and-others/*"))


def test_a_truncated_file_with_exit_code_0_is_fetched_anew(apart):
    apart.state.announce_length = False
    apart.state.script["train.csv"] = [Fault(cut=True)]
    assert all_files(fetch(apart, "train.csv")) == {"train.csv": CONTENT}
    assert f"train.csv: {len(CONTENT) // 2:,} bytes, Kaggle lists {len(CONTENT):,}" in apart.lines[-2]


def test_a_named_zip_that_is_no_zip_is_never_taken(apart):
    apart.offer({"a.zip": CONTENT})
    apart.state.files = {"a.zip": len(CONTENT), "b.csv": 1}
    with pytest.raises(KaggleError, match="cut or damaged"):
        fetch(apart, "a.zip")


def test_a_file_that_was_stopped_is_resumed_by_the_next_command(apart):
    apart.offer({"train.bin": LONG, "test.bin": LONG})
    apart.state.script["train.bin"] = [Fault(stall_seconds=6)]
    partial = apart.folder / "data" / ".download-birds-and-others" / "train.bin"
    with pytest.raises(KaggleError, match="did not answer in time"):
        apart.session().kaggle.download(partial, "train.bin", force=False, timeout_seconds=4)
    assert all_files(fetch(apart, "train.bin")) == {"train.bin": LONG}
    assert apart.state.resumed == [CHUNK] and not partial.exists()


def test_the_text_of_an_error_is_not_a_part_of_a_file(apart):
    """Version 2.2.4 of the CLI writes it into the file, where an address expired while a download was resumed."""
    apart.offer({"train.bin": LONG, "test.bin": LONG})
    apart.state.script["train.bin"] = [Fault(stall_seconds=0), Fault(403, "expired", times=2)]
    assert all_files(fetch(apart, "train.bin")) == {"train.bin": LONG}


def test_a_file_that_is_not_there_is_refused_with_the_nearest_name(apart):
    with pytest.raises(KaggleError, match="no such file") as refusal:
        fetch(apart, "train.csv", "images.tgz")
    assert "images.tgz" in refusal.value.found and "'images.tar'" in refusal.value.fix
    assert not {"DownloadDataFile", "DownloadDataFiles"} & {*apart.state.asked}


def test_a_file_beyond_the_listed_pages_is_fetched_without_a_claim(apart, monkeypatch):
    monkeypatch.setattr("podium.kaggle.client.MAX_PAGES", 1)
    apart.state.page_size = 1
    assert all_files(fetch(apart, "train.csv")) == {"train.csv": CONTENT}
    assert apart.lines[-1].endswith("; 0 file(s) have the names and sizes that Kaggle lists")
    with pytest.raises(KaggleError, match=r"none\.csv not found"):
        fetch(apart, "none.csv")


def test_a_name_that_leaves_its_folder_is_refused(apart):
    apart.offer({"../evil.csv": CONTENT})
    with pytest.raises(KaggleError, match="not safe"):
        fetch(apart)
    assert not list(apart.folder.rglob("evil.csv"))


def test_space_is_needed_for_the_named_files_alone(apart, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**10, 0, RESERVE_BYTES + 10**5))
    with pytest.raises(DataError, match="do not fit on the disk") as refusal:
        fetch(apart)
    assert "[kaggle] files" in refusal.value.fix
    folder = fetch(apart, "a/x.csv")
    (folder / "images.tar").write_bytes(apart.state.contents["images.tar"])
    assert len(all_files(fetch(apart, "a/x.csv", "b/x.csv", "images.tar"))) == 3


def test_files_are_compared_with_those_that_the_lock_was_made_from(apart):
    workspace, folder = apart.session().workspace, apart.folder / "data"
    assert check_recorded(workspace, folder) == 0
    place = fetch(apart, "train.csv")
    digests = {f"{place.name}/train.csv": file_digest(place / "train.csv"), "elsewhere.zip": "0"}
    write_lock(workspace.paths.lock_file, replace(workspace.lock, files=digests))
    assert check_recorded(apart.session().workspace, folder) == 1
    (place / "train.csv").write_bytes(b"other")
    with pytest.raises(KaggleError, match=r"not the files that data\.lock") as refusal:
        check_recorded(apart.session().workspace, folder)
    assert "birds-and-others/train.csv" in refusal.value.faults[0] and "--accept-data" in refusal.value.fix
