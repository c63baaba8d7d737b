"""Trials: the recipe's own values first, to the budget and no further, resumed, and compared once more."""

from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from podium.config.keys import Recipe
from podium.errors import ConfigError, DataError, TrainingError
from podium.tune import trials as trials_module
from podium.tune.history import OWN, REASON, finished, judged, own_trial, state_word
from podium.tune.inner import JUDGED_AGAIN
from podium.tune.task import FAILED, PRUNED, STOPPED, Judged
from podium.tune.trials import Budget, judge_again, run_trials
from podium.tune.tuning import Tuning, open_tuning
from tune_toys import RECIPE, SEARCH, Inline, Remembering


def go(tuning, **budget):
    onlooker = Remembering()
    run_trials(tuning, Budget(**budget), pool=Inline(), onlooker=onlooker)
    return onlooker


def test_only_trials_as_long_as_the_recipe_are_held_against_its_epochs():
    own = Recipe(architecture="vgg19", pretrained=True, epochs=3, freeze_epochs=1, learning_rate=0.1)
    assert trials_module._is_as_long(replace(own, batch_size=16), own)
    assert not trials_module._is_as_long(replace(own, freeze_epochs=2), own)
    assert not trials_module._is_as_long(replace(own, epochs=4), own)


def test_the_recipe_as_it_is_comes_first_and_the_best_is_better_by_the_competitions_metric(house, judged_by_rate):
    tuning = house.open()
    onlooker = go(tuning, trials=12)
    assert onlooker.numbers == list(range(12)) and onlooker.looks
    assert tuning.values(tuning.study.trials[0]) == {
        "learning_rate": 0.002,
        "augment.shift_pixels": 0,
        "progressive_pixels": [],
    }
    assert judged_by_rate[0].recipe == tuning.recipe and tuning.own.number == 0
    assert tuning.own.value == pytest.approx(0.5, abs=0.01)
    assert tuning.best.value == max(one.value for one in tuning.study.trials) > 0.6
    tried = [task.recipe for task in judged_by_rate]
    assert {one.progressive_pixels for one in tried} == {(), (8,)} and len({one.learning_rate for one in tried}) == 12
    assert all(one.learning_rate == float(f"{one.learning_rate:.4g}") for one in tried)


def test_no_trial_sees_a_validation_row(house, judged_by_rate):
    tuning = house.open()
    go(tuning, trials=12)
    judge_again(tuning, pool=Inline(), onlooker=Remembering())
    validation = set(np.flatnonzero(tuning.place.lock.folds == 0).tolist())
    assert len(validation) == 297 and {task.part for task in judged_by_rate} == {0, *JUDGED_AGAIN}
    for task in judged_by_rate:
        assert not validation & {*task.training_rows.tolist(), *task.judged_rows.tolist()}
        assert not set(task.training_rows.tolist()) & set(task.judged_rows.tolist())


def test_a_second_search_goes_on_to_the_total_and_draws_other_values(house, judged_by_rate):
    go(house.open(), trials=3)
    assert go(house.open(), trials=3).numbers == []
    tuning = house.open()
    assert not tuning.anew and go(tuning, trials=5).numbers == [3, 4]
    rates = [trial.params["learning_rate"] for trial in tuning.study.trials]
    assert len(set(rates)) == 5


def test_the_same_search_alone_finds_the_same_again(house, judged_by_rate):
    first = house.open()
    go(first, trials=4)
    drawn = [trial.params for trial in first.study.trials]
    first.place.journal.unlink()
    again = house.open()
    go(again, trials=4)
    assert [trial.params for trial in again.study.trials] == drawn


@pytest.mark.parametrize(
    "change",
    [
        ("epochs = 2", "epochs = 3"),
        ("high = 3 }", "high = 4 }"),
    ],
)
def test_another_recipe_or_other_ranges_begin_anew_and_the_old_trials_are_kept(house, judged_by_rate, change):
    tuning = house.open()
    assert not tuning.anew
    go(tuning, trials=2)
    house.recipe_file.write_text(house.recipe_file.read_text().replace(*change))
    tuning = house.open()
    assert tuning.anew and not tuning.study.trials
    go(tuning, trials=1)
    assert not house.open().anew
    house.recipe_file.write_text(RECIPE + SEARCH)
    assert len(house.open().study.trials) == 2


def test_what_the_file_says_besides_its_values_does_not_begin_anew(house, judged_by_rate):
    go(house.open(), trials=2)
    house.recipe_file.write_text("# A word.\n" + RECIPE.replace("[3, 4]", "[3, 5]") + SEARCH)
    assert len(house.open().study.trials) == 2


