"""When Kaggle is believed to have a dataset's archive; Kaggle is a stand-in here."""

import json
import zipfile

import pytest

from podium.errors import KaggleError
from podium.kaggle.notebooks.dataset import pack_dataset, upload_dataset
from podium.kaggle.waiting import Patience

SHORT = Patience(0.01, 0.01, 0.1, 0)


class SlowAccount:
    """Lists the previous version, as ready, for some requests after an upload."""

    def __init__(self, before, after, *, requests):
        self.listed, self.uploads = [before] * (1 + requests) + [after], []

    def dataset_files(self, name):
        return self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]

    def dataset_status(self, name):
        return "READY"

    def upload_dataset(self, folder, *, new, message):
        self.uploads.append((new, message))


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "a.toml").write_text("a")
    return pack_dataset("me/files", tmp_path / "files", {"recipes/a.toml": tmp_path / "a.toml"})


def test_a_new_version_is_waited_for_although_the_previous_one_is_ready(archive):
    account, messages = SlowAccount(["podium-1.pyz"], [archive.name], requests=2), []
    upload_dataset(account, "me/files", archive, log=messages.append, patience=SHORT, fix="make kernel")
    assert account.uploads == [(False, archive.name)] and len(account.listed) == 1
    assert messages.count("me/files is ready at Kaggle, not done yet") == 2


def test_an_archive_that_does_not_arrive_is_refused_when_the_wait_is_over(archive):
    account = SlowAccount(None, ["podium-1.pyz"], requests=0)
    with pytest.raises(KaggleError, match="not ready at Kaggle") as refusal:
        upload_dataset(account, "me/files", archive, log=print, patience=SHORT, fix="make kernel")
    assert account.uploads == [(True, archive.name)]
    assert archive.name in refusal.value.expected and refusal.value.found == "status READY, with podium-1.pyz"


def test_the_archive_has_every_file_at_its_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_text(folder)
    files = {f"weights/{folder}/net.pth": tmp_path / folder / "net.pth" for folder in ("a", "b")}
    packed = pack_dataset("me/files", tmp_path / "packed", files)
    with zipfile.ZipFile(packed) as content:
        texts = {name: content.read(name).decode() for name in content.namelist()}
    assert texts == {"weights/a/net.pth": "a", "weights/b/net.pth": "b"}
    assert {file.name for file in packed.parent.iterdir()} == {packed.name, "dataset-metadata.json"}
    metadata = json.loads((packed.parent / "dataset-metadata.json").read_text())
    assert metadata["id"] == "me/files" and len(metadata["licenses"]) == 1


def test_equal_files_give_an_equal_archive_except_for_a_new_version(tmp_path):
    (tmp_path / "a.toml").write_text("a")
    files = {"a.toml": tmp_path / "a.toml"}
    first = pack_dataset("me/files", tmp_path / "packed", files).name
    assert pack_dataset("me/files", tmp_path / "packed", files).name == first
    changed = {pack_dataset("me/files", tmp_path / "packed", files, new_version=True).name for _ in range(2)}
    assert len(changed | {first}) == 3
    (tmp_path / "a.toml").write_text("b")
    assert pack_dataset("me/files", tmp_path / "packed", files).name != first
