"""How Kaggle's answers about datasets and notebooks are read; Kaggle is a stand-in here."""

import pytest

from podium.kaggle.answers import RefusedError, ServerError, answer_error
from podium.kaggle.client import Kaggle
from podium.kaggle.notebooks.account import Account

PUSHED = {"error": None, "invalidDatasetSources": [], "invalidCompetitionSources": []}


class FixedAnswer(Kaggle):
    """A Kaggle with one answer, or with an error of this HTTP status."""

    def __init__(self, answer=None, *, status=200, printed=""):
        super().__init__("", {})
        object.__setattr__(self, "fixed", (answer, status, printed))

    def call(self, service, method, fields, *, seconds):
        answer, status, printed = self.fixed
        if status != 200:
            raise answer_error(status, "denied", slug="")
        return {"answer": answer, "printed": printed}


@pytest.mark.parametrize(
    ("answer", "printed", "found"),
    [({"status": "error", "error": "title in use"}, "", "title in use"), (None, "see above", "see above")],
)
def test_a_dataset_that_was_not_made_is_an_error(tmp_path, answer, printed, found):
    with pytest.raises(RefusedError, match="made no dataset") as refusal:
        Account(FixedAnswer(answer, printed=printed)).upload_dataset(tmp_path, new=True, message="files")
    assert refusal.value.found == found


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"error": "GPU quota reached"}, "GPU quota reached"),
        ({"invalidDatasetSources": ["me/files"]}, "not attached: datasets me/files"),
        ({"invalidCompetitionSources": ["dogs"]}, "not attached: competitions dogs"),
    ],
)
def test_a_push_that_kaggle_did_not_accept_whole_is_refused(tmp_path, change, found):
    with pytest.raises(RefusedError) as refusal:
        Account(FixedAnswer(PUSHED | change)).push_notebook(tmp_path)
    assert refusal.value.found == found
    Account(FixedAnswer(PUSHED)).push_notebook(tmp_path)


@pytest.mark.parametrize("status", [403, 404])
def test_a_dataset_or_notebook_that_does_not_exist_is_not_a_matter_of_the_competition_s_rules(status):
    account = Account(FixedAnswer(status=status))
    assert account.dataset_files("me/files") is None and account.notebook_source("me/files") == ""
    with pytest.raises(RefusedError, match="denied access") as refusal:
        account.notebook_status("me/files")
    assert "rules" not in str(refusal.value) and refusal.value.found == "denied"


@pytest.mark.parametrize("status", [500, None])
def test_an_error_of_the_server_does_not_mean_that_a_dataset_is_missing(status):
    with pytest.raises(ServerError):
        Account(FixedAnswer(status=status)).dataset_files("me/files")
