"""Every way that a submission goes wrong, by the real kaggle CLI against a server on loopback."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from fake.server import TOKEN
from fake.state import Fault, Graded

from podium import files
from podium.config.keys import Submission
from podium.errors import KaggleError, SubmissionError
from podium.kaggle.session import settle
from podium.kaggle.submit import compare_shares, submit
from podium.kaggle.waiting import Patience
from podium.lock import Lock

START, CREATE, LIST = "StartSubmissionUpload", "CreateSubmission", "ListSubmissions"


def truncate(file):
    """Remove the last row of a CSV."""
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def test_a_submission_is_uploaded_once_scored_and_written_down(project):
    entry = submit(project.session(), project.csv, "first")
    assert (entry.state, entry.public, entry.private, entry.ref) == ("scored", 1, 1, 1000)
    assert entry.cross_fitted == 1 and entry.standard_error == pytest.approx(0.0510213, abs=1e-7)
    assert project.ledger == [entry] and project.state.asked.count(CREATE) == 1
    kept = project.csv.parent / entry.ensemble
    assert json.loads(kept.read_text()) == json.loads(project.csv.with_suffix(".json").read_text())
    assert next(iter(project.state.uploads.values())) == project.csv.read_bytes()
    assert project.state.submissions[0]["description"] == f"{entry.tag} first"
    assert "5 submissions left today" in project.lines


class Recorded(subprocess.Popen):
    """Every process that Podium starts, with its arguments."""

    commands: ClassVar[list[list[str]]] = []

    def __init__(self, command, **options):
        self.commands.append([*command, *open_arguments(os.getpid())])
        super().__init__(command, **options)
        self.commands.append(open_arguments(self.pid))


def open_arguments(pid):
    """A process's arguments as everybody on the machine sees them."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_the_token_is_in_no_argument_no_line_and_no_file(project, monkeypatch):
    monkeypatch.setattr("podium.kaggle.client.subprocess", subprocess)
    monkeypatch.setattr("podium.kaggle.client.subprocess.Popen", Recorded)
    Recorded.commands.clear()
    submit(project.session(VERBOSE="1", VERBOSE_OUTPUT="true"), project.csv, "first")
    uploads = [command for command in Recorded.commands if "submit" in command]
    assert len(Recorded.commands) >= 8 and uploads[0][1:7] == ["-P", "-m", "kaggle", "-W", "competitions", "submit"]
    assert not any(TOKEN in word for command in Recorded.commands for word in command)
    written = [file.read_bytes() for file in project.folder.rglob("*") if file.is_file()]
    assert not any(TOKEN.encode() in content for content in written)
    assert not any(TOKEN in line for line in project.lines)


def test_the_same_bytes_are_refused_unless_forced(project):
    submit(project.session(), project.csv, "first")
    with pytest.raises(SubmissionError, match="has this file already") as refusal:
        submit(project.session(), project.csv, "again")
    assert "public score 1" in refusal.value.found and "FORCE=1" in refusal.value.fix
    assert submit(project.session(), project.csv, "again", force=True).ref == 1001
    (project.csv.parent / "ledger.csv").unlink()
    with pytest.raises(SubmissionError, match="has this file already"):  # Kaggle's own list knows them too
        submit(project.session(), project.csv, "again")


def test_a_faulty_csv_is_refused_before_kaggle_is_asked(project):
    project.csv.write_text("id,label\n0,bird\n")
    with pytest.raises(SubmissionError, match="29 ids are missing"):
        submit(project.session(), project.csv, "first")
    with pytest.raises(SubmissionError, match="no such file"):
        submit(project.session(), project.csv.with_name("none.csv"), "first")
    assert project.state.asked == [] and project.ledger == []


def test_one_class_for_all_is_refused_unless_forced(project):
    project.csv.write_text("id,label\n" + "".join(f"{row},bird\n" for row in range(30)))
    with pytest.raises(SubmissionError, match="class shares differ") as refusal:
        submit(project.session(), project.csv, "first")
    assert "bird 1.00 instead of 0.33" in refusal.value.found and project.state.asked == []
    assert submit(project.session(), project.csv, "first", force=True).state == "scored"


