"""When a dataset at Kaggle is believed to be the one that was sent; Kaggle is a stand-in here."""

from pathlib import Path

from podium.kaggle.notebooks.dataset import send_dataset
from podium.kaggle.notebooks.package import Brought, Package
from podium.kaggle.session import Patience


class Slow:
    """A Kaggle that lists the version before, as ready, for some questions after a new one was sent."""

    def __init__(self, before, after, *, questions):
        self.listed, self.sent = [before] * (1 + questions) + [after], []

    def dataset_files(self, dataset):
        return self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]

    def dataset_status(self, dataset):
        return "ready"

    def send_dataset(self, folder, *, new, message):
        self.sent.append((new, message))


def package(listing):
    brought = (Brought("a.toml", "a.toml", "", 1), Brought(listing, "", "", 2))
    return Package(Path(), Path(), listing, brought, "me/files", "me/kernel", "abc")


def test_a_version_that_is_sent_again_is_waited_for_though_the_one_before_is_ready():
    kaggle, told = Slow({"a.toml": 1, "files-1.json": 2}, {"a.toml": 1, "files-2.json": 2}, questions=2), []
    soon = Patience(0.01, 0.01, 0.1, 0)
    send_dataset(kaggle, package("files-2.json"), tell=told.append, patience=soon, again="again", force=True)
    assert kaggle.sent == [(False, "files-2.json")] and len(kaggle.listed) == 1
    assert told.count("me/files is ready at Kaggle, not done yet") == 2
