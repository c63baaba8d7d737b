"""How the kaggle CLI's messages about datasets and notebooks are read; the CLI is a stand-in here."""

import pytest

from podium.errors import KaggleError
from podium.kaggle.cli_messages import PushError, ServerError
from podium.kaggle.client import Answer
from podium.kaggle.notebooks.account import Account


class FixedAnswer:
    """A kaggle CLI with one answer."""

    timeout_seconds = 1
    environment = {"KAGGLE_API_TOKEN": "mine"}  # noqa: RUF012

    def __init__(self, printed, code=0):
        self.answer = Answer(code, printed, printed)

    def call(self, *words, timeout_seconds=None):
        return self.answer

    def again(self, ask):
        return ask()


def test_an_account_without_a_name_is_not_one():
    assert Account(FixedAnswer("Configuration values from /\n- username: me\n")).user() == "me"
    with pytest.raises(KaggleError, match="rejected the token"):
        Account(FixedAnswer("Configuration values from /\n- username: None\n")).user()


def test_a_dataset_that_was_not_made_with_exit_code_0_is_told(tmp_path):
    said = "Dataset creation error: The requested title is already in use"
    with pytest.raises(KaggleError, match="made no dataset") as refusal:
        Account(FixedAnswer(said)).upload_dataset(tmp_path, new=True, message="files")
    assert refusal.value.found == said


def test_the_status_is_read_in_both_spellings_and_with_its_reason():
    assert Account(FixedAnswer('me/some has status "KernelWorkerStatus.RUNNING"\n')).notebook_status("me/some") == (
        "RUNNING",
        "",
    )
    said = 'me/some has status "error"\nFailure message: "out of memory\non the GPU"\n'
    assert Account(FixedAnswer(said)).notebook_status("me/some") == ("ERROR", "out of memory\non the GPU")
    with pytest.raises(KaggleError, match="did not report the notebook"):
        Account(FixedAnswer("me/some is well\n")).notebook_status("me/some")


@pytest.mark.parametrize(
    ("said", "code", "surely"),
    [
        ("Kernel push error: Maximum weekly GPU quota reached", 0, True),
        ("400 Client Error: Bad Request for url", 1, True),
        ("404 Client Error: Not Found for url", 1, True),
        ("('Connection broken: IncompleteRead(5 bytes read)', IncompleteRead(5 bytes read))", 1, False),
        ("JSONDecodeError: Expecting value: line 1 column 1 (char 0)", 1, False),
        ("502 Server Error: for url", 1, False),
        ("something else", 0, False),
    ],
)
def test_a_push_surely_failed_only_where_kaggle_says_so(tmp_path, said, code, surely):
    with pytest.raises(KaggleError) as refusal:
        Account(FixedAnswer(said, code)).push_notebook(tmp_path)
    assert isinstance(refusal.value, PushError) is surely


@pytest.mark.parametrize("words", ["Connection broken: IncompleteRead(5 bytes read)", "Response ended prematurely"])
def test_an_answer_that_was_cut_on_the_way_is_no_refusal(words):
    with pytest.raises(ServerError, match="cannot be reached"):
        Account(FixedAnswer(f"requests.exceptions.ChunkedEncodingError: {words}", 1)).dataset_files("me/some")


def test_what_an_account_may_not_have_is_no_matter_of_a_competition_s_rules():
    with pytest.raises(KaggleError, match="did not give what was asked for") as refusal:
        Account(FixedAnswer("403 Client Error: Forbidden for url", code=1)).notebook_status("me/some")
    assert "rules" not in str(refusal.value) and "403" in refusal.value.found
    with pytest.raises(KaggleError, match="Kaggle's server failed"):
        Account(FixedAnswer("500 Server Error: for url", code=1)).dataset_files("me/some")
    assert Account(FixedAnswer("404 Client Error: Not Found", code=1)).dataset_files("me/some") is None