def test_minutes_bound_when_trials_begin(house, judged_by_rate, monkeypatch):
    seconds = iter([0.0, 1.0, 29.0, 31.0, 31.0, 31.0])
    monkeypatch.setattr(trials_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(Tuning, "workers", 1)
    assert len(go(house.open(), minutes=0.5).numbers) == 2


def test_a_failed_trial_is_not_the_end_and_a_stopped_one_counts_for_nothing(house, judged_by_rate, monkeypatch):
    answers = iter([Judged(FAILED, reason="Training diverged."), Judged(STOPPED), Judged(PRUNED)])
    right = trials_module.judge
    monkeypatch.setattr(trials_module, "judge", lambda task: next(answers, None) or right(task))
    tuning = house.open()
    go(tuning, trials=4)
    trials = tuning.study.trials
    assert [state_word(one) for one in trials] == ["failed", "stopped", "pruned", "judged", "judged"]
    assert trials[0].user_attrs == {OWN: True, REASON: "Training diverged."} and len(finished(tuning.study)) == 4
    again = judge_again(tuning, pool=Inline(), onlooker=Remembering())
    assert again["number"] == tuning.best.number and again["difference"] is not None


def test_of_equal_scores_the_smaller_log_loss_wins(house, monkeypatch):
    sure = iter([0.5, 0.9, 0.7])

    def judge(task):
        labels = house.open_lock.train_labels[task.judged_rows]
        share = next(sure)
        return Judged("complete", np.eye(10)[labels] * share + (1 - share) / 10)

    monkeypatch.setattr(trials_module, "judge", judge)
    tuning = house.open()
    house.open_lock = tuning.place.lock
    go(tuning, trials=3)
    assert [one.value for one in judged(tuning.study)] == [1.0, 1.0, 1.0]
    assert tuning.best.number == 1


def test_log_loss_is_minimised_where_it_is_the_metric(house, judged_by_rate):
    file = house.recipe_file.with_name("competition.toml")
    file.write_text('metric = "log_loss"\n' + file.read_text())
    tuning = house.open()
    go(tuning, trials=8)
    scores = [one.user_attrs["score"] for one in tuning.study.trials]
    assert tuning.best.user_attrs["score"] == min(scores) and tuning.best.value == -min(scores)
    again = judge_again(tuning, pool=Inline(), onlooker=Remembering())
    assert again["found"] < again["own"] and again["difference"] == pytest.approx(again["own"] - again["found"])


def test_the_winner_and_the_recipe_meet_again_on_other_rows_once(house, judged_by_rate):
    tuning = house.open()
    assert judge_again(tuning, pool=Inline(), onlooker=Remembering()) is None
    go(tuning, trials=1)
    assert judge_again(tuning, pool=Inline(), onlooker=Remembering()) is None, "the winner is the recipe itself"
    go(tuning, trials=12)
    judged_by_rate.clear()
    again = judge_again(tuning, pool=Inline(), onlooker=Remembering())
    assert [task.part for task in judged_by_rate] == [*JUDGED_AGAIN, *JUDGED_AGAIN]
    first = set(tuning.split.training_and_judged(0)[1].tolist())
    assert not any(first & set(task.judged_rows.tolist()) for task in judged_by_rate)
    assert again["rows"] == 400 and again["difference"] == pytest.approx(again["found"] - again["own"])
    # Paired: rows that only one has right, d = 1, and all others 0.
    share = again["difference"]
    assert again["error"] == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.01)
    judged_by_rate.clear()
    assert judge_again(house.open(), pool=Inline(), onlooker=Remembering()) == again and not judged_by_rate


def test_a_recipe_that_diverges_again_is_compared_with_nothing(house, judged_by_rate, monkeypatch):
    tuning = house.open()
    go(tuning, trials=12)
    right = trials_module.judge
    monkeypatch.setattr(
        trials_module,
        "judge",
        lambda task: Judged(FAILED, reason="x") if task.recipe == tuning.recipe else right(task),
    )
    again = judge_again(tuning, pool=Inline(), onlooker=Remembering())
    assert again["own"] is None and again["difference"] is None and again["found"] > 0.5


