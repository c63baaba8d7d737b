"""How Kaggle's answers about datasets and notebooks are read; Kaggle is a stand-in here."""

import re

import pytest

from podium.kaggle.answers import CommandError, RefusedError, ServerError, answer_error
from podium.kaggle.client import Kaggle
from podium.kaggle.notebooks.account import Account

PUSHED = "Kernel version 3 successfully pushed.  Please check progress at https://www.kaggle.com/code/me/podium\n"
INVALID = "The following are not valid {} sources and could not be added to the kernel: ['{}']\n"


class FixedAnswer(Kaggle):
    """A Kaggle whose questions have this HTTP status, and whose CLI ends with this exit code and output."""

    def __init__(self, status=200, *, code=0, output=""):
        super().__init__("", {}, retry_seconds=())
        object.__setattr__(self, "fixed", (status, code, output))

    def ask(self, service, method, **fields):
        if self.fixed[0] != 200:
            raise answer_error(self.fixed[0], "denied", slug="")
        return {"user": "me"}

    def run_cli(self, *arguments, seconds):
        return self.fixed[1:]


@pytest.mark.parametrize(
    "output", ["Dataset creation error: title in use", "Dataset version creation error: see above"]
)
def test_a_dataset_that_was_not_made_with_exit_code_0_is_an_error(tmp_path, output):
    with pytest.raises(RefusedError, match="made no dataset") as refusal:
        Account(FixedAnswer(output=f"{output}\n")).upload_dataset(tmp_path, new=True, message="files")
    assert refusal.value.found == output


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("Kernel push error: GPU quota reached\n", "GPU quota reached"),
        (INVALID.format("dataset", "me/files") + PUSHED, "me/files"),
        (INVALID.format("competition", "dogs") + PUSHED, "dogs"),
    ],
)
def test_a_push_that_kaggle_did_not_accept_whole_is_refused(tmp_path, output, found):
    with pytest.raises(RefusedError) as refusal:
        Account(FixedAnswer(output=output)).push_notebook(tmp_path)
    assert re.search(found, refusal.value.found) and "pushed" not in refusal.value.found
    Account(FixedAnswer(output=PUSHED)).push_notebook(tmp_path)


@pytest.mark.parametrize(("status", "error_type"), [(200, CommandError), (503, ServerError), (401, RefusedError)])
def test_after_a_failed_push_only_an_answer_of_kaggle_says_that_it_was_refused(tmp_path, status, error_type):
    with pytest.raises(error_type) as error:
        Account(FixedAnswer(status, code=1, output="it failed\n")).push_notebook(tmp_path)
    assert type(error.value) is error_type and (error.value.found == "it failed") == (status == 200)


@pytest.mark.parametrize("status", [403, 404])
def test_a_dataset_or_notebook_that_does_not_exist_is_not_a_matter_of_the_competition_s_rules(status):
    account = Account(FixedAnswer(status))
    assert account.dataset_files("me/files") is None and account.notebook_source("me/files") == ""
    with pytest.raises(RefusedError, match="denied access") as refusal:
        account.notebook_status("me/files")
    assert "rules" not in str(refusal.value) and refusal.value.found == "denied"


@pytest.mark.parametrize("status", [500, None])
def test_an_error_of_the_server_does_not_mean_that_a_dataset_is_missing(status):
    with pytest.raises(ServerError):
        Account(FixedAnswer(status)).dataset_files("me/files")
