"""The output, the files and the errors of `podium show` and `podium lr-find`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
COMPETITION = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPE = """architecture = "fastnet"  # tiny
seeds = [1, 2]
epochs = 1
learning_rate = "find"
optimiser = "muon"
stored_pixels = 16

[fastnet]
widths = [16, 16]
"""


def podium(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "COMPETITION": "digits"}
    environment.pop("PODIUM_CACHE", None)
    command = [sys.executable, "-m", "podium", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    home = folder / "competitions" / "digits"
    home.mkdir(parents=True)
    (home / "competition.toml").write_text(COMPETITION)
    (home / "tiny.toml").write_text(RECIPE)
    assert podium(folder, "prepare").returncode == 0
    return folder


def test_show_draws_a_sheet_and_prints_what_to_check(house):
    done = podium(house, "show", "tiny")
    assert done.returncode == 0 and not done.stderr
    assert "wrote reports/digits/show/tiny.s1.png: 10 labelled images" in done.stdout
    assert "no augmentation. Stored at 16 px" in done.stdout and "check: Does each label fit" in done.stdout
    assert (house / "reports/digits/show/tiny.s1.png").is_file()
    assert not (house / "oof").exists()


def test_lr_find_prints_its_suggestions_and_write_puts_one_into_the_recipe(house):
    file = house / "competitions" / "digits" / "tiny.toml"
    done = podium(house, "lr-find", "tiny")
    assert done.returncode == 0 and not done.stderr, done.stderr
    expected = "their rate is muon_rate", "valley", "slide", "steep", "minimum", "the recipe   find", "WRITE=1 writes"
    assert all(text in done.stdout for text in expected), done.stdout
    assert len(done.stdout.splitlines()) == 10 and "\r" not in done.stdout
    assert file.read_text() == RECIPE
    done = podium(house, "lr-find", "tiny", "--write")
    assert done.returncode == 0 and "stale now: tiny.s1, tiny.s2; make tiny trains them" in done.stdout, done.stderr
    before, after = RECIPE.splitlines(), file.read_text().splitlines()
    assert after[3].startswith("learning_rate = 0.") or after[3].startswith("learning_rate = 1")
    assert "  # lr_find's valley, 20" in after[3] and after[3].endswith(", batch 128, 1,000 rows")
    assert before[:3] + before[4:] == after[:3] + after[4:]
    assert {one.name for one in (house / "reports/digits/lr-find").iterdir()} == {"tiny.csv", "tiny.json", "tiny.png"}
    file.write_text(RECIPE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "tyny"], ["There is no run or recipe 'tyny'.", "RUN=tiny"]),
        (["show", ""], ["Which run or recipe?", "RUN=tiny"]),
        (["lr-find", "tiny.s1"], ["There is no recipe 'tiny.s1'.", "RECIPE=tiny"]),
        (["lr-find", "tinny", "--write"], ["There is no recipe 'tinny'.", "RECIPE=tiny"]),
    ],
)
def test_a_misspelt_name_is_one_screen_with_the_nearest(house, words, told):
    done = podium(house, *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(part in done.stderr for part in told), done.stderr
    assert len(done.stderr.splitlines()) < 8


def test_a_read_only_recipe_is_an_error_before_lr_find_runs(house):
    file = house / "competitions" / "digits" / "tiny.toml"
    file.chmod(0o444)
    done = podium(house, "lr-find", "tiny", "--write")
    file.chmod(0o644)
    assert done.returncode == 2 and "write-protected" in done.stderr and not done.stdout