@pytest.mark.parametrize(("share", "distance"), [(0.25, 0.0), (0.75, 0.5)])
def test_the_shares_of_one_column_of_probabilities_are_compared(tmp_path, share, distance):
    file, labels = tmp_path / "some.csv", np.arange(4000) % 4 == 0
    ids = np.arange(4000).astype(str)
    lock = Lock("data", ("cat", "dog"), ids, labels.astype(int), np.zeros(4000, int), ids)
    file.write_text("id,label\n" + "".join(f"{id_},{share}\n" for id_ in ids))
    found, differences = compare_shares(file, lock=lock, settings=Submission(kind="probability"))
    assert found == pytest.approx(distance, abs=0.02) and f"dog {share:.2f} instead of 0.25" in differences


def test_no_submission_left_today_uploads_nothing(project):
    project.state.daily = 0
    with pytest.raises(KaggleError, match="No submission is left today"):
        submit(project.session(), project.csv, "first")
    assert START not in project.state.asked and project.ledger == []


def test_no_credentials(project):
    with pytest.raises(KaggleError, match="No Kaggle credentials") as refusal:
        submit(project.session(KAGGLE_API_TOKEN=None), project.csv, "first")
    assert "export KAGGLE_API_TOKEN" in refusal.value.fix and project.ledger == []


def test_a_rejected_token(project):
    with pytest.raises(KaggleError, match="rejected the token") as refusal:
        submit(project.session(KAGGLE_API_TOKEN="old-token"), project.csv, "first")
    assert "old-token" not in str(refusal.value)
    (project.folder / "home" / ".kaggle" / "kaggle.json").write_text('{"username": "me", "key": "old-key"}')
    with pytest.raises(KaggleError, match="rejected the token") as refusal:
        submit(project.session(KAGGLE_API_TOKEN=None), project.csv, "first")
    assert "old-key" not in str(refusal.value)


RULES = "You must accept this competition's rules before you'll be able to submit"


@pytest.mark.parametrize("message", ["", RULES])
def test_rules_that_are_not_accepted(project, message):
    project.state.script[LIST], project.state.entered = [Fault(403, message)], False
    with pytest.raises(KaggleError, match="denied access to this account") as refusal:
        submit(project.session(), project.csv, "first")
    assert "birds-and-others/rules" in refusal.value.fix and message in refusal.value.found
    project.state.script[START] = [Fault(403, message)]
    with pytest.raises(KaggleError, match="denied access to this account"):
        submit(project.session(), project.csv, "first")
    assert [entry.state for entry in project.ledger] == ["refused"]


@pytest.mark.parametrize("status", [403, 503])
def test_an_upload_that_fails_with_exit_code_0_is_no_submission(project, status):
    project.state.script["PUT"] = [Fault(status)]
    with pytest.raises(KaggleError, match="upload failed") as refusal:
        submit(project.session(), project.csv, "first")
    assert "no submission was used up" in refusal.value.fix
    assert CREATE not in project.state.asked and [entry.state for entry in project.ledger] == ["refused"]
    assert submit(project.session(), project.csv, "again").state == "scored"


@pytest.mark.parametrize("message", ["", "Only notebooks may be submitted"])
def test_a_submission_that_kaggle_refuses_to_create_has_kaggle_s_words(project, message):
    project.state.script[CREATE] = [Fault(400, message)]
    with pytest.raises(KaggleError, match="was not made: Kaggle does not list it") as refusal:
        submit(project.session(), project.csv, "first")
    words = message or "400 Client Error"
    assert words in refusal.value.found and "exit" not in refusal.value.found
    (entry,) = project.ledger
    assert entry.state == "refused" and words in entry.reason


def test_too_many_requests(project):
    project.state.script[LIST] = [Fault(429, times=9)]
    with pytest.raises(KaggleError, match="too many requests") as refusal:
        submit(project.session(), project.csv, "first")
    assert "wait some minutes" in refusal.value.fix


def test_a_server_error_once_is_not_noticed(project):
    project.state.script[LIST] = [Fault(500)]
    assert submit(project.session(), project.csv, "first").state == "scored"
    assert len(project.state.submissions) == 1


