"""The tuned recipe: the recipe's text with other values, and never written over what a person wrote."""

import hashlib

import pytest

from podium.config.keys import read_recipe
from podium.config.search import read_search
from podium.errors import ConfigError
from podium.tune.text import Comparison, describe_comparison, verdict
from podium.tune.winner import winner_file, write_winner
from tune_toys import RECIPE, compare, search


@pytest.fixture
def searched(toy, trained):
    tuning = toy.open()
    search(tuning, trials=12)
    return tuning, compare(tuning)


def test_the_written_recipe_is_the_best_trials_and_says_how_it_was_found(searched, toy):
    tuning, comparison = searched
    file = winner_file(tuning, None)
    assert file.name == "tiny-tuned.toml"
    write_winner(tuning, file, comparison)
    written, values = read_recipe(file), tuning.values(tuning.best)
    assert written == tuning.recipe_with(values) and written.learning_rate == values["learning_rate"]
    assert (written.augment.zoom, written.seeds) == (1.1, (3, 4)) and read_search(file, written) == {}
    text = file.read_text()
    assert "# A tiny network.\n" in text and "epochs = 2  # few\n" in text and "[search]" not in text
    assert "progressive_pixels = " in text and "shift_pixels = " in text  # searched values, defaults included
    comment = " ".join(line.removeprefix("# ") for line in text.split("\n\n")[0].splitlines())
    for part in (
        "Found by `make tune RECIPE=tiny COMPETITION=digits` on 20",
        f"Trial {tuning.best.number} is the best of 12 trials",
        "scored on 200 inner rows, trained on 800 others; no validation row is used",
        f"Its accuracy is {tuning.best.value:.4f} there; tiny as it is has 0.5000.",
        "The best score of many trials is usually too good: on 400 other inner rows, with other seeds",
        f"{comparison.gain:+.4f} ± {comparison.error:.4f}: better beyond the noise of the rows",
        "with podium",
        "optuna",
    ):
        assert part in comment
    assert max(map(len, text.splitlines())) <= 120
    assert {run.run for run in toy.workspace.runs} == {"tiny.s3", "tiny.s4", "tiny-tuned.s3", "tiny-tuned.s4"}


def test_a_tuned_recipe_is_replaced_unless_it_was_edited(searched):
    tuning, comparison = searched
    file = winner_file(tuning, None)
    write_winner(tuning, file, comparison)
    write_winner(tuning, winner_file(tuning, None), comparison)
    edited = file.read_text().replace("epochs = 2", "epochs = 3")
    file.write_text(edited)
    for attempt in (lambda: winner_file(tuning, None), lambda: write_winner(tuning, file, comparison)):
        with pytest.raises(ConfigError, match=r"(?s)was edited afterwards.*tiny-tuned\.toml.*OUT=another-name"):
            attempt()
    assert file.read_text() == edited
    write_winner(tuning, winner_file(tuning, "other"), comparison)
    assert read_recipe(file.with_name("other.toml")).epochs == 2


def test_a_recipe_by_hand_is_not_replaced_and_names_are_checked(toy):
    tuning = toy.open()
    toy.recipe_file.with_name("mine.toml").write_text(RECIPE)
    with pytest.raises(ConfigError, match="no search wrote"):
        winner_file(tuning, "mine")
    for name in ("tiny", "competition"):
        with pytest.raises(ConfigError, match="cannot replace this file"):
            winner_file(tuning, name)
    for name in ("a/b", "x.s1"):
        with pytest.raises(ConfigError, match="cannot be the name of a recipe"):
            winner_file(tuning, name)


def test_the_last_line_signs_all_lines_above(searched):
    tuning, comparison = searched
    file = winner_file(tuning, None)
    write_winner(tuning, file, comparison)
    *lines, last = file.read_bytes().splitlines(keepends=True)
    assert last.decode().strip().endswith(hashlib.sha256(b"".join(lines)).hexdigest())


def test_the_comparison_is_described_with_its_noise():
    def compared(**keys):
        return Comparison(**{"trial": 3, "rows": 400, "tuned": 0.9, "own": 0.91, "gain": -0.01} | keys)

    text = describe_comparison(compared(error=0.01))
    assert text.endswith("it has 0.9000 against 0.9100, -0.0100 ± 0.0100: no difference beyond noise.")
    assert verdict(compared(error=0.001)) == "worse"
    assert verdict(compared()) == "not better"
    assert verdict(compared(gain=0.1)) == "better"
    assert describe_comparison(compared(own=None, gain=None)).endswith("0.9000 against no score.")
    assert describe_comparison(None) == "It is the recipe as it is."
