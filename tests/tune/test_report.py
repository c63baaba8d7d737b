"""The tuned recipe: the recipe's text with other values, and never written over an existing file."""

import optuna
import pytest

from podium.config.recipe import read_recipe
from podium.errors import ConfigError
from podium.plan.runs import read_recipes
from podium.tune.report import winner_file, write_winner
from tune_toys import RECIPE, compare, search


def test_the_written_recipe_is_the_best_trials_and_says_how_it_was_found(toy, trained):
    tuning = toy.open()
    search(tuning, trials=12)
    sentence = compare(tuning)
    file = winner_file(tuning, None)
    assert file.name == "tiny-tuned.toml"
    write_winner(tuning, file, sentence)
    written, values = read_recipe(file), tuning.values(tuning.best)
    assert written == tuning.recipe_of(tuning.best) and written.learning_rate == values["learning_rate"]
    assert (written.augment.zoom, written.seeds) == (1.1, (3, 4)) and read_recipes(file.parent)[file.stem] == written
    text = file.read_text()
    assert "# A tiny network.\n" in text and "epochs = 2  # few\n" in text and "[search]" not in text
    assert "progressive_pixels = " in text and "shift_pixels = " in text  # searched values, defaults included
    comment = " ".join(line.removeprefix("# ") for line in text.split("\n\n")[0].splitlines())
    for part in (
        "Found by `make tune RECIPE=tiny COMPETITION=digits` on 20",
        f"Trial {tuning.best.number} is the best of 12 trials",
        "scored on 200 inner rows, trained on 800 others; no validation row is used",
        f"Its accuracy is {tuning.best.value:.4f} there; tiny as it is has 0.5000. {sentence}",
        "with podium",
        "torch",
    ):
        assert part in comment
    assert max(map(len, text.splitlines())) <= 120
    assert {run.run for run in toy.workspace.runs} == {"tiny.s3", "tiny.s4", "tiny-tuned.s3", "tiny-tuned.s4"}


def test_the_written_recipe_keeps_the_head_where_its_default_depends_on_a_searched_key(toy):
    text = RECIPE.replace("epochs = 2", "pretrained = true\nfreeze_epochs = 1\nepochs = 2")
    toy.recipe_file.write_text(f"{text}\n[search]\nfreeze_epochs = {{ low = 0, high = 1 }}\n")
    tuning = toy.open()
    distributions = {"freeze_epochs": optuna.distributions.IntDistribution(0, 1)}
    tuning.study.add_trial(optuna.create_trial(params={"freeze_epochs": 0}, distributions=distributions, value=1.0))
    file = winner_file(tuning, None)
    write_winner(tuning, file, "")
    assert read_recipe(file) == tuning.recipe_of(tuning.best)
    assert (read_recipe(file).head, read_recipe(file).freeze_epochs) == ("linear", 0)


def test_an_existing_file_is_not_replaced_and_names_are_checked(toy):
    tuning = toy.open()
    toy.recipe_file.with_name("mine.toml").write_text(RECIPE)
    with pytest.raises(ConfigError, match=r"(?s)cannot replace an existing.*mine\.toml.*OUT=another-name"):
        winner_file(tuning, "mine")
    with pytest.raises(ConfigError, match="cannot replace an existing file"):
        write_winner(tuning, toy.recipe_file.with_name("mine.toml"), "")
    for name in ("tiny", "competition"):
        with pytest.raises(ConfigError, match=r"fix: +OUT=another-name$"):
            winner_file(tuning, name)
    for name in ("a/b", "x.s1"):
        with pytest.raises(ConfigError, match="cannot be the name of a recipe"):
            winner_file(tuning, name)