def test_an_upload_that_kaggle_does_not_start_is_no_submission(project):
    project.state.script[START] = [Fault(503)]
    with pytest.raises(KaggleError, match="was not made: Kaggle does not list it") as refusal:
        submit(project.session(), project.csv, "first")
    assert "503 Server Error" in refusal.value.found
    assert submit(project.session(), project.csv, "first").state == "scored" and len(project.state.submissions) == 1


def test_a_server_error_after_the_submission_was_made_uploads_nothing_twice(project):
    project.state.script[LIST] = [Fault(), Fault(500, times=9)]
    with pytest.raises(KaggleError, match="is not known whether") as refusal:
        submit(project.session(), project.csv, "first")
    assert "make submissions COMPETITION=birds" in refusal.value.fix
    assert [entry.state for entry in project.ledger] == ["uploading"]
    project.state.script.clear()
    assert submit(project.session(), project.csv, "first").ref == 1000 and len(project.state.submissions) == 1


@pytest.mark.parametrize("message", ["", "Internal error"])
@pytest.mark.parametrize("made", [True, False])
def test_a_server_error_at_the_deed_is_settled_by_the_list(project, message, made):
    def make():
        row = {"ref": 1, "date": "2026-01-01T00:00:00.000Z", "fileName": "ensemble.csv", "graded": Graded("0.5")}
        project.state.submissions.extend([row | {"description": f"{project.ledger[0].tag} first"}] if made else [])

    project.state.script[CREATE] = [Fault(500, message, before=make)]
    if made:
        assert submit(project.session(), project.csv, "first").public == 0.5
    else:
        with pytest.raises(KaggleError, match="Kaggle does not list it"):
            submit(project.session(), project.csv, "first")
    assert project.state.asked.count(CREATE) == 1 and len(project.state.submissions) == made


def test_a_connection_cut_once_in_mid_upload_is_not_noticed(project):
    project.state.script["PUT"] = [Fault(cut=True)]
    assert submit(project.session(), project.csv, "first").state == "scored"
    assert next(iter(project.state.uploads.values())) == project.csv.read_bytes()


def test_a_connection_that_is_always_cut_leaves_nothing_behind_and_says_so(project):
    project.state.script["PUT"] = [Fault(cut=True, times=99)]
    with pytest.raises(KaggleError, match="was not made: Kaggle does not list it") as refusal:
        submit(project.session(timeout_seconds=3, retry_seconds=()), project.csv, "first")
    assert "did not answer in time" in refusal.value.found and [entry.state for entry in project.ledger] == ["lost"]


@pytest.mark.parametrize(
    ("reason", "expected"), [("Row 7 has no label", "Row 7 has no label"), ("", "gives no reason")]
)
def test_a_submission_that_kaggle_cannot_score(project, reason, expected):
    project.state.grade = lambda _: Graded(error=reason)
    with pytest.raises(KaggleError, match="could not score") as refusal:
        submit(project.session(), project.csv, "first")
    assert expected in refusal.value.found
    (entry,) = project.ledger
    assert (entry.state, entry.ref) == ("failed", 1000) and expected in entry.reason


def test_a_submission_that_stays_pending_is_waited_for_and_then_picked_up(project):
    project.state.polls_before_score = 10**6
    with pytest.raises(KaggleError, match="has not scored the submission yet") as refusal:
        submit(project.session(wait_seconds=0.3), project.csv, "first")
    assert "submission 1000 is pending" in refusal.value.found and "make submissions" in refusal.value.fix
    assert [entry.state for entry in project.ledger] == ["pending"]
    project.state.polls_before_score = 0
    again = submit(project.session(), project.csv, "second")
    assert (again.ref, again.message, len(project.state.submissions)) == (1000, "first", 1)


@pytest.mark.parametrize("change", ["write", "delete"])
def test_the_checked_bytes_are_uploaded_although_the_csv_changes_later(project, change):
    checked = project.csv.read_bytes()
    project.state.script[LIST] = [Fault(before=project.csv.unlink if change == "delete" else lambda: project.write(3))]
    submit(project.session(), project.csv, "first")
    assert next(iter(project.state.uploads.values())) == checked


