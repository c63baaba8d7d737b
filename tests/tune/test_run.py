"""A search: the recipe's own values first, as many trials as the budget has, and a comparison at the end."""

from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from podium.config.search import changed_recipe
from podium.errors import ConfigError, DivergedError, TrainingError
from podium.tune import run as run_module
from podium.tune.inner import COMPARISON_PARTS
from podium.tune.run import worker_pool
from podium.tune.study import OWN_VALUES, REASON, SCORE, Tuning, state_of
from podium.tune.worker import Stopped
from tune_toys import RECIPE, SEARCH, compare, failing, search


def test_the_recipe_comes_first_and_the_best_trial_is_better_by_the_competitions_metric(toy, trained):
    tuning = toy.open()
    lines = search(tuning, trials=12)
    assert [int(line.split()[1]) for line in lines] == list(range(12))
    assert lines[0] == (
        "trial   0  complete  0.5000    "
        "learning_rate 0.002, augment.shift_pixels 0, progressive_pixels []  the recipe as it is"
    )
    recipes = [trial.run.recipe for trial in trained]
    assert recipes[0] == tuning.run.recipe and tuning.own.number == 0 and tuning.own.value == 0.5
    assert tuning.best.value == max(trial.value for trial in tuning.study.trials) > 0.6
    assert {recipe.progressive_pixels for recipe in recipes} == {(), (8,)}
    rates = [recipe.learning_rate for recipe in recipes]
    assert len(set(rates)) == 12 and all(rate == float(f"{rate:.4g}") for rate in rates)


def test_no_trial_sees_a_validation_row(toy, trained):
    tuning = toy.open()
    search(tuning, trials=12)
    compare(tuning)
    validation = np.flatnonzero(tuning.workspace.lock.folds == 0)
    assert len(validation) == 297 and not np.isin(validation, tuning.split.rows).any()
    assert {trial.part for trial in trained} == {0, *COMPARISON_PARTS}


def test_only_trials_as_long_as_the_recipe_may_be_pruned_and_never_the_recipe_itself(toy, trained):
    toy.recipe_file.write_text(RECIPE + "[search]\nepochs = [2, 3]\n")
    search(toy.open(), trials=12)
    assert {trial.run.recipe.epochs for trial in trained} == {2, 3}
    assert not trained[0].may_be_pruned
    assert all(trial.may_be_pruned == (trial.run.recipe.epochs == 2) for trial in trained[1:])


def test_a_second_command_goes_on_to_the_total_with_other_values(toy, trained):
    search(toy.open(), trials=3)
    assert search(toy.open(), trials=3) == []
    tuning = toy.open()
    assert not tuning.is_new and len(search(tuning, trials=5)) == 2
    assert len({trial.params["learning_rate"] for trial in tuning.study.trials}) == 5


def test_the_same_search_one_trial_at_a_time_draws_the_same_values_again(toy, trained):
    first = toy.open()
    search(first, trials=4)
    drawn = [trial.params for trial in first.study.trials]
    first.context.journal.unlink()
    second = toy.open()
    search(second, trials=4)
    assert [trial.params for trial in second.study.trials] == drawn


def test_no_trial_starts_after_the_minutes(toy, trained, monkeypatch):
    seconds = iter([0.0, 1.0, 29.0, 31.0, 31.0, 31.0])
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert len(search(toy.open(), minutes=0.5)) == 2


def test_failed_and_pruned_trials_count_and_stopped_ones_do_not(toy, trained, monkeypatch):
    errors = [DivergedError("Training diverged.", found="nan"), Stopped(), optuna.TrialPruned()]
    trainings = iter([failing(error) for error in errors])
    train = run_module.run_trial
    monkeypatch.setattr(run_module, "run_trial", lambda trial: next(trainings, train)(trial))
    tuning = toy.open()
    lines = search(tuning, trials=4)
    trials = tuning.study.trials
    assert [state_of(trial) for trial in trials] == ["failed", "stopped", "pruned", "complete", "complete"]
    assert trials[0].user_attrs == {OWN_VALUES: True, REASON: "Training diverged. nan"} and len(tuning.finished) == 4
    assert lines[0].endswith("the recipe as it is; Training diverged. nan")
    assert compare(tuning).trial == tuning.best.number


def test_of_equal_scores_the_smaller_log_loss_wins(toy, monkeypatch):
    tuning = toy.open()
    confidence = iter([0.5, 0.9, 0.7])

    def run_trial(trial):
        share = next(confidence)
        return np.eye(10)[tuning.split.labels(0)] * share + (1 - share) / 10

    monkeypatch.setattr(run_module, "run_trial", run_trial)
    search(tuning, trials=3)
    assert [trial.value for trial in tuning.study.trials] == [1.0, 1.0, 1.0] and tuning.best.number == 1


def test_log_loss_is_minimised_where_it_is_the_metric(toy, trained):
    toy.settings_file.write_text('metric = "log_loss"\n' + toy.settings_file.read_text())
    tuning = toy.open()
    search(tuning, trials=8)
    scores = [trial.user_attrs[SCORE] for trial in tuning.study.trials]
    assert tuning.best.user_attrs[SCORE] == min(scores) and tuning.best.value == -min(scores)
    comparison = compare(tuning)
    assert comparison.tuned < comparison.own
    assert comparison.gain == pytest.approx(comparison.own - comparison.tuned)


