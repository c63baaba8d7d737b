"""Every way that a submission goes wrong, by the real kaggle CLI against a server on loopback."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
from fake.server import TOKEN
from fake.state import Fault, Graded

from podium import files
from podium.errors import KaggleError, SubmissionError
from podium.kaggle.session import settle
from podium.kaggle.submit import submit

START, CREATE, LIST = "StartSubmissionUpload", "CreateSubmission", "ListSubmissions"


def test_a_submission_is_uploaded_once_scored_and_written_down(house):
    entry = submit(house.desk(), house.csv, "first")
    assert (entry.state, entry.public, entry.private, entry.ref) == ("scored", "1", "1", "1000")
    assert entry.cross_fitted == "1" and entry.standard_error == "0.0510213"
    assert house.ledger == [entry] and house.state.asked.count(CREATE) == 1
    kept = house.csv.parent / entry.ensemble
    assert json.loads(kept.read_text()) == json.loads(house.csv.with_suffix(".json").read_text())
    assert next(iter(house.state.uploads.values())) == house.csv.read_bytes()
    assert house.state.submissions[0]["description"] == f"first {entry.tag}"
    assert "5 submissions left today" in house.told


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


def test_the_token_is_in_no_argument_no_line_and_no_file(house, monkeypatch):
    monkeypatch.setattr("podium.kaggle.client.subprocess.Popen", Recorded)
    Recorded.commands.clear()
    submit(house.desk(VERBOSE="1", VERBOSE_OUTPUT="true"), house.csv, "first")
    assert len(Recorded.commands) >= 8 and any("submit" in command for command in Recorded.commands)
    assert not any(TOKEN in word for command in Recorded.commands for word in command)
    written = [file.read_bytes() for file in house.folder.rglob("*") if file.is_file()]
    assert not any(TOKEN.encode() in content for content in written)
    assert not any(TOKEN in line for line in house.told)


def test_the_same_bytes_are_refused_unless_forced(house):
    submit(house.desk(), house.csv, "first")
    with pytest.raises(SubmissionError, match="has these bytes already") as refusal:
        submit(house.desk(), house.csv, "again")
    assert "public score 1" in refusal.value.found and "FORCE=1" in refusal.value.fix
    assert submit(house.desk(), house.csv, "again", force=True).ref == "1001"
    (house.csv.parent / "ledger.csv").unlink()
    with pytest.raises(SubmissionError, match="has these bytes already"):  # Kaggle's own list knows them too
        submit(house.desk(), house.csv, "again")


def test_a_faulty_csv_is_refused_before_kaggle_is_asked(house):
    house.csv.write_text("id,label\n0,bird\n")
    with pytest.raises(SubmissionError, match="29 ids are missing"):
        submit(house.desk(), house.csv, "first")
    with pytest.raises(SubmissionError, match="no such file"):
        submit(house.desk(), house.csv.with_name("none.csv"), "first")
    assert house.state.asked == [] and house.ledger == []


def test_one_class_for_all_is_refused_unless_forced(house):
    house.csv.write_text("id,label\n" + "".join(f"{row},bird\n" for row in range(30)))
    with pytest.raises(SubmissionError, match="other shares") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "bird 1.00 instead of 0.33" in refusal.value.found and house.state.asked == []
    assert submit(house.desk(), house.csv, "first", force=True).state == "scored"


def test_no_submission_left_today_uploads_nothing(house):
    house.state.daily = 0
    with pytest.raises(KaggleError, match="No submission is left today"):
        submit(house.desk(), house.csv, "first")
    assert START not in house.state.asked and house.ledger == []


def test_no_credentials(house):
    with pytest.raises(KaggleError, match="no Kaggle credentials here") as refusal:
        submit(house.desk(KAGGLE_API_TOKEN=None), house.csv, "first")
    assert "export KAGGLE_API_TOKEN" in refusal.value.fix and house.ledger == []


def test_a_rejected_token(house):
    with pytest.raises(KaggleError, match="rejected the token") as refusal:
        submit(house.desk(KAGGLE_API_TOKEN="old-token"), house.csv, "first")
    assert "old-token" not in str(refusal.value)
    (house.folder / "home" / ".kaggle" / "kaggle.json").write_text('{"username": "me", "key": "old-key"}')
    with pytest.raises(KaggleError, match="rejected the token") as refusal:
        submit(house.desk(KAGGLE_API_TOKEN=None), house.csv, "first")
    assert "old-key" not in str(refusal.value)


RULES = "You must accept this competition's rules before you'll be able to submit"


@pytest.mark.parametrize("message", ["", RULES])
def test_rules_that_are_not_accepted(house, message):
    house.state.script[LIST] = [Fault(403, message)]
    with pytest.raises(KaggleError, match="does not let this account in") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "birds-and-others/rules" in refusal.value.fix and message in refusal.value.found
    house.state.script[START] = [Fault(403, message)]
    with pytest.raises(KaggleError, match="does not let this account in"):
        submit(house.desk(), house.csv, "first")
    assert [one.state for one in house.ledger] == ["refused"]


def test_an_unknown_competition(house):
    house.state.slug = "another"
    with pytest.raises(KaggleError, match="knows no competition 'birds-and-others'") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "competition.toml" in refusal.value.fix


@pytest.mark.parametrize("status", [403, 503])
def test_an_upload_that_fails_with_exit_code_0_is_no_submission(house, status):
    house.state.script["PUT"] = [Fault(status)]
    with pytest.raises(KaggleError, match="upload failed") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "no submission was used up" in refusal.value.fix
    assert CREATE not in house.state.asked and [one.state for one in house.ledger] == ["refused"]
    assert submit(house.desk(), house.csv, "again").state == "scored"


def test_a_submission_that_kaggle_refuses_to_create(house):
    house.state.script[CREATE] = [Fault(400)]
    with pytest.raises(KaggleError, match="made no submission of it") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "400 Client Error" in refusal.value.found and [one.state for one in house.ledger] == ["refused"]


def test_too_many_requests(house):
    house.state.script[LIST] = [Fault(429, times=9)]
    with pytest.raises(KaggleError, match="asks for fewer requests") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "wait some minutes" in refusal.value.fix


def test_a_server_error_once_is_not_noticed(house):
    house.state.script[LIST] = [Fault(500)]
    house.state.script[START] = [Fault(503)]
    assert submit(house.desk(), house.csv, "first").state == "scored"
    assert len(house.state.submissions) == 1


def test_a_server_error_after_the_submission_was_made_uploads_nothing_twice(house):
    house.state.script[LIST] = [Fault(), Fault(500, times=9)]
    with pytest.raises(KaggleError, match="is not known") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "make submissions COMPETITION=birds" in refusal.value.fix
    assert [one.state for one in house.ledger] == ["uploading"]
    house.state.script.clear()
    assert submit(house.desk(), house.csv, "first").ref == "1000" and len(house.state.submissions) == 1


@pytest.mark.parametrize("message", ["", "Internal error"])
@pytest.mark.parametrize("made", [True, False])
def test_a_server_error_at_the_deed_is_settled_by_the_list(house, message, made):
    def make():
        row = {"ref": 1, "date": "2026-01-01T00:00:00.000Z", "fileName": "ensemble.csv", "graded": Graded("0.5")}
        house.state.submissions.extend([row | {"description": f"first {house.ledger[0].tag}"}] if made else [])

    house.state.script[CREATE] = [Fault(500, message, before=make)]
    if made:
        assert submit(house.desk(), house.csv, "first").public == "0.5"
    else:
        with pytest.raises(KaggleError, match="Kaggle does not list it"):
            submit(house.desk(), house.csv, "first")
    assert house.state.asked.count(CREATE) == 1 and len(house.state.submissions) == made


def test_a_connection_cut_once_in_mid_upload_is_not_noticed(house):
    house.state.script["PUT"] = [Fault(cut=True)]
    assert submit(house.desk(), house.csv, "first").state == "scored"
    assert next(iter(house.state.uploads.values())) == house.csv.read_bytes()


def test_a_connection_that_is_always_cut_leaves_nothing_behind_and_says_so(house):
    house.state.script["PUT"] = [Fault(cut=True, times=99)]
    with pytest.raises(KaggleError, match="was not made: Kaggle does not list it") as refusal:
        submit(house.desk(timeout_seconds=3, retry_seconds=()), house.csv, "first")
    assert "did not answer in time" in refusal.value.found and [one.state for one in house.ledger] == ["lost"]


@pytest.mark.parametrize(("reason", "told"), [("Row 7 has no label", "Row 7 has no label"), ("", "gives no reason")])
def test_a_submission_that_kaggle_cannot_score(house, reason, told):
    house.state.grade = lambda _: Graded(error=reason)
    with pytest.raises(KaggleError, match="could not score") as refusal:
        submit(house.desk(), house.csv, "first")
    assert told in refusal.value.found
    assert [(one.state, one.ref) for one in house.ledger] == [("failed", "1000")] and told in house.ledger[0].reason


def test_a_submission_that_stays_pending_is_waited_for_and_then_picked_up(house):
    house.state.polls_before_score = 10**6
    with pytest.raises(KaggleError, match="has not scored the submission yet") as refusal:
        submit(house.desk(wait_seconds=0.3), house.csv, "first")
    assert "submission 1000 is pending" in refusal.value.found and "make submissions" in refusal.value.fix
    assert [one.state for one in house.ledger] == ["pending"]
    house.state.polls_before_score = 0
    again = submit(house.desk(), house.csv, "second")
    assert (again.ref, again.message, len(house.state.submissions)) == ("1000", "first", 1)


def test_a_csv_that_changes_after_the_check_is_not_uploaded(house):
    house.state.script[LIST] = [Fault(before=lambda: house.write(3))]
    with pytest.raises(SubmissionError, match="changed after it was checked"):
        submit(house.desk(), house.csv, "first")
    assert START not in house.state.asked and house.ledger == []


def test_a_full_disk_stops_before_the_upload(house, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(KaggleError, match="No space left on device") as refusal:
        submit(house.desk(), house.csv, "first")
    assert "free space" in refusal.value.fix and START not in house.state.asked


def test_a_submission_made_elsewhere_is_not_taken_for_ours(house):
    house.state.script["PUT"] = [Fault(cut=True, times=99)]
    with pytest.raises(KaggleError):
        submit(house.desk(timeout_seconds=2, retry_seconds=()), house.csv, "first")
    house.state.submissions.insert(
        0,
        {
            "ref": 1,
            "date": "2026-01-01T00:00:00.000Z",
            "description": "first",
            "fileName": "ensemble.csv",
            "graded": None,
        },
    )
    assert [one.state for one in settle(house.desk())[0]] == ["lost"]


def test_what_was_given_up_and_arrived_after_all_is_found(house):
    hidden = []
    house.state.polls_before_score = 0
    house.state.script[LIST] = [Fault(), Fault(before=lambda: hidden.append(house.state.submissions.pop()))]
    with pytest.raises(KaggleError, match="was not made") as refusal:
        submit(house.desk(), house.csv, "first")
    assert refusal.value.found == "success, by the kaggle CLI's word" and house.ledger[0].state == "lost"
    house.state.submissions.extend(hidden)
    entries, _ = settle(house.desk())
    assert [(one.state, one.ref) for one in entries] == [("scored", "1000")]


def test_a_list_that_lags_behind_the_upload_brings_no_second_one(house, monkeypatch):
    hidden, slept = [], []
    monkeypatch.setattr("podium.kaggle.session.time.sleep", slept.append)
    lagging = [Fault(), Fault(before=lambda: hidden.append(house.state.submissions.pop())), Fault(), Fault(), Fault()]
    house.state.script[LIST] = [*lagging, Fault(before=lambda: house.state.submissions.extend(hidden))]
    with pytest.raises(KaggleError, match="does not list it"):
        submit(house.desk(), house.csv, "first")
    with pytest.raises(SubmissionError, match="Kaggle has these bytes already"):
        submit(house.desk(grace_seconds=60), house.csv, "second")
    assert house.state.asked.count(CREATE) == 1 and [one.ref for one in house.ledger] == ["1000"]
    assert 0 < max(slept) < 60


def test_a_reason_that_kaggle_did_not_tell_yet_is_asked_for_again(house):
    house.state.grade = lambda _: Graded(error="Row 7 has no label.\nSee the page.")
    house.state.script["GetSubmission"] = [Fault(500, times=1)]
    with pytest.raises(KaggleError, match="did not answer when asked for the reason"):
        submit(house.desk(), house.csv, "first")
    assert [(one.state, one.reason) for one in house.ledger] == [("failed", "")]
    assert settle(house.desk())[0][0].reason == "Row 7 has no label. See the page."


def test_a_message_that_begins_with_a_dash_or_is_long_arrives(house):
    message = "-f " + "long 'and' \"quoted\" " * 10
    entry = submit(house.desk(), house.csv, message)
    assert house.ledger[0].message == message and house.state.submissions[0]["description"] == f"{message} {entry.tag}"
    with pytest.raises(SubmissionError, match="without a message"):
        submit(house.desk(), house.csv, " ")


def test_nothing_is_kept_of_what_was_not_sent(house):
    house.state.daily = 0
    with pytest.raises(KaggleError):
        submit(house.desk(), house.csv, "first")
    assert not (house.csv.parent / "submitted").exists()