@pytest.mark.parametrize(
    ("change", "message"),
    [(Path.unlink, "cannot be read: nothing was uploaded"), (Path.touch, None), (truncate, "changed during the check")],
)
def test_a_csv_that_changes_during_the_check_is_not_uploaded(project, monkeypatch, change, message):
    def check(file, **options):
        change(file)
        return []

    monkeypatch.setattr("podium.kaggle.submit.check_submission", check)
    if message is None:
        assert submit(project.session(), project.csv, "first").state == "scored"
        return
    with pytest.raises(SubmissionError, match=message):
        submit(project.session(), project.csv, "first")
    assert project.state.asked == []


def test_a_full_disk_stops_before_the_upload(project, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(KaggleError, match="No space left on device") as refusal:
        submit(project.session(), project.csv, "first")
    assert "free space" in refusal.value.fix and START not in project.state.asked


def test_a_submission_made_elsewhere_is_not_taken_for_ours(project):
    project.state.script["PUT"] = [Fault(cut=True, times=99)]
    with pytest.raises(KaggleError):
        submit(project.session(timeout_seconds=2, retry_seconds=()), project.csv, "first")
    project.state.submissions.insert(
        0,
        {
            "ref": 1,
            "date": "2026-01-01T00:00:00.000Z",
            "description": "first",
            "fileName": "ensemble.csv",
            "graded": None,
        },
    )
    assert [entry.state for entry in settle(project.session())[0]] == ["lost"]


def hide_submission(project, *, requests):
    """Hide the newest submission from this number of lists, asked for after the upload."""
    hidden = []
    hide = Fault(before=lambda: hidden.append(project.state.submissions.pop()))
    show = Fault(before=lambda: project.state.submissions.extend(hidden))
    project.state.script[LIST] = [Fault(), hide, *[Fault()] * (requests - 1), show]


def test_a_submission_that_kaggle_lists_only_later_is_found(project):
    hide_submission(project, requests=3)
    assert submit(project.session(grace_seconds=60), project.csv, "first").ref == 1000
    assert project.state.asked.count(CREATE) == 1 and [entry.ref for entry in project.ledger] == [1000]
    assert "Kaggle may not list a recent upload yet" in "\n".join(project.lines)


def test_a_submission_that_kaggle_lists_after_the_grace_period_is_found_by_the_next_command(project):
    project.state.polls_before_score = 0
    hide_submission(project, requests=99)
    with pytest.raises(KaggleError, match="was not made") as refusal:
        submit(project.session(), project.csv, "first")
    assert refusal.value.found == "the kaggle command reported success" and project.ledger[0].state == "lost"
    (show,) = [fault for fault in project.state.script[LIST] if fault.before]
    project.state.script[LIST] = [show]
    with pytest.raises(SubmissionError, match="Kaggle has this file already"):
        submit(project.session(), project.csv, "second")
    assert [(entry.state, entry.ref) for entry in project.ledger] == [("scored", 1000)]
    assert project.state.asked.count(CREATE) == 1


def test_a_clock_that_went_back_does_not_prolong_the_grace_period():
    assert Patience(grace_seconds=60).grace_left("2999-01-01T00:00:00Z") == 60
    assert Patience(grace_seconds=60).grace_left("2026-01-01T00:00:00Z") < 0


def test_a_reason_that_kaggle_did_not_tell_yet_is_asked_for_again(project):
    project.state.grade = lambda _: Graded(error="Row 7 has no label.\nSee the page.")
    project.state.script["GetSubmission"] = [Fault(500, times=2)]
    with pytest.raises(KaggleError, match="did not answer when asked for the reason"):
        submit(project.session(), project.csv, "first")
    assert [(entry.state, entry.reason) for entry in project.ledger] == [("failed", "")]
    assert settle(project.session())[0][0].reason == "Row 7 has no label. See the page."


def test_a_message_that_begins_with_a_dash_or_is_long_arrives(project):
    message = "-f " + "long 'and' \"quoted\" " * 10
    entry = submit(project.session(), project.csv, message)
    assert (
        project.ledger[0].message == message and project.state.submissions[0]["description"] == f"{entry.tag} {message}"
    )
    with pytest.raises(SubmissionError, match="needs a message"):
        submit(project.session(), project.csv, " ")


def test_nothing_is_kept_of_what_was_not_sent(project):
    project.state.daily = 0
    with pytest.raises(KaggleError):
        submit(project.session(), project.csv, "first")
    assert not (project.csv.parent / "submitted").exists()
