"""`podium tune`: what it prints, what it refuses, and that Ctrl-C keeps finished trials."""

import io
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import podium
from podium.cli import tune as cli_tune
from podium.cli.app import app
from podium.tune import trials as trials_module
from podium.tune.history import state_word
from podium.tune.task import FAILED, Judged
from tune_toys import RECIPE, SEARCH, Inline

SOURCE = Path(podium.__file__).parents[1]


@pytest.fixture
def tune(house, judged_by_rate, monkeypatch):
    """The command, in this process and without training."""

    @contextmanager
    def inline(place, count):
        yield Inline()

    monkeypatch.setattr(trials_module, "processes", inline)
    monkeypatch.chdir(house.project.root)
    monkeypatch.delenv("COMPETITION", raising=False)

    def run(*words):
        return CliRunner().invoke(app, ["tune", *words, "-c", "digits"], catch_exceptions=False)

    return run


def test_a_search_says_on_what_it_judges_shows_each_trial_and_writes_the_winner(tune, house):
    done = tune("tiny", "--trials", "12")
    assert done.exit_code == 0 and "\r" not in done.stdout and "\x1b" not in done.stdout
    for told in (
        "tiny: judged on 200 inner rows, trained on 800 others; the validation rows are not looked at and stay honest",
        "tries ([search] of tiny.toml):",
        "learning_rate          0.0002 to 0.2, by its logarithm",
        "progressive_pixels     [], [8]",
        "12 trials in all",
        "trial   0  judged   0.5000",
        "the recipe as it is",
        "once more, on other inner rows: trial ",
        "the best of 12 trials is number",
        "The best of many trials looks better than it is: on 400 other inner rows",
        "wrote competitions/digits/tiny-tuned.toml, a recipe like any other: its runs count among those to train",
        "next: make tiny-tuned COMPETITION=digits, then make ensemble COMPETITION=digits; or rm competitions/digits/",
        "see reports/digits/tune/tiny/index.html",
    ):
        assert told in done.stdout, told
    assert done.stdout.count("\ntrial ") == 12
    again = tune("tiny", "--trials", "12", "--out", "found")
    assert "goes on after 12 trials" in again.stdout and "\ntrial " not in again.stdout
    assert (house.recipe_file.with_name("found.toml")).is_file()
    house.recipe_file.write_text(RECIPE)
    other = tune("tiny", "--minutes", "0.00001")
    assert "a new one begins" in other.stdout and "Podium's ranges: no [search] in it" in other.stdout
    assert "trials begin for 1e-05 minutes" in other.stdout


def test_nothing_is_written_where_the_recipe_itself_is_the_best(tune, house):
    done = tune("tiny", "--trials", "1")
    assert "It is the recipe as it was." in done.stdout and "wrote" not in done.stdout
    assert [file.name for file in house.recipe_file.parent.glob("*.toml")].count("tiny-tuned.toml") == 0


def test_a_search_without_a_score_says_so(tune, monkeypatch):
    monkeypatch.setattr(trials_module, "judge", lambda task: Judged(FAILED, reason="Training diverged."))
    done = tune("tiny", "--trials", "2")
    assert "no trial has come to a score" in done.stdout and done.stdout.count("Training diverged.") == 2


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_a_live_table_of_running_and_best_trials(house, judged_by_rate, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Screen())
    tuning = house.open()
    with cli_tune._onlooker() as onlooker:
        trials_module.run_trials(tuning, trials_module.Budget(trials=3), pool=Inline(), onlooker=onlooker)
        running = tuning.study.ask()
        running.report(0.25, 1)
        onlooker.note("a word")
        onlooker.look(tuning)
    assert "a word" in sys.stdout.getvalue()
    shown = sys.stdout.getvalue()
    last = shown[shown.rindex("tiny: 3 trials, 1 running") :]
    assert "epoch 1 0.2500" in last and last.index("running", 30) < last.index("judged") and last.count("judged") == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tny"], ["There is no recipe 'tny' to tune.", "make tune RECIPE=tiny COMPETITION=digits"]),
        ([], ["Which recipe is to be tuned?", "one of tiny"]),
        (["tiny", "--trials", "abc"], ["TRIALS=abc: expected a whole number", "TRIALS=20, or MINUTES=30"]),
        (["tiny", "--trials", "0"], ["TRIALS=0: expected"]),
        (["tiny", "--minutes", "soon"], ["MINUTES=soon: expected a number above 0"]),
        (["tiny", "--minutes", "inf"], ["MINUTES=inf"]),
        (["tiny", "--trials", "3", "--minutes", "3"], ["both TRIALS= and MINUTES="]),
        (["tiny", "--out", "tiny"], ["cannot be written over that"]),
    ],
)
def test_what_the_user_can_mend_is_told_before_anything_is_trained(tune, house, words, told, judged_by_rate):
    from podium.errors import PodiumError

    with pytest.raises(PodiumError) as error:
        tune(*words)
    assert all(part in str(error.value) for part in told), error.value
    assert not judged_by_rate and len(str(error.value).splitlines()) < 10


def test_an_unknown_key_in_the_search_is_refused_by_name(tune, house):
    from podium.errors import ConfigError

    house.recipe_file.write_text(RECIPE + SEARCH + "droput = [0, 0.5]\n")
    with pytest.raises(ConfigError, match=r"search\.droput: unknown key; did you mean dropout\?"):
        tune("tiny")


def test_processes_really_search_and_ctrl_c_keeps_what_they_finished(house):
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "podium", "tune", "tiny", "--trials", "500", "-c", "digits"]
    with subprocess.Popen(
        command,
        cwd=house.project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        while not (line := run.stdout.readline()).startswith("trial "):
            assert run.poll() is None
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all processes of the search
        _, said = run.communicate(timeout=300)
    assert run.returncode == 130 and said.strip() == "Stopped. What was finished is kept.", said
    states = [state_word(one) for one in house.open().study.trials]
    assert states[int(line.split()[1])] == "judged" and set(states) <= {"judged", "stopped"}
    assert (house.project.root / "reports/digits/tune/tiny/index.html").is_file()
