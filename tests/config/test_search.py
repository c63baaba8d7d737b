"""[search]: ranges of the recipe's own keys; a strict reader; no effect on recipe and stamp."""

from dataclasses import replace

import pytest
import tomlkit

from podium.config.competition import read_competition
from podium.config.keys import Recipe
from podium.config.recipe import read_recipe
from podium.config.search import (
    Range,
    changed_recipe,
    default_search,
    read_search,
    set_values,
    value_of,
)
from podium.errors import ConfigError
from podium.plan.stamp import run_stamp

RECIPE = 'architecture = "resnet34"\nepochs = 2\nlearning_rate = 0.01\n'


def write_recipe(folder, search: str, recipe: str = RECIPE):
    file = folder / "one.toml"
    file.write_text(f"{recipe}\n{search}")
    return file


def search_in(file):
    return read_search(file, read_recipe(file))


def test_ranges_and_lists_are_read_under_the_recipes_own_keys_nested_ones_included(tmp_path):
    text = """
[search]
learning_rate = { low = 1e-3, high = 1, log = true }
batch_size = [32, 64, 128]
augment.shift_pixels = { low = 0, high = 4 }
progressive_pixels = [[], [24]]
"""
    assert search_in(write_recipe(tmp_path, text)) == {
        "learning_rate": Range(low=0.001, high=1.0, log=True),
        "batch_size": (32, 64, 128),
        "augment.shift_pixels": Range(low=0, high=4),
        "progressive_pixels": ([], [24]),
    }
    file = write_recipe(tmp_path, "")
    assert search_in(file) == default_search(read_recipe(file))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat = [0.01, 1]", r"search\.learning_rat: unknown key; did you mean learning_rate\?"),
        ("augment.zom = [1, 2]", r"search\.augment\.zom: unknown key; did you mean augment\.zoom\?"),
        ("augment = [1, 2]", r"search\.augment: unknown key; did you mean augment\."),
        ("dropout = { low = 0, hihg = 0.5 }", r"search\.dropout: hihg: unknown key; did you mean high\?"),
        ("dropout = { low = 0 }", r"search\.dropout: high: missing"),
        ("dropout = { low = 0, high = 2 }", r"search\.dropout: dropout = 2.0: expected 0 to 0.99"),
        (
            "dropout = { low = 0.5, high = 0.1 }",
            r"search\.dropout: expected low < high, found \{'low': 0.5, 'high': 0.1\}",
        ),
        ("dropout = { low = 0, high = 0.5, log = true }", r"expected a low above 0 with log = true"),
        ('"dropout.x" = [1, 2]', r"search\.dropout\.x: unknown key"),
        ("dropout = 0.5", r"search\.dropout: expected \{ low = ..., high = ... \} or a list .*, found 0.5"),
        ("dropout = [0]", r"search\.dropout: .* a list of two or more values, each once, found \[0\]"),
        ("batch_size = { low = 0.5, high = 128 }", r"search\.batch_size: batch_size = 0.5: expected int"),
        ('batch_size = [128, "64"]', r"search\.batch_size: batch_size = '64': expected int"),
        ("batch_size = [128, 128]", r"each once"),
        ("batch_size = [32, 64]", r"search\.batch_size: expected to hold the recipe's own 128, which is tried first"),
        ("stem = { low = 1, high = 2 }", r"search\.stem: stem = 1: expected one of standard, small"),
        ("seeds = [[1], [2]]", r"search\.seeds: cannot be searched; every trial has the recipe's first seed"),
        (
            "freeze_epochs = { low = 0, high = 2 }",
            r"search\.freeze_epochs: freeze_epochs = 2: expected pretrained weights",
        ),
    ],
)
def test_wrong_ranges_are_refused_by_name(tmp_path, line, message):
    file = write_recipe(tmp_path, f"[search]\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        search_in(file)


def test_all_faults_are_reported_at_once_and_search_must_be_a_table(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)search\.droput.*search\.batch_size: .*found 3"):
        search_in(write_recipe(tmp_path, "[search]\ndroput = [0, 1]\nbatch_size = 3\n"))
    with pytest.raises(ConfigError, match=r"Not a table(?s:.*)search = 3"):
        search_in(write_recipe(tmp_path, "search = 3\n"))
    with pytest.raises(ConfigError, match=r"serach: unknown key; did you mean search\?"):
        read_recipe(write_recipe(tmp_path, "[serach]\n"))


def test_a_search_changes_neither_the_recipe_nor_its_stamp(tmp_path):
    (tmp_path / "competition.toml").write_text('title = "x"\n[data]\nsource = "folders"\n[validation]\nrows = 3\n')
    competition = read_competition(tmp_path)
    plain = read_recipe(write_recipe(tmp_path, ""))
    searched = read_recipe(write_recipe(tmp_path, "[search]\ndropout = { low = 0, high = 0.5 }\n"))
    assert searched == plain
    stamps = {run_stamp(competition, recipe, 1, lock_sha256="data") for recipe in (plain, searched)}
    assert len(stamps) == 1
    other = changed_recipe(plain, {"dropout": 0.5}, tmp_path)
    assert run_stamp(competition, other, 1, lock_sha256="data") not in stamps


def test_default_ranges_surround_the_recipes_own_values():
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.01, pretrained=True, dropout=0.6)
    assert default_search(recipe) == {
        "learning_rate": Range(low=0.002, high=0.05, log=True),
        "freeze_epochs": Range(low=0, high=2),
        "weight_decay": Range(low=0.001, high=0.1, log=True),
        "dropout": Range(low=0.0, high=0.6),
        "batch_size": (64, 128, 256),
    }
    for keys in (
        {},
        {"learning_rate": "find", "weight_decay": 0.0, "batch_size": 2},
        {"optimiser": "muon", "muon_rate": 0.3},
    ):
        recipe = Recipe(**({"architecture": "resnet34", "epochs": 1, "learning_rate": 0.01} | keys))
        search = default_search(recipe)
        for name, values in search.items():
            own = value_of(recipe, name)
            assert own in values if isinstance(values, tuple) else values.low <= own <= values.high
        assert ("learning_rate" in search) == (recipe.learning_rate != "find") and "freeze_epochs" not in search
        assert ("muon_rate" in search) == (recipe.optimiser == "muon")


