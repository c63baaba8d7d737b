"""The commands: what they print, how they end, and that Ctrl-C costs no submission."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake.server import TOKEN
from fake.state import Fault, Graded
from PIL import Image

import podium as package
from command_toys import run_podium
from podium.config.competition import read_competition
from podium.errors import KaggleError
from podium.files import file_lock
from podium.kaggle.submit import submit
from podium.lock import read_lock, write_lock

CREATE, LIST = "CreateSubmission", "ListSubmissions"


def start_submit(project):
    """`podium submit` in a process of its own, which runs the kaggle CLI as users do."""
    environment = project.environment | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    command = [sys.executable, "-m", "podium", "submit", "--message", "first", "-c", "birds"]
    return subprocess.Popen(
        command, cwd=project.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("arrived", [False, True])
def test_after_ctrl_c_in_mid_upload_the_next_submit_uploads_only_what_did_not_arrive(project, arrived):
    reached = []
    project.state.script[LIST if arrived else "PUT"] = [
        *([Fault()] if arrived else []),
        Fault(before=lambda: (reached.append(1), time.sleep(1.5)), cut=not arrived),
    ]
    with start_submit(project) as process:
        while not reached:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "Stopped" in errors and "Traceback" not in errors
    assert [entry.state for entry in project.ledger] == ["uploading"]
    assert submit(project.session(), project.csv, "second").state == "scored"
    assert [entry.state for entry in project.ledger] == (["scored"] if arrived else ["lost", "scored"])
    assert len(project.state.submissions) == 1


def test_two_at_once_make_one_submission(project):
    reached = []
    project.state.script[LIST] = [Fault(before=lambda: (reached.append(1), time.sleep(1.5)))]
    with start_submit(project) as process:
        while not reached:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        with pytest.raises(KaggleError, match="Another command submits to birds"):
            submit(project.session(), project.csv, "second")
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "public score 1" in output and len(project.state.submissions) == 1


def test_an_upload_that_outlives_a_killed_podium_is_not_made_twice(project):
    reached = []
    project.state.script["PUT"] = [Fault(before=lambda: (reached.append(1), time.sleep(3)))]
    with start_submit(project) as process:
        while not reached:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.kill()
        process.wait()
        with pytest.raises(KaggleError, match="Another command submits"):
            submit(project.session(), project.csv, "second")
    with file_lock(project.csv.parent / ".ledger.lock"):  # when the upload has ended
        assert len(project.state.submissions) == 1
    assert submit(project.session(), project.csv, "second").message == "first" and len(project.state.submissions) == 1


def test_a_new_competition_is_fetched_from_kaggle_and_looked_at(project):
    file = project.folder / "made.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(8):
            stream = io.BytesIO()
            Image.new("RGB", (20, 20), (number, 0, 0)).save(stream, "PNG")
            place = f"test/{number}.png" if number < 2 else f"train/{'cat' if number % 2 else 'dog'}/{number}.png"
            archive.writestr(place, stream.getvalue())
        project.state.files = {member.filename: member.file_size for member in archive.infolist()}
    project.state.archive = file.read_bytes()
    project.state.about = {"evaluationMetric": "AUC", "maxDailySubmissions": 5, "deadline": "2027-01-02T23:59:00Z"}
    code, output, errors = run(project, "new", "--kaggle", "birds-and-others", competition="pets")
    assert "takes CSV files (make submit); metric: AUC; submissions a day: 5; deadline: 2027-01-02" in output
    assert (code, errors) == (0, "") and "6 labelled images (one folder per class), 2 test images" in output
    assert "next: check these files, then type make rehearse COMPETITION=pets\n" in output
    settings = read_competition(project.folder / "competitions" / "pets")
    assert (settings.kaggle.competition, settings.data.archive) == ("birds-and-others", "birds-and-others.zip")


def run(project, *words, competition="birds"):
    done = run_podium(project.folder, *words, "-c", competition)
    return done.returncode, done.stdout, done.stderr


def test_submit_goes_the_way_of_notebooks_where_a_competition_takes_nothing_else(project):
    project.state.about = {"isKernelsSubmissionsOnly": True}
    code, output, errors = run(project, "submit", "--message", "first")
    assert code == 2 and "takes notebooks only" in output and "file of the ensemble was changed" in errors
    assert CREATE not in project.state.asked


def test_submit_prints_the_score_and_where_it_is_written(project):
    code, output, errors = run(project, "submit", "--message", "first")
    assert (code, errors) == (0, "")
    assert "5 submissions left today" in output and "ensemble.csv, kept as submissions/birds/submitted/" in output
    assert (
        "ensemble.csv: submission 1000, public score 1, private 1; cross-fitted 1 (standard error 0.0510213)" in output
    )
    assert "recorded in submissions/birds/ledger.csv" in output and TOKEN not in output


def test_a_fault_is_one_screen_and_exit_code_2(project):
    project.state.script["PUT"] = [Fault(403)]
    code, _, errors = run(project, "submit", "--message", "first")
    assert code == 2 and "The upload failed" in errors and "Traceback" not in errors
    code, _, errors = run(project, "submit")
    assert code == 2 and "MESSAGE=" in errors


def test_submissions_picks_up_what_was_pending_and_says_what_to_select(project):
    project.state.polls_before_score = 10**6
    for wrong in range(5):
        project.write(wrong)
        with pytest.raises(KaggleError, match="not scored"):
            submit(project.session(wait_seconds=0.1), project.csv, f"try {wrong}")
    code, output, _ = run(project, "submissions")
    assert code == 0 and output.count("pending") == 5 and "rank correlation: needs 5" in output
    project.state.polls_before_score = 0
    code, output, _ = run(project, "submissions")
    assert (
        code == 0 and "pending" not in output and "rank correlation of cross-fitted and public scores: +1.00" in output
    )
    assert "select 1000 (ensemble.csv, try 0): best cross-fitted score" in output
    assert "select 1001 (ensemble.csv, try 1): best public score of the others" in output
    result = json.loads(run(project, "submissions", "--json")[1])
    assert [entry["ref"] for entry in result["select"]] == [1000, 1001]
    assert result["rank_correlation"] > 0.99 and result["submissions"][0]["public"] == 1.0


def test_submissions_tells_when_there_are_none(project):
    assert "nothing was submitted yet" in run(project, "submissions")[1]


def test_leaderboard_prints_the_rank_and_the_medal_zones(project):
    rows = "".join(f"{team},team {team},2026-01-01 00:00:00,{1 - team / 1000}\n" for team in range(1, 51))
    board = project.folder / "board.zip"
    with zipfile.ZipFile(board, "w") as archive:
        archive.writestr("board.csv", "TeamId,TeamName,SubmissionDate,Score\n" + rows)
    project.state.leaderboard = board.read_bytes()
    code, _, errors = run(project, "leaderboard")
    assert code == 2 and "No submission has a score yet." in errors
    result = json.loads(run(project, "leaderboard", "--score", "0.985", "--json")[1])
    silver = {"medal": "silver", "last_rank": 10, "last_score": 0.99, "standard_errors": None}
    assert result["medal"] == "bronze" and silver in result["medals"]
    project.write(1)
    project.state.grade = lambda _: Graded("0.93", "0.9")
    submit(project.session(), project.csv, "first")
    assert "accuracy 0.93: rank 51, no medal;" in run(project, "leaderboard")[1]
    code, output, _ = run(project, "leaderboard", "--score", "0.985")  # 0.051 is the standard error of the blend
    assert code == 0 and "accuracy 0.985: rank 15, bronze medal; the leaderboard has 50 teams" in output
    assert [line.split() for line in output.splitlines()[3:]] == [
        ["silver", "10", "0.99", "+0.1"],
        ["bronze", "20", "0.98", "-0.1"],
    ]
    with zipfile.ZipFile(board, "w") as archive:
        archive.writestr("board.csv", "TeamId,TeamName,SubmissionDate,Score\n")
    project.state.leaderboard = board.read_bytes()
    assert run(project, "leaderboard")[1] == "accuracy 0.93: rank 1, no medal; the leaderboard has 0 teams\n"


def test_download_fetches_and_says_what_the_archive_is_called(project):
    file = project.folder / "made.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.csv", "id,label\n")
        archive.writestr("test.csv", "id\n")
    project.state.archive, project.state.files = file.read_bytes(), {"train.csv": 9, "test.csv": 3}
    code, output, errors = run(project, "download")
    assert (code, errors) == (0, "") and "data/birds-and-others.zip" in output
    assert "2 file(s) have the names and sizes that Kaggle lists" in output
    assert (project.folder / "data" / "birds-and-others.zip").read_bytes() == file.read_bytes()


def test_download_fetches_the_files_that_the_settings_name_and_compares_them_with_the_lock(project):
    project.state.contents = {"train.csv": b"id,label\n", "images.tar": bytes(10**6)}
    project.state.files = {name: len(content) for name, content in project.state.contents.items()}
    settings = project.folder / "competitions" / "birds" / "competition.toml"
    settings.write_text(settings.read_text() + 'files = ["train.csv"]\n')
    code, output, errors = run(project, "download")
    assert (code, errors) == (0, "") and "data/birds-and-others is whole; 1 file(s) have" in output
    assert [file.name for file in (project.folder / "data" / "birds-and-others").iterdir()] == ["train.csv"]
    lock = settings.with_name("data.lock")
    write_lock(lock, replace(read_lock(lock), files={"birds-and-others/train.csv": "another"}))
    code, output, errors = run(project, "download")
    assert code == 2 and "birds-and-others/train.csv: " in errors and "--accept-data" in errors


def test_a_new_competition_with_wrong_names_of_files_downloads_nothing(project):
    code, _, errors = run(project, "new", "--kaggle", "birds-and-others", "--set", "kaggle.files=3", competition="pets")
    assert (
        code == 2 and "kaggle.files" in errors and not {"DownloadDataFiles", "ListDataFiles"} & {*project.state.asked}
    )


def test_no_command_imports_what_trains(project):
    code = "import sys, podium.cli, podium.kaggle.submit, podium.kaggle.download, "
    code += "podium.kaggle.standings; print([n for n in ('torch', 'fastai', 'timm', 'torchvision', 'kaggle') "
    code += "if n in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
