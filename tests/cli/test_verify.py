"""`podium verify` and `podium why`: what they print, and their exit codes."""

import json
import shutil
from pathlib import Path

import pytest

from podium.kaggle.ledger import Entry, write_ledger
from podium.plan.stamp import file_sha256

CSV = "submissions/digits/ensemble.csv"


@pytest.fixture
def blended(project, podium) -> Path:
    """A competition whose only run is trained and blended."""
    (project / "competitions" / "digits" / "fast.toml").unlink()
    for command in ("train", "ensemble"):
        assert podium(project, command).returncode == 0
    return project


def test_a_file_that_comes_from_this_code_and_data_is_verified_without_and_with_training(blended, podium):
    files = {file: file.read_bytes() for file in blended.glob("[os]*/**/*.*")}
    done = podium(blended, "verify")
    assert (done.returncode, done.stdout) == (
        0,
        "hashes and versions: 9 of 9 are the same\n"
        "the ensemble made again: the same CSV, weights and scores\n"
        f"{CSV} comes from this code and data.\n",
    )
    done = podium(blended, "verify", "tiny")
    assert done.returncode == 0 and "tiny.s1              trained again: bit for bit (accuracy 0." in done.stdout
    assert done.stdout.endswith(f"{CSV} comes from this code and data.\n")
    assert {file: file.read_bytes() for file in blended.glob("[os]*/**/*.*")} == files


def test_without_the_images_verify_says_that_they_were_not_compared(blended, podium):
    shutil.rmtree(blended / ".cache")
    done = podium(blended, "verify")
    assert done.returncode == 0 and done.stdout.startswith("not here ")
    assert done.stdout.endswith(f"{CSV} comes from this code and data; what is not here was not compared.\n")


def test_each_recipe_is_trained_twice_in_a_rehearsal(blended, podium):
    done = podium(blended, "verify", "rehearse", "--file", CSV)
    assert done.returncode == 0 and "trained twice: bit for bit" in done.stdout, done.stdout


def test_a_changed_file_and_another_score_end_with_1_and_what_cannot_be_checked_with_2(blended, podium, monkeypatch):
    monkeypatch.setattr("podium.rehearsal.repeat_run", lambda *_, **__: ("another score", "accuracy 0.1"))
    done = podium(blended, "verify", "all")
    assert done.returncode == 1 and "tiny.s1              trained again: another score (accuracy 0.1)" in done.stdout
    recipe = blended / "competitions" / "digits" / "tiny.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 1", "epochs = 2"))
    done = podium(blended, "verify", "all")
    assert done.returncode == 1 and "trained again" not in done.stdout and "made again" not in done.stdout
    assert "tiny.toml, seed 1: epochs = 1, now 2" in done.stdout
    assert done.stdout.endswith(f"{CSV} does NOT come from this code and data.\n")
    done = podium(blended, "verify", "--file", "none.csv")
    assert done.returncode == 2 and "There is no such submission." in done.stderr


def test_another_ensemble_ends_with_1(blended, podium, monkeypatch):
    monkeypatch.setattr("podium.ensemble.chain.remake_differences", lambda *_: ["honest_score", "csv_sha256"])
    done = podium(blended, "verify", "all")
    assert done.returncode == 1 and "the ensemble made again: honest_score, csv_sha256" in done.stdout


def test_why_prints_the_tree_of_a_submission_in_the_ledger_with_its_score(blended, podium):
    entry = Entry(
        time="2026-11-24T10:00:00Z",
        state="scored",
        file="ensemble.csv",
        sha256=file_sha256(blended / CSV),
        public=0.9,
    )
    write_ledger(blended / "submissions/digits/ledger.csv", [entry])
    done = podium(blended, "why", CSV)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0] == "state     sha256        made from, further right"
    assert lines[1].endswith(f"  {CSV}") and lines[-1] == "submitted 2026-11-24T10:00:00Z: scored, public score 0.9"
    assert lines[-3].endswith("competitions/digits/data.lock") and len(lines) == 11
    record = json.loads((blended / CSV).with_suffix(".json").read_text())
    assert lines[5].startswith(f"ok        {record['inputs']['tiny.s1'][:12]}    oof/digits/tiny.s1.npz, weight ")