def test_best_trial_and_recipe_are_compared_once_on_other_rows_with_other_seeds(toy, trained):
    tuning = toy.open()
    assert compare(tuning) is None
    search(tuning, trials=1)
    assert compare(tuning) is None, "the best trial is the recipe itself"
    search(tuning, trials=12)
    trained.clear()
    comparison = compare(tuning)
    assert [trial.part for trial in trained] == [*COMPARISON_PARTS, *COMPARISON_PARTS]
    seeds = [trial.run.seed for trial in trained]
    assert seeds[:2] == seeds[2:] and len({tuning.run.seed, *seeds}) == 3
    first = tuning.split.scored_rows(0)
    assert not any(np.isin(first, tuning.split.scored_rows(part)).any() for part in COMPARISON_PARTS)
    assert comparison.rows == 400 and comparison.gain == pytest.approx(comparison.tuned - comparison.own)
    # Paired: the difference is 1 in the rows that only one has right, and 0 in all others.
    share = comparison.gain
    assert comparison.error == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.01)
    trained.clear()
    assert compare(toy.open()) == comparison and not trained


def test_a_recipe_that_diverges_in_the_comparison_has_no_score(toy, trained, monkeypatch):
    tuning = toy.open()
    search(tuning, trials=12)
    train, diverge = run_module.run_trial, failing(DivergedError("Training diverged."))
    monkeypatch.setattr(
        run_module,
        "run_trial",
        lambda trial: (diverge if trial.run.recipe == tuning.run.recipe else train)(trial),
    )
    comparison = compare(tuning)
    assert comparison.own is None and comparison.gain is None and comparison.tuned > 0.5


def test_a_metric_that_is_no_mean_over_rows_has_no_standard_error(toy, trained):
    toy.settings_file.write_text('metric = "macro_f1"\n' + toy.settings_file.read_text())
    tuning = toy.open()
    search(tuning, trials=12)
    comparison = compare(tuning)
    assert comparison.error is None and comparison.gain == pytest.approx(comparison.tuned - comparison.own)


def test_a_trial_whose_values_contradict_each_other_fails_with_the_reason(toy, trained, monkeypatch):
    def strict(tuning, values):
        if values["progressive_pixels"] == [8]:
            raise ConfigError("no", faults=["a reason"])
        return changed_recipe(tuning.run.recipe, values, tuning.recipe_file)

    monkeypatch.setattr(Tuning, "recipe_with", strict)
    tuning = toy.open()
    search(tuning, trials=12)
    failed = [trial for trial in tuning.study.trials if state_of(trial) == "failed"]
    assert failed and failed[0].user_attrs[REASON] == "a reason" and len(tuning.study.trials) == 12
    assert len(trained) == 12 - len(failed)


def test_an_error_that_no_values_fix_ends_the_search_and_leaves_no_trial_running(toy, monkeypatch):
    monkeypatch.setattr(run_module, "run_trial", failing(TrainingError("There is no such architecture.")))
    tuning = toy.open()
    with pytest.raises(TrainingError, match="There is no such architecture"):
        search(tuning, trials=3)
    assert {state_of(trial) for trial in tuning.study.trials} == {"stopped"} and tuning.own is None


def test_ctrl_c_stops_running_trials_and_the_recipes_own_values_are_tried_again(toy, trained, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_submit", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                search(toy.open(), trials=1)
    tuning = toy.open()
    assert {state_of(trial) for trial in tuning.study.trials} == {"stopped"}
    search(tuning, trials=1)
    assert tuning.own.number == 2


def test_a_killed_worker_is_reported(toy):
    with (
        pytest.raises(TrainingError, match=r"(?s)A worker process was killed.*free memory"),
        worker_pool(toy.open().context, 1),
    ):
        raise BrokenProcessPool


def test_a_search_writes_its_trials_as_a_table_and_plots(toy, trained):
    tuning = toy.open()
    run_module.write_report(tuning)
    assert sorted(file.name for file in tuning.folder.glob("*.*v*")) == ["trials.csv"]
    search(tuning, trials=10)
    run_module.write_report(tuning)
    assert {file.name for file in tuning.folder.glob("*.svg")} == {"history.svg", "values.svg", "importance.svg"}
    table = (tuning.folder / "trials.csv").read_text().splitlines()
    assert len(table) == 11 and "params_learning_rate" in table[0] and "user_attrs_score" in table[0]


def test_equal_scores_say_nothing_about_the_importance_of_keys(toy, trained):
    ranges = SEARCH.replace("learning_rate = { low = 0.0002, high = 0.2, log = true }", "")
    toy.recipe_file.write_text(RECIPE + ranges)
    tuning = toy.open()
    search(tuning, trials=9)
    run_module.write_report(tuning)
    assert not (tuning.folder / "importance.svg").exists() and (tuning.folder / "history.svg").exists()
