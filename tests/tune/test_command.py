"""`podium tune`: what it prints, what it refuses, and that Ctrl-C keeps finished trials."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import podium
from podium.cli.app import app
from podium.errors import ConfigError, DivergedError
from podium.tune import trial as trial_module
from tune_toys import RECIPE, failing

SOURCE = Path(podium.__file__).parents[1]


@pytest.fixture
def tune(toy, trained, monkeypatch):
    """The command, in this process and without training."""
    monkeypatch.chdir(toy.root)
    monkeypatch.delenv("COMPETITION", raising=False)

    def run(*arguments):
        return CliRunner().invoke(app, ["tune", *arguments, "-c", "digits"], catch_exceptions=False)

    return run


def test_a_search_prints_its_rows_ranges_and_trials_and_writes_the_best(tune, toy):
    done = tune("tiny", "--trials", "12")
    assert done.exit_code == 0
    for line in (
        "tiny: scored on 200 inner rows, trained on 800 others; no validation row is used",
        "0 earlier trials of this recipe",
        "learning_rate          0.0002 to 0.2, logarithmic",
        "progressive_pixels     [], [8]",
        "runs up to 12 trials in all",
        "trial   0  complete  0.5000  ",
        "compares trial ",
        "is the best of 12 trials",
        "on 400 other inner rows",
        "tiny-tuned.toml, a recipe like any other: `make all` trains its runs",
        "next: make tiny-tuned COMPETITION=digits, then make ensemble COMPETITION=digits; or rm competitions/digits/",
        "see reports/digits/tune/tiny: trials.csv and plots",
    ):
        assert line in done.stdout, line
    assert done.stdout.count("\ntrial ") == 12
    with pytest.raises(ConfigError, match="cannot replace an existing file"):
        tune("tiny", "--trials", "13")
    again = tune("tiny", "--trials", "12", "--out", "other")
    assert "12 earlier trials of this recipe" in again.stdout and "\ntrial " not in again.stdout
    assert toy.recipe_file.with_name("other.toml").is_file()
    toy.recipe_file.write_text(RECIPE)
    new = tune("tiny", "--minutes", "0", "--out", "third")
    assert "0 earlier trials of this recipe" in new.stdout and "dropout                0 to 0.5\n" in new.stdout
    assert "runs up to 0 minutes" in new.stdout and "no trial has a score" in new.stdout


def test_no_recipe_is_written_where_the_recipe_itself_is_the_best(tune, toy):
    done = tune("tiny", "--trials", "1")
    assert "It is the recipe as it is." in done.stdout and "wrote" not in done.stdout
    assert not toy.recipe_file.with_name("tiny-tuned.toml").exists()


def test_a_search_without_a_score_says_so(tune, monkeypatch):
    monkeypatch.setattr(trial_module, "train_run", failing(DivergedError("Training diverged.")))
    done = tune("tiny", "--trials", "2")
    assert "no trial has a score" in done.stdout and done.stdout.count("Training diverged.") == 2


def test_ctrl_c_keeps_finished_trials_and_leaves_no_file_of_a_training(toy):
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "podium", "tune", "tiny", "--trials", "500", "-c", "digits"]
    with subprocess.Popen(
        command,
        cwd=toy.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (line := process.stdout.readline()).startswith("trial "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and errors.strip() == "Stopped. What was finished is kept.", errors
    trials = toy.open().study.trials
    assert trials[int(line.split()[1])].state.name == "COMPLETE"
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL", "RUNNING"}  # the last two do not count
    folder = toy.root / "reports/digits/tune/tiny"
    assert (folder / "trials.csv").is_file() and not (folder / "scratch").exists()