def test_a_logistic_head_has_no_frozen_epochs_and_without_epochs_nothing_to_tune():
    recipe = Recipe(architecture="resnet34", pretrained=True, head="logistic", epochs=1, learning_rate=0.01)
    assert "freeze_epochs" not in default_search(recipe)
    with pytest.raises(ConfigError, match="nothing to tune"):
        default_search(replace(recipe, epochs=0))


def test_a_changed_recipe_is_checked_like_a_recipe_file(tmp_path):
    recipe = read_recipe(write_recipe(tmp_path, "[augment]\nzoom = 1.5\n"))
    changed = changed_recipe(recipe, {"augment.shift_pixels": 3, "batch_size": 128}, tmp_path)
    assert (changed.augment.shift_pixels, changed.augment.zoom) == (3, 1.5)
    assert recipe.augment.shift_pixels == 0
    with pytest.raises(ConfigError, match="batch_size = 1"):
        changed_recipe(recipe, {"batch_size": 1}, tmp_path)


def test_values_in_tables_are_changed_and_missing_tables_are_added():
    text = '# Mine\narchitecture = "resnet34"\n\nepochs = 3   # few\n[augment]\nflip = "horizontal"\n'
    document = tomlkit.parse(text)
    set_values(document, {"augment.flip": "none", "augment.zoom": 1.5, "fastnet.depth": 2, "epochs": 4, "seeds": [1]})
    text = tomlkit.dumps(document)
    assert tomlkit.parse(text).unwrap() == {
        "architecture": "resnet34",
        "epochs": 4,
        "seeds": [1],
        "augment": {"flip": "none", "zoom": 1.5},
        "fastnet": {"depth": 2},
    }
    assert "epochs = 4   # few" in text and text.startswith("# Mine\n")
