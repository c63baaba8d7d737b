"""The winner: a complete recipe that says how it was found, and never written over what someone wrote."""

import hashlib

import pytest

from podium.config.keys import read_recipe
from podium.config.search import read_search
from podium.errors import ConfigError
from podium.plan.runs import list_runs, read_recipes
from podium.tune.trials import Budget, judge_again, run_trials
from podium.tune.write import again_sentence, verdict, winner_file, write_winner
from tune_toys import RECIPE, Inline, Remembering


@pytest.fixture
def found(house, judged_by_rate):
    tuning = house.open()
    run_trials(tuning, Budget(trials=12), pool=Inline(), onlooker=Remembering())
    return tuning, judge_again(tuning, pool=Inline(), onlooker=Remembering())


def test_the_written_recipe_is_the_best_trials_and_says_how_it_was_found(found, house):
    tuning, again = found
    file = winner_file(tuning, None)
    assert file.name == "tiny-tuned.toml"
    write_winner(tuning, file, again)
    written, values = read_recipe(file), tuning.values(tuning.best)
    assert written == tuning.recipe_with(values) and written.learning_rate == values["learning_rate"]
    assert (written.augment.zoom, written.seeds) == (1.1, (3, 4)) and read_search(file) == {}
    text = file.read_text()
    assert "progressive_pixels = " in text and "shift_pixels = " in text  # what was searched, also where a default
    words = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    for told in (
        "Found by `make tune RECIPE=tiny COMPETITION=digits` on 20",
        f"the best of 12 trials is number {tuning.best.number}",
        "judged on 200 inner rows, trained on 800 others; the validation rows are not looked at",
        f"Its accuracy there is {tuning.best.value:.4f}; tiny as it is has 0.5000.",
        "The best of many trials looks better than it is: on 400 other inner rows, with other seeds",
        f"{again['difference']:+.4f} ± {again['error']:.4f}: better beyond the noise of the rows",
        "Made with podium",
        "optuna",
    ):
        assert told in words
    assert max(map(len, text.splitlines())) <= 120
    assert set(read_recipes(file.parent)) == {"tiny", "tiny-tuned"}
    assert [run.run for run in list_runs(house.project, "digits") if "tuned" in run.run] == [
        "tiny-tuned.s3",
        "tiny-tuned.s4",
    ]


def test_what_a_search_wrote_is_written_over_and_what_was_edited_is_not(found):
    tuning, again = found
    file = winner_file(tuning, None)
    write_winner(tuning, file, again)
    write_winner(tuning, winner_file(tuning, None), again)
    edited = file.read_text().replace("epochs = 2", "epochs = 3")
    file.write_text(edited)
    for attempt in (lambda: winner_file(tuning, None), lambda: write_winner(tuning, file, again)):
        with pytest.raises(ConfigError, match=r"(?s)was edited since.*tiny-tuned\.toml.*OUT=another-name"):
            attempt()
    assert file.read_text() == edited
    write_winner(tuning, winner_file(tuning, "other"), again)
    assert read_recipe(file.with_name("other.toml")).epochs == 2


def test_a_recipe_by_hand_is_not_written_over_and_a_name_must_be_one(house):
    tuning = house.open()
    house.recipe_file.with_name("mine.toml").write_text(RECIPE)
    with pytest.raises(ConfigError, match="a search did not write"):
        winner_file(tuning, "mine")
    for name in ("tiny", "competition"):
        with pytest.raises(ConfigError, match="cannot be written over that"):
            winner_file(tuning, name)
    for name in ("a/b", "x.s1"):
        with pytest.raises(ConfigError, match="cannot be the name of a recipe"):
            winner_file(tuning, name)


def test_the_signature_is_over_all_that_follows(found):
    tuning, again = found
    file = winner_file(tuning, None)
    write_winner(tuning, file, again)
    first, rest = file.read_bytes().split(b"\n", 1)
    assert first.decode().endswith(hashlib.sha256(rest).hexdigest())


def test_the_second_look_is_told_as_it_is(house):
    tuning = house.open()
    again = {"rows": 400, "found": 0.9, "own": 0.91, "difference": -0.01, "error": 0.01}
    assert "it has 0.9000 against 0.9100, -0.0100 ± 0.0100: no difference beyond noise." in again_sentence(
        tuning, again
    )
    assert verdict(again | {"error": 0.001}) == "it is worse"
    assert verdict(again | {"error": None}) == "not better there"
    assert verdict(again | {"error": None, "difference": 0.1}) == "better there too"
    assert again_sentence(tuning, again | {"own": None, "difference": None}).endswith("0.9000 against no score.")
    assert again_sentence(tuning, None) == "It is the recipe as it was."
