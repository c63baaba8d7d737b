"""The package kaggle as a child process: what it knows, what it prints, and that nothing reaches the real host."""

import json
import subprocess
import sys

import pytest
from fake.server import TOKEN, FakeServer
from fake.state import Fault, State

from podium.errors import KaggleError
from podium.kaggle.answers import RefusedError, ServerError, answer_error
from podium.kaggle.client import ASK, Kaggle

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


def test_the_fake_kaggle_uses_nothing_of_the_user_s_own_account(tmp_path):
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment(OWN, tmp_path / "home")
        assert Kaggle("birds", environment).submissions() == []
        assert not {"own-token", "own-key", "me", "PROD"} & set(environment.values())
        assert environment["KAGGLE_API_TOKEN"] == TOKEN and "NO_PROXY" not in environment
        assert server.state.asked == ["IntrospectToken", "ListSubmissions"]


def test_requests_to_the_real_host_end_at_the_fake_kaggle(tmp_path):
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment(OWN, tmp_path / "home")
        del environment["KAGGLE_API_ENVIRONMENT"]  # the real host, as the package sees it
        with pytest.raises(KaggleError, match="cannot be reached"):
            Kaggle("birds", environment, timeout_seconds=3, retry_seconds=()).submissions()
        assert set(server.state.asked) == {"CONNECT api.kaggle.com:443"}


def test_an_unexpected_error_is_one_line_without_the_token(project):
    with pytest.raises(KaggleError, match="The package kaggle failed") as error:
        project.session().kaggle.ask("competitions", TOKEN)
    assert "AttributeError" in error.value.found and "[token]" in error.value.found and TOKEN not in error.value.found


def test_the_remaining_submissions_are_read_also_when_there_are_none(project):
    kaggle = project.session().kaggle
    assert kaggle.remaining() == 5
    project.state.daily = 0
    assert kaggle.remaining() == 0
    project.state.slug = "another"
    assert kaggle.remaining() is None


@pytest.mark.parametrize(
    ("status", "message", "error_type"),
    [(429, "Slow down", ServerError), (503, "down", ServerError), (500, "", ServerError), (400, "odd", RefusedError)],
)
def test_an_error_has_the_status_and_the_message_of_kaggle(project, status, message, error_type):
    project.state.script["ListSubmissions"] = [Fault(status, message, times=9)]
    with pytest.raises(error_type) as error:
        project.session().kaggle.submissions()
    assert error.value.status == status and message in error.value.found


@pytest.mark.parametrize(("status", "requests"), [(503, 2), (429, 1), (400, 1)])
def test_a_request_is_repeated_only_where_the_server_failed(project, status, requests):
    project.state.script["ListSubmissions"] = [Fault(status, times=9)]
    with pytest.raises(KaggleError):
        project.session().kaggle.submissions()
    assert project.state.asked.count("ListSubmissions") == requests


def test_an_answer_that_was_cut_is_not_asked_for_again(project):
    project.state.script["ListSubmissions"] = [Fault(cut=True)]
    with pytest.raises(ServerError, match="cannot be reached"):
        project.session().kaggle.submissions()


def test_a_kaggle_that_does_not_answer_is_given_up(project):
    with pytest.raises(ServerError, match="did not answer in time"):
        Kaggle("birds-and-others", project.environment, timeout_seconds=0.01).submissions()


@pytest.mark.parametrize(
    ("status", "error_type", "what"),
    [
        (None, ServerError, "cannot be reached"),
        (401, RefusedError, "rejected the token"),
        (403, RefusedError, "denied access"),
        (404, RefusedError, "There is no competition 'birds'"),
        (418, RefusedError, "refused the request"),
        (502, ServerError, "server failed"),
    ],
)
def test_each_status_has_its_message(status, error_type, what):
    error = answer_error(status, "message", slug="birds")
    assert type(error) is error_type and what in error.what and error.fix


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("access_token", "secret-of-mine\n"),
        ("access_token.txt", "secret-of-mine"),
        ("kaggle.json", '{"username": "somebody", "key": "secret-of-mine"}'),
    ],
)
def test_a_token_in_a_file_is_masked(tmp_path, name, text):
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment({}, tmp_path)
        del environment["KAGGLE_API_TOKEN"]
        (tmp_path / ".kaggle").mkdir()
        (tmp_path / ".kaggle" / name).write_text(text)
        assert "'[token]'" in message_of_child(environment, "secret-of-mine")


def test_a_token_in_a_file_that_the_environment_names_is_masked(tmp_path):
    (tmp_path / "mine").write_text("secret-of-mine\n")
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment({}, tmp_path) | {"KAGGLE_API_TOKEN": str(tmp_path / "mine")}
        assert "'[token]'" in message_of_child(environment, "secret-of-mine")


def message_of_child(environment, folder):
    """The message of a child process that is asked to push a folder that does not exist."""
    command = [sys.executable, str(ASK), "package", "kernels_push", json.dumps({"folder": f"'{folder}'"})]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert folder not in child.stdout + child.stderr
    return json.loads(child.stdout)["message"]
