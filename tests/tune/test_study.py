"""A search's study: which files continue it, which begin a new one, and what is refused."""

import os
from contextlib import ExitStack

import pytest

from podium.errors import ConfigError
from podium.tune.study import open_tuning
from podium.workspace import open_workspace
from tune_toys import RECIPE, SEARCH, ToyProject, search


@pytest.mark.parametrize("change", [("epochs = 2", "epochs = 3"), ("high = 3 }", "high = 4 }")])
def test_another_recipe_or_other_ranges_begin_a_new_search_and_old_trials_are_kept(toy, trained, change):
    search(toy.open(), trials=2)
    toy.recipe_file.write_text(toy.recipe_file.read_text().replace(*change))
    tuning = toy.open()
    assert not tuning.study.trials
    search(tuning, trials=1)
    toy.recipe_file.write_text(RECIPE + SEARCH)
    assert len(toy.open().study.trials) == 2


def test_comments_and_further_seeds_do_not_begin_a_new_search(toy, trained):
    search(toy.open(), trials=2)
    toy.recipe_file.write_text("# A comment.\n" + RECIPE.replace("[3, 4]", "[3, 5]") + SEARCH)
    assert len(toy.open().study.trials) == 2


def test_trials_of_a_killed_search_do_not_count_and_its_files_are_deleted(toy, trained):
    tuning = toy.open()
    tuning.enqueue_own_values()
    tuning.study.ask()
    scratch = tuning.folder / "scratch"
    (scratch / "left").mkdir(parents=True)
    toy.stack.pop_all()  # the lock is released when the first search is collected
    del tuning
    tuning = toy.open()
    assert [trial.state.name for trial in tuning.study.trials] == ["RUNNING"]
    assert tuning.finished == [] and tuning.best is None
    search(tuning, trials=1)
    assert tuning.best.number == tuning.own.number == 1 and tuning.values(tuning.own)["learning_rate"] == 0.002
    toy.stack.close()
    assert not scratch.exists()


def test_wrong_ranges_stop_the_search_and_not_the_plan(toy):
    toy.recipe_file.write_text(RECIPE + "\n[search]\ndroput = [0, 0.5]\n")
    workspace = open_workspace("digits", toy.root)
    assert len(workspace.runs) == 2
    with pytest.raises(ConfigError, match="did you mean dropout"), open_tuning(workspace, "tiny"):
        pass


def test_one_command_tunes_a_recipe_at_a_time(toy):
    toy.open()
    with pytest.raises(ConfigError, match="Another command tunes tiny"):
        ToyProject(toy.root, ExitStack()).open()


def test_optunas_own_lock_in_which_a_signal_ends_with_a_traceback_is_not_used(toy, trained, monkeypatch):
    monkeypatch.setattr(os, "symlink", None)
    search(toy.open(), trials=1)


def test_a_damaged_journal_is_named(toy):
    journal = toy.open().folder / "journal.log"
    journal.write_text("no json\n{}\n")
    with pytest.raises(ConfigError, match=r"(?s)record of a search is damaged.*journal\.log.*rm "):
        toy.open()


@pytest.mark.parametrize(("name", "message"), [("tny", "no recipe 'tny'"), ("", "Which recipe"), ("tiny.s3", "no rec")])
def test_an_unknown_recipe_is_refused_with_the_nearest_name(toy, name, message):
    with pytest.raises(ConfigError, match=rf"(?s){message}.*RECIPE=tiny"), open_tuning(toy.workspace, name):
        pass


def test_recipes_without_ranges_have_default_ranges(toy):
    assert set(toy.open().search) == {"learning_rate", "augment.shift_pixels", "progressive_pixels"}
    toy.recipe_file.write_text(RECIPE)
    assert set(toy.open().search) >= {"learning_rate", "dropout", "batch_size"}