def test_values_that_do_not_go_together_are_a_failure_with_its_reason(house, judged_by_rate):
    text = RECIPE.replace("epochs = 2", 'epochs = 2\noptimiser = "muon"\nmuon_rate = 0.3')
    house.recipe_file.write_text(text + '[search]\noptimiser = ["muon", "sgd"]\nlearning_rate = [0.002, 0.02]\n')
    with pytest.raises(ConfigError, match=r"search\.optimiser: muon_rate without effect"):
        house.open()
    house.recipe_file.write_text(RECIPE + '[search]\noptimiser = ["adamw", "muon"]\nlearning_rate = [0.002, 0.02]\n')
    tuning = house.open()
    right, refused = tuning.recipe_with, []

    def strict(values):
        if values["optimiser"] == "muon":
            refused.append(values)
            raise ConfigError("no", faults=["a reason"])
        return right(values)

    object.__setattr__(tuning, "recipe_with", strict)
    go(tuning, trials=12)
    failed = [one for one in tuning.study.trials if state_word(one) == "failed"]
    assert len(failed) == len(refused) > 0 and failed[0].user_attrs[REASON] == "a reason"
    assert len(tuning.study.trials) == 12


def test_what_no_values_mend_ends_the_search_by_name_and_leaves_no_trial_running(house, monkeypatch):
    def judge(task):
        raise TrainingError("There is no such architecture.")

    monkeypatch.setattr(trials_module, "judge", judge)
    tuning = house.open()
    with pytest.raises(TrainingError, match=r"(?s)tiny: There is no such architecture.*tiny\.toml"):
        go(tuning, trials=3)
    assert {state_word(one) for one in tuning.study.trials} == {"stopped"} and tuning.own is None


def test_a_killed_process_is_told(house, monkeypatch):
    class Dying(Inline):
        def submit(self, *_):
            raise BrokenProcessPool

    with pytest.raises(TrainingError, match=r"(?s)A process of the search was killed.*free memory"):
        run_trials(house.open(), Budget(trials=1), pool=Dying(), onlooker=Remembering())


def test_trials_of_a_killed_search_are_stopped_and_its_own_values_tried_again(house, judged_by_rate, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    begun = trials_module._begun
    monkeypatch.setattr(trials_module, "_begun", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            go(house.open(), trials=1)
    monkeypatch.setattr(trials_module, "_begun", begun)
    house.open().study.ask()  # and one that nobody stopped
    tuning = house.open()
    assert {state_word(one) for one in tuning.study.trials} == {"stopped"} and tuning.best is None
    go(tuning, trials=1)
    own = own_trial(tuning.study)
    assert tuning.best.number == own.number == 3 and tuning.values(own)["learning_rate"] == 0.002


def test_one_command_tunes_a_recipe_at_a_time(house):
    tuning = house.open()
    assert tuning.workers >= 1
    with pytest.raises(ConfigError, match="Another command tunes tiny"):
        other = type(house)(house.project, type(house.stack)())
        other.open()


def test_a_damaged_history_is_told_with_its_file(house):
    journal = house.open().place.journal
    journal.write_text("no json\n{}\n")
    with pytest.raises(ConfigError, match=r"(?s)history of a search is damaged.*journal\.log.*rm "):
        house.open()


def test_the_recipe_is_named_or_the_nearest_one_is(house):
    for name, told in (("tny", "RECIPE=tiny"), ("", "Which recipe is to be tuned")):
        with pytest.raises(ConfigError, match=told), open_tuning(house.project, "digits", name):
            pass


def test_data_other_than_the_locks_are_refused(house):
    from podium.lock import read_lock, write_lock

    file = house.project.lock_file("digits")
    kept = file.read_bytes()
    write_lock(file, replace(read_lock(file), fingerprint="other"))
    with pytest.raises(DataError, match="not those that"):
        house.open()
    file.write_bytes(kept)


def test_a_gpu_has_one_trial_at_a_time_and_a_cpu_one_for_each_recipes_threads(house, monkeypatch):
    from podium.tune import tuning as tuning_module

    tuning = house.open()
    monkeypatch.setattr(tuning_module.os, "sched_getaffinity", lambda _: set(range(8)))
    assert tuning.workers == 8 and replace(tuning, recipe=replace(tuning.recipe, threads=3)).workers == 2
    assert replace(tuning, recipe=replace(tuning.recipe, threads=16)).workers == 1
    monkeypatch.setattr(tuning_module, "pick_device", lambda: SimpleNamespace(type="cuda"))
    assert tuning.workers == 1


def test_a_metric_that_is_no_mean_over_rows_has_no_standard_error(house, judged_by_rate):
    file = house.recipe_file.with_name("competition.toml")
    file.write_text('metric = "macro_f1"\n' + file.read_text())
    tuning = house.open()
    go(tuning, trials=12)
    again = judge_again(tuning, pool=Inline(), onlooker=Remembering())
    assert again["error"] is None and again["difference"] == pytest.approx(again["found"] - again["own"])
