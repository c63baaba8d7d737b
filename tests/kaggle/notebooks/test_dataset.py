"""When Kaggle is believed to have a dataset; Kaggle is a stand-in here."""

import json

import pytest

from podium.errors import KaggleError
from podium.kaggle.notebooks.dataset import PackedDataset, pack_dataset, upload_dataset
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
def dataset(tmp_path):
    (tmp_path / "a.toml").write_text("a")
    return pack_dataset("me/files", tmp_path / "files", {"recipes/a.toml": tmp_path / "a.toml"})


def test_a_new_version_is_waited_for_although_the_previous_one_is_ready(dataset):
    account, messages = SlowAccount(["a.toml", "files-1.json"], ["a.toml", dataset.listing], requests=2), []
    upload_dataset(account, dataset, log=messages.append, patience=SHORT, fix="make kernel")
    assert account.uploads == [(False, dataset.listing)] and len(account.listed) == 1
    assert messages.count("me/files is ready at Kaggle, not done yet") == 2


def test_a_new_version_without_a_file_is_refused_at_once(dataset):
    account = SlowAccount(["a.toml", "files-1.json"], [dataset.listing], requests=0)
    with pytest.raises(KaggleError, match="not complete and ready") as refusal:
        upload_dataset(account, dataset, log=print, patience=Patience(60, 60, 60, 0), fix="make kernel")
    assert refusal.value.faults == ("a.toml: missing",)


def test_files_of_one_name_get_different_names_and_the_listing_has_their_places(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_text(folder)
    files = {f"weights/{folder}/net.pth": tmp_path / folder / "net.pth" for folder in ("a", "b")}
    packed = pack_dataset("me/files", tmp_path / "packed", files)
    entries = json.loads((packed.folder / packed.listing).read_text())
    assert {entry["place"]: (packed.folder / entry["name"]).read_text() for entry in entries} == {
        "weights/a/net.pth": "a",
        "weights/b/net.pth": "b",
    }
    assert isinstance(packed, PackedDataset) and len(packed.files) == 3
