"""How Kaggle's answers about datasets and notebooks are read; Kaggle is a stand-in here."""

import pytest

from podium.errors import KaggleError
from podium.kaggle.cli_messages import AnswerError, PushError, ServerError
from podium.kaggle.client import CliResult, Kaggle
from podium.kaggle.notebooks.account import Account


class FixedAnswer(Kaggle):
    """A Kaggle with one answer: the output of the CLI, or an HTTP status."""

    def __init__(self, *, output="", code=0, status=200):
        super().__init__("", {"KAGGLE_API_TOKEN": "token"}, retry_seconds=())
        object.__setattr__(self, "fixed", (CliResult(code, output, ""), status))

    def run_cli(self, *arguments, timeout_seconds=None):
        return self.fixed[0]

    def ask(self, service, method, **fields):
        raise self._error(self.fixed[1], "denied")


def test_a_dataset_that_was_not_made_with_exit_code_0_is_an_error(tmp_path):
    output = "Dataset creation error: The requested title is already in use"
    with pytest.raises(KaggleError, match="made no dataset") as refusal:
        Account(FixedAnswer(output=output)).upload_dataset(tmp_path, new=True, message="files")
    assert refusal.value.found == output


@pytest.mark.parametrize(
    ("output", "code", "is_certain"),
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
def test_a_push_has_certainly_failed_only_where_kaggle_says_so(tmp_path, output, code, is_certain):
    with pytest.raises(KaggleError) as refusal:
        Account(FixedAnswer(output=output, code=code)).push_notebook(tmp_path)
    assert isinstance(refusal.value, PushError) is is_certain


@pytest.mark.parametrize("status", [403, 404])
def test_a_dataset_or_notebook_that_does_not_exist_is_not_a_matter_of_the_competition_s_rules(status):
    account = Account(FixedAnswer(status=status))
    assert account.dataset_files("me/some") is None and account.notebook_source("me/some") == ""
    with pytest.raises(KaggleError, match="denied access") as refusal:
        account.notebook_status("me/some")
    assert "rules" not in str(refusal.value) and refusal.value.found == "denied"


@pytest.mark.parametrize(("status", "error"), [(500, ServerError), (None, AnswerError)])
def test_an_error_of_the_server_is_never_taken_for_a_missing_dataset(status, error):
    with pytest.raises(error):
        Account(FixedAnswer(status=status)).dataset_files("me/some")
