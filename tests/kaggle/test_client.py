"""The kaggle CLI as a process: what it may know, and that nothing reaches the real host."""

import pytest
from fake.server import TOKEN, FakeServer
from fake.state import Fault, State

from podium.errors import KaggleError
from podium.kaggle.cli_messages import AnswerError, ServerError, answer_error, error_line, parse_status
from podium.kaggle.client import Kaggle
from podium.kaggle.credentials import cli_environment, has_credentials, without_secrets

OWN = {
    "KAGGLE_API_TOKEN": "own-token",
    "KAGGLE_USERNAME": "me",
    "KAGGLE_KEY": "own-key",
    "KAGGLE_API_ENVIRONMENT": "PROD",
    "NO_PROXY": "*",
    "no_proxy": "localhost",
    "ALL_PROXY": "http://elsewhere:1",
    "PATH": "/usr/bin",
}


def test_settings_that_print_the_token_or_move_the_competition_are_taken_away():
    loud = {
        "VERBOSE": "1",
        "VERBOSE_OUTPUT": "yes",
        "KAGGLE_COMPETITION": "another",
        "KAGGLE_PATH": "/",
        "HOME": "/home",
    }
    assert cli_environment(loud | {"KAGGLE_API_TOKEN": "t"}) == {"HOME": "/home", "KAGGLE_API_TOKEN": "t"}


@pytest.mark.parametrize("where", ["TEST", "STAGING", "LOCALHOST ", "localhost"])
def test_a_misspelt_environment_is_refused_before_anything_is_asked(where):
    with pytest.raises(KaggleError, match="Wrong KAGGLE_API_ENVIRONMENT") as refusal:
        Kaggle("some", {"KAGGLE_API_ENVIRONMENT": where}).submissions()
    assert "unset KAGGLE_API_ENVIRONMENT" in refusal.value.fix


def test_a_rehearsal_leaves_nothing_of_the_user_s_own_account(tmp_path):
    with FakeServer(State("some", lambda _: None)) as server:
        environment = server.environment(OWN, tmp_path / "home")
        assert Kaggle("some", environment).submissions() == []
        assert not {"own-token", "own-key", "me", "PROD"} & set(environment.values())
        assert environment["KAGGLE_API_TOKEN"] == TOKEN and "NO_PROXY" not in environment
        assert server.state.asked == ["IntrospectToken", "ListSubmissions"]


def test_what_wants_to_leave_the_machine_ends_at_the_rehearsal(tmp_path):
    with FakeServer(State("some", lambda _: None)) as server:
        environment = server.environment(OWN, tmp_path / "home")
        del environment["KAGGLE_API_ENVIRONMENT"]  # the real host, as the CLI sees it
        with pytest.raises(KaggleError, match="cannot be reached"):
            Kaggle("some", environment, timeout_seconds=3, retry_seconds=()).submissions()
        assert set(server.state.asked) == {"CONNECT api.kaggle.com:443"}


def test_the_remaining_submissions_are_read_also_when_there_are_none(project):
    kaggle = project.session().kaggle
    assert kaggle.remaining() == 5
    project.state.daily = 0
    assert kaggle.remaining() == 0
    project.state.slug = "another"
    assert kaggle.remaining() is None


@pytest.mark.parametrize(
    ("status", "message", "error_type"),
    [(429, "Slow down", ServerError), (503, "down", ServerError), (500, "", ServerError), (400, "odd", AnswerError)],
)
def test_an_error_has_the_status_and_the_message_of_kaggle(project, status, message, error_type):
    project.state.script["ListSubmissions"] = [Fault(status, message, times=9)]
    with pytest.raises(error_type) as error:
        project.session().kaggle.submissions()
    assert error.value.status == status and message in error.value.found


def test_an_answer_that_was_cut_is_asked_for_no_more(project):
    project.state.script["ListSubmissions"] = [Fault(cut=True)]
    with pytest.raises(ServerError, match="cannot be reached"):
        project.session().kaggle.submissions()


def test_a_kaggle_that_does_not_answer_is_given_up(project):
    with pytest.raises(KaggleError, match="did not answer in time"):
        Kaggle("birds-and-others", project.environment, timeout_seconds=0.01).submissions()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("403 Client Error: Forbidden for url: http://localhost/", 403),
        ("500 Server Error: for url", 500),
        ("You must accept this competition's rules", 403),
        ("Authentication required to call the Kaggle API.", 401),
        ("Too many requests", 429),
        ("no words for it, 403 images", None),
        ("Max retries exceeded (Caused by ProxyError: Tunnel connection failed: 403 Forbidden)", None),
        ("PermissionError: [Errno 13] Permission denied: 'access_token'", None),
        ("Permission 'competitions.participate' was denied", 403),
    ],
)
def test_the_status_is_read_from_numbers_or_words(said, status):
    assert parse_status(said) == status


def test_the_last_words_are_what_a_traceback_ends_with():
    assert error_line("Traceback\n  File x\nHTTPError: 401\n\n 50%|##  | 1/2\n") == "HTTPError: 401"
    assert error_line("") == "" and len(error_line("x" * 999)) == 300


def test_advice_after_the_reason_is_left_out():
    assert error_line("403 Client Error: Forbidden\nHint: see https://...\n") == "403 Client Error: Forbidden"


def test_an_unreachable_kaggle_is_reported():
    message = "HTTPSConnectionPool: Max retries exceeded with url: / (Caused by NameResolutionError)"
    assert "cannot be reached" in str(answer_error(None, message, slug="some", has_credentials=True))


def test_credentials_are_found_where_the_cli_looks(tmp_path):
    assert not has_credentials({"HOME": str(tmp_path)})
    assert has_credentials({"HOME": str(tmp_path), "KAGGLE_API_TOKEN": "t"})
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{}")
    assert has_credentials({"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("access_token", "secret-of-mine\n"),
        ("access_token.txt", "secret-of-mine"),
        ("kaggle.json", '{"username": "somebody", "key": "secret-of-mine"}'),
        ("credentials.json", '{"username": "somebody", "refresh_token": "secret-of-mine", "scopes": [1]}'),
    ],
)
def test_a_token_in_a_file_is_masked_wherever_it_is_printed(tmp_path, name, text):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / name).write_text(text)
    said = without_secrets("somebody said secret-of-mine", {"HOME": str(tmp_path)})
    assert said == "somebody said [token]"


def test_a_token_that_the_environment_names_by_its_file_is_masked_too(tmp_path):
    (tmp_path / "mine").write_text("secret-of-mine\n")
    environment = {"HOME": str(tmp_path), "KAGGLE_API_TOKEN": str(tmp_path / "mine")}
    assert without_secrets("secret-of-mine", environment) == "[token]"
    assert without_secrets("x" * 300, {"HOME": str(tmp_path), "KAGGLE_API_TOKEN": "x" * 300}) == "[token]"


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"key": 1, "token": "a"}'])
def test_files_without_a_secret_hide_nothing(tmp_path, text):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text(text)
    (tmp_path / ".kaggle" / "access_token").write_text("\n")
    assert without_secrets("a plain text", {"HOME": str(tmp_path)}) == "a plain text"


def test_a_token_file_that_cannot_be_read_hides_nothing(tmp_path, monkeypatch):
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "access_token").write_bytes(b"secret-of-mine")

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert without_secrets("secret-of-mine", {"HOME": str(tmp_path)}) == "secret-of-mine"
