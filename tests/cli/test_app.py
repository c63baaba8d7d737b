"""The command line: what it prints, what it refuses, and how it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
COMPETITION = """
title = "digits"
[data]
source = "digits"
[validation]
rows = 297
"""
RECIPE = """
architecture = "timm:test_resnet"
epochs = 1
learning_rate = 0.01
stored_pixels = 16
"""


def podium(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "COLUMNS": "200"}
    environment.pop("COMPETITION", None)
    command = [sys.executable, "-m", "podium", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "competitions" / "digits"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(COMPETITION)
    (folder / "tiny.toml").write_text(RECIPE)
    return tmp_path


def test_the_whole_way_from_toml_to_a_scored_csv(house):
    for words, expected in [
        (["prepare"], "1,297 labelled images"),
        (["estimate"], "1 runs to train"),
        (["train"], "validation accuracy"),
        (["train"], "tiny.s1: up to date"),
        (["ensemble"], "cross-fitted on 297 validation rows"),
        (["ensemble", "--strategy", "greedy", "--out", "try2"], "wrote submissions/digits/try2.csv"),
        (["suggest"], "next: seeds = [1, 2] in tiny.toml"),
        (["check", "submissions/digits/ensemble.csv"], "a valid submission of digits, 500 rows"),
        (["score", "submissions/digits/ensemble.csv"], "on 500 withheld test images"),
        (["runs"], "up to date"),
        (["rehearse"], "Its scores are meaningless."),
    ]:
        done = podium(house, *words, "--competition", "digits")
        assert done.returncode == 0 and expected in done.stdout, (words, done.stdout, done.stderr)
        assert "\r" not in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["prepare", "-c", "digit"], ["There is no competition 'digit'.", "COMPETITION=digits"]),
        (["train", "tiny.s2", "-c", "digits"], ["tiny.s2", "tiny.s1"]),
        (
            ["ensemble", "-c", "digits"],
            ["There are no predictions to blend.", "make train COMPETITION=digits"],
        ),
        (["check", "none.csv", "-c", "digits"], ["data.lock", "prepare"]),
    ],
)
def test_what_the_user_can_mend_is_one_screen_and_exit_code_2(house, words, expected):
    done = podium(house, *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in expected), done.stderr
    assert len(done.stderr.splitlines()) < 30


def test_what_the_system_refuses_is_no_traceback(house):
    podium(house, "prepare", "-c", "digits")
    (house / "oof").write_text("a file where a folder should be")
    done = podium(house, "train", "-c", "digits")
    assert done.returncode == 2 and "Results cannot be written." in done.stderr
    (house / "oof").unlink()
    podium(house, "train", "-c", "digits")
    (house / "submissions").write_text("a file where a folder should be")
    done = podium(house, "ensemble", "-c", "digits")
    assert done.returncode == 2 and "The system refused." in done.stderr and "submissions" in done.stderr


def test_ctrl_c_says_that_what_was_finished_is_kept(house):
    podium(house, "prepare", "-c", "digits")
    file = house / "competitions" / "digits" / "tiny.toml"
    file.write_text(file.read_text().replace("epochs = 1", "epochs = 500"))
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "podium", "train", "-c", "digits"]
    with subprocess.Popen(
        command, cwd=house, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while "1/500" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 130 and said.strip() == "Stopped. What was finished is kept."
    assert not list(house.glob("oof/**/*.npz")) and not list(house.glob("oof/**/.*"))


def test_check_tells_all_faults_of_a_csv(house):
    podium(house, "prepare", "-c", "digits")
    (house / "bad.csv").write_text("id,label\ndigit/9999,seven\n")
    done = podium(house, "check", "bad.csv", "-c", "digits")
    assert done.returncode == 2 and "bad.csv: not a submission of digits" in done.stderr
    assert len(done.stderr.splitlines()) >= 3


def test_help_teaches_every_command(house):
    done = podium(house, "--help")
    for name in (
        "prepare",
        "train",
        "ensemble",
        "check",
        "score",
        "runs",
        "rehearse",
        "estimate",
        "predict",
        "suggest",
        "import",
        "new",
        "download",
        "submit",
        "submissions",
        "leaderboard",
        "show",
        "lr-find",
        "tune",
    ):
        assert name in done.stdout
        assert podium(house, name, "--help").returncode == 0


def test_importing_the_command_line_imports_nothing_heavy():
    heavy = ("torch", "fastai", "numpy", "sklearn", "pandas")
    code = f"import sys, podium.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
