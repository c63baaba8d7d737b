"""The package kaggle as a child process: what it knows, what it prints, and that nothing reaches the real host."""

import subprocess
import sys
import time
from importlib.metadata import version

import pytest
from fake.server import TOKEN, FakeServer
from fake.state import Fault, State

from podium.errors import KaggleError
from podium.kaggle import client
from podium.kaggle.answers import RefusedError, ServerError, answer_error
from podium.kaggle.client import Kaggle
from podium.kaggle.credentials import cleaned_environment

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


def test_the_cli_is_the_package_that_the_tests_import(project):
    """`make test-kaggle` puts the newest one before the locked one."""
    assert version("kaggle") in project.session().kaggle.check_cli("--version", seconds=20)


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
        ("credentials.json", '{"refresh_token": "secret-of-mine", "username": "somebody"}'),
    ],
)
def test_a_token_in_a_file_is_masked(tmp_path, name, text):
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment({}, tmp_path)
        del environment["KAGGLE_API_TOKEN"]
        (tmp_path / ".kaggle").mkdir()
        (tmp_path / ".kaggle" / name).write_text(text)
        assert "'[token]'" in printed_by_cli(environment, "secret-of-mine")


def test_a_token_in_a_file_that_the_environment_names_is_masked(tmp_path):
    (tmp_path / "mine").write_text("secret-of-mine\n")
    with FakeServer(State("birds", lambda _: None)) as server:
        environment = server.environment({}, tmp_path) | {"KAGGLE_API_TOKEN": str(tmp_path / "mine")}
        assert "'[token]'" in printed_by_cli(environment, "secret-of-mine")


def printed_by_cli(environment, name):
    """What Podium keeps of the CLI's output about a command that does not exist."""
    code, *output = Kaggle("birds", environment).run([*client.COMMAND, name], 20)
    assert code == 2 and name not in str(output)
    return "".join(output)


def test_a_setting_of_another_competition_does_not_reach_the_cli():
    cleaned = cleaned_environment({"KAGGLE_COMPETITION": "cats", "VERBOSE": "1", "KAGGLE_KEY": "k", "PATH": "/bin"})
    assert cleaned == {"KAGGLE_KEY": "k", "PATH": "/bin"}


@pytest.mark.parametrize("status", [403, 404])
def test_a_mistyped_competition_is_not_a_matter_of_its_rules(project, status):
    project.state.slug, project.state.unknown_status = "another", status
    with pytest.raises(RefusedError, match="no competition 'birds-and-others' on Kaggle") as refusal:
        project.session().kaggle.submissions()
    assert "competition.toml" in refusal.value.fix and "rules" not in refusal.value.fix


def test_rules_are_named_only_where_they_are_not_accepted(project):
    project.state.script["ListSubmissions"] = [Fault(403, "no", times=2)]
    for entered, fix in [(False, "birds-and-others/rules"), (True, "see https")]:
        project.state.entered = entered
        with pytest.raises(RefusedError, match="denied access") as refusal:
            project.session().kaggle.submissions()
        assert fix in refusal.value.fix and refusal.value.found == "no"


@pytest.mark.parametrize("private", [{}, {"privateScore": None}, {"privateScore": ""}, {"privateScore": "pending"}])
def test_a_submission_without_a_private_score_is_listed(monkeypatch, private):
    row = {"ref": 1, "fileName": "a.csv", "date": "", "description": "", "status": "COMPLETE", "publicScore": "0.5"}
    monkeypatch.setattr(Kaggle, "ask", lambda *_, **__: {"submissions": [row | private]})
    (submission,) = Kaggle("birds", {}).submissions()
    assert (submission.public, submission.private) == (0.5, None)


PRINT = "import os, time; print(os.environ['KAGGLE_API_TOKEN'], flush=True); time.sleep(60)"


def test_lines_of_a_command_arrive_while_it_runs_without_the_token(project, monkeypatch):
    monkeypatch.setattr(client, "subprocess", subprocess)
    monkeypatch.setattr(client, "COMMAND", (sys.executable, "-c", PRINT))
    kaggle, started = project.session().kaggle, time.monotonic()
    lines = kaggle.stream_cli(seconds=30)
    assert next(lines) == "[token]"
    lines.close()  # ends the command
    assert list(kaggle.stream_cli(seconds=1)) in (["[token]"], [])
    assert time.monotonic() - started < 20
