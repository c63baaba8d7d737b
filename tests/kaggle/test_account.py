"""How Kaggle's answers about datasets and notebooks are read; Kaggle is a stand-in here."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from podium.errors import KaggleError
from podium.kaggle.account import Account
from podium.kaggle.answers import RefusedError, ServerError, answer_error
from podium.kaggle.notebooks.follow import upload_dataset
from podium.kaggle.session import Session
from podium.kaggle.waiting import Patience
from podium.plan.paths import Paths

SHORT = Patience(0.01, 0.01, 0.1, 0)


class FixedAnswer(Account):
    """An account whose questions have this HTTP status, and whose CLI ends with this exit code and output."""

    def __init__(self, status=200, *, answer=None, code=0, output=""):
        super().__init__("", {}, retry_seconds=())
        object.__setattr__(self, "fixed", (status, code, output))
        object.__setattr__(self, "answer", answer)

    def ask(self, service, method, **fields):
        if self.fixed[0] != 200:
            raise answer_error(self.fixed[0], "denied", slug="", service=service)
        return self.answer

    def run(self, command, seconds):
        return *self.fixed[1:], ""


@pytest.mark.parametrize(
    "output", ["Dataset creation error: title in use", "Dataset version creation error: see above"]
)
def test_a_dataset_that_was_not_made_with_exit_code_0_is_an_error(tmp_path, output):
    with pytest.raises(RefusedError, match="made no dataset") as refusal:
        FixedAnswer(output=f"{output}\n").upload_dataset(tmp_path, new=True, message="files")
    assert refusal.value.found == output


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"error": "GPU quota reached"}, "GPU quota reached"),
        ({"invalidDatasetSources": ["me/files"]}, "not attached: me/files"),
        ({"invalidCompetitionSources": ["dogs"]}, "not attached: dogs"),
    ],
)
def test_a_push_that_kaggle_did_not_accept_whole_is_refused(answer, found):
    whole = {"error": None, "versionNumber": 3, "invalidDatasetSources": [], "invalidCompetitionSources": []}
    with pytest.raises(RefusedError) as refusal:
        FixedAnswer(answer=whole | answer).push_notebook({})
    assert refusal.value.found == found
    assert FixedAnswer(answer=whole).push_notebook({}) == 3


@pytest.mark.parametrize(("status", "error_type"), [(400, RefusedError), (403, RefusedError), (503, ServerError)])
def test_a_push_is_refused_or_unknown_by_its_status(status, error_type):
    with pytest.raises(error_type) as error:
        FixedAnswer(status).push_notebook({})
    assert type(error.value) is error_type and error.value.found == "denied"


@pytest.mark.parametrize("status", [403, 404])
def test_a_dataset_or_notebook_that_does_not_exist_is_not_a_matter_of_the_competition_s_rules(status):
    account = FixedAnswer(status)
    assert account.dataset_files("me/files") is None and account.notebook_source("me/files") == ("", 0)
    with pytest.raises(RefusedError, match="denied access") as refusal:
        account.notebook_status("me/files")
    assert "rules" not in str(refusal.value) and refusal.value.found == "denied"


@pytest.mark.parametrize("status", [500, None])
def test_an_error_of_the_server_does_not_mean_that_a_dataset_is_missing(status):
    with pytest.raises(ServerError):
        FixedAnswer(status).dataset_files("me/files")


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


def session_of(account, messages):
    paths = Paths("tiny", Path(), Path())
    return Session(SimpleNamespace(name="tiny", paths=paths), account, messages.append, SHORT)


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "podium-2.pyz").write_bytes(b"archive")
    return tmp_path / "podium-2.pyz"


def test_a_new_version_is_waited_for_although_the_previous_one_is_ready(archive):
    account, messages = SlowAccount(["podium-1.pyz"], [archive.name], requests=2), []
    upload_dataset(session_of(account, messages), "me/files", archive)
    assert account.uploads == [(False, archive.name)] and len(account.listed) == 1
    assert messages.count("me/files is ready at Kaggle, not done yet") == 2


def test_an_archive_that_does_not_arrive_is_refused_when_the_wait_is_over(archive):
    account = SlowAccount(None, ["podium-1.pyz"], requests=0)
    with pytest.raises(KaggleError, match="not ready at Kaggle") as refusal:
        upload_dataset(session_of(account, []), "me/files", archive)
    assert account.uploads == [(True, archive.name)]
    assert archive.name in refusal.value.expected and refusal.value.found == "status READY, with podium-1.pyz"
