"""A search: the recipe's own values first, as many trials as were asked for, and a comparison at the end."""

import numpy as np
import optuna
import pytest

from podium.config.search import changed_recipe
from podium.errors import ConfigError, DivergedError, TrainingError
from podium.metrics import METRICS
from podium.tune import trial as trial_module
from podium.tune.inner import COMPARISON_PARTS
from podium.tune.report import write_report
from podium.tune.run import describe_gain
from podium.tune.study import OWN_VALUES, REASON, Tuning
from tune_toys import LOG_LOSS, compare, failing, search


def states_of(tuning):
    return [trial.state.name.lower() for trial in tuning.study.trials]


def test_the_recipe_comes_first_and_the_best_trial_is_better_by_the_competitions_metric(toy, trained):
    tuning = toy.open()
    lines = search(tuning, trials=12)
    assert [int(line.split()[1]) for line in lines] == list(range(12))
    assert lines[0] == (
        "trial   0  complete  0.5000  "
        "learning_rate 0.002, augment.shift_pixels 0, progressive_pixels []  the recipe as it is"
    )
    recipes = [run.recipe for run, _ in trained]
    assert recipes[0] == tuning.run.recipe and tuning.own.number == 0 and tuning.own.value == 0.5
    assert tuning.best.value == max(trial.value for trial in tuning.study.trials) > 0.6
    assert {recipe.progressive_pixels for recipe in recipes} == {(), (8,)}
    rates = [recipe.learning_rate for recipe in recipes]
    assert len(set(rates)) == 12 and all(rate == float(f"{rate:.4g}") for rate in rates)


def test_no_training_sees_a_validation_row_and_the_comparison_has_other_rows_and_seeds(toy, trained):
    tuning = toy.open()
    assert compare(tuning) == ""
    search(tuning, trials=1)
    assert compare(tuning) == "", "the best trial is the recipe itself"
    search(tuning, trials=12)
    sentence = compare(tuning)
    validation = np.flatnonzero(tuning.workspace.lock.folds == 0)
    folds = tuning.inner.folds
    assert len(validation) == 297 and set(folds[validation].tolist()) == {-1}
    *trials, _, _, _, _ = trained
    compared = trained[12:]
    assert all(scored.tolist() == np.flatnonzero(folds == 0).tolist() for _, scored in trials)
    parts = [np.flatnonzero(folds == part).tolist() for part in COMPARISON_PARTS]
    assert [scored.tolist() for _, scored in compared] == [*parts, *parts]
    seeds = [run.seed for run, _ in compared]
    assert seeds[:2] == seeds[2:] and len({tuning.run.seed, *seeds}) == 3
    assert "on 400 other inner rows" in sentence and sentence.endswith(": a difference beyond noise.")


def test_the_comparison_has_the_standard_error_of_the_paired_difference():
    labels = np.zeros(100, int)
    tuned, own = np.tile([0.8, 0.2], (100, 1)), np.tile([0.8, 0.2], (100, 1))
    own[:9] = [0.2, 0.8]
    # The difference is 1 in the 9 rows that only one has right, and 0 in all others.
    error = (0.09 * 0.91 / 99) ** 0.5
    better = describe_gain(METRICS["accuracy"], tuned, own, labels)
    assert better.endswith(f"1.0000 against 0.9100, +0.0900 ± {error:.4f}: a difference beyond noise.")
    assert ", -0.0900 ±" in describe_gain(METRICS["accuracy"], own, tuned, labels)
    own[3:9] = [0.8, 0.2]
    assert describe_gain(METRICS["accuracy"], tuned, own, labels).endswith(": no difference beyond noise.")
    assert ", +" in describe_gain(METRICS["log_loss"], tuned, own, labels), "less is better"
    assert "±" not in describe_gain(METRICS["macro_f1"], tuned, own, labels), "no mean over rows"


def test_a_recipe_that_diverges_in_the_comparison_is_reported(toy, trained, monkeypatch):
    tuning = toy.open()
    search(tuning, trials=12)
    monkeypatch.setattr(trial_module, "train_run", failing(DivergedError("Training diverged.")))
    assert compare(tuning) == "It could not be compared with the recipe on other inner rows: Training diverged."


def test_a_second_command_goes_on_to_the_total_with_other_values(toy, trained):
    search(toy.open(), trials=3)
    assert search(toy.open(), trials=3) == []
    tuning = toy.open()
    assert len(search(tuning, trials=5)) == 2
    assert len({trial.params["learning_rate"] for trial in tuning.study.trials}) == 5


def test_the_same_search_one_trial_at_a_time_draws_the_same_values_again(toy, trained):
    first = toy.open()
    search(first, trials=4)
    drawn = [trial.params for trial in first.study.trials]
    (first.folder / "journal.log").unlink()
    second = toy.open()
    search(second, trials=4)
    assert [trial.params for trial in second.study.trials] == drawn


def test_no_trial_starts_after_the_minutes(toy, trained):
    assert search(toy.open(), minutes=0) == []
    assert len(search(toy.open(), trials=2, minutes=60)) == 2


def test_trials_that_diverge_or_are_pruned_count_and_interrupted_ones_do_not(toy, trained, monkeypatch):
    errors = [DivergedError("Training diverged.", found="nan"), KeyboardInterrupt(), optuna.TrialPruned()]
    trainings = iter([failing(error) for error in errors])
    train = trial_module.train_run
    monkeypatch.setattr(trial_module, "train_run", lambda *a, **k: next(trainings, train)(*a, **k))
    tuning = toy.open()
    with pytest.raises(KeyboardInterrupt):
        search(tuning, trials=4)
    lines = search(tuning, trials=4)
    trials = tuning.study.trials
    assert states_of(tuning) == ["pruned", "fail", "pruned", "complete", "complete"] and len(lines) == 3
    assert trials[0].user_attrs == {OWN_VALUES: True, REASON: "Training diverged. nan"}
    assert [trial.number for trial in tuning.finished] == [0, 2, 3, 4]
    assert compare(tuning)


def test_of_equal_scores_the_first_wins(toy, trained, monkeypatch):
    tuning = toy.open()
    train = trial_module.train_run

    def train_run(workspace, run, **keys):
        predictions = train(workspace, run, **keys)
        predictions.oof_logits = np.eye(10)[workspace.lock.train_labels[workspace.lock.folds == 0]]
        return predictions

    monkeypatch.setattr(trial_module, "train_run", train_run)
    search(tuning, trials=3)
    assert [trial.value for trial in tuning.study.trials] == [1.0, 1.0, 1.0] and tuning.best.number == 0


def test_log_loss_is_minimised_where_it_is_the_metric(toy, trained):
    toy.settings_file.write_text(LOG_LOSS.format(toy.settings_file.read_text()))
    tuning = toy.open()
    search(tuning, trials=8)
    assert tuning.best.value == min(trial.value for trial in tuning.study.trials)


def test_a_trial_whose_values_contradict_each_other_is_pruned_with_the_reason(toy, trained, monkeypatch):
    def strict(tuning, trial):
        if tuning.values(trial)["progressive_pixels"] == [8]:
            raise ConfigError("no", faults=["a reason"])
        return changed_recipe(tuning.run.recipe, tuning.values(trial), tuning.recipe_file)

    monkeypatch.setattr(Tuning, "recipe_of", strict)
    tuning = toy.open()
    lines = search(tuning, trials=12)
    failed = [trial for trial in tuning.study.trials if REASON in trial.user_attrs]
    assert failed and failed[0].user_attrs[REASON] == "a reason" and len(tuning.study.trials) == 12
    assert len(trained) == 12 - len(failed) and lines[failed[0].number].endswith("  a reason")


def test_an_error_that_no_values_fix_ends_the_search_and_the_recipes_own_values_are_tried_again(
    toy, trained, monkeypatch
):
    tuning = toy.open()
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "train_run", failing(TrainingError("There is no such architecture.")))
        for _ in range(2):
            with pytest.raises(TrainingError, match="There is no such architecture"):
                search(tuning, trials=3)
    assert states_of(tuning) == ["fail", "fail"] and tuning.own is None
    search(tuning, trials=1)
    assert tuning.own.number == 2


def test_a_search_writes_its_trials_as_a_table_and_plots(toy, trained):
    tuning = toy.open()
    write_report(tuning)
    assert sorted(file.name for file in tuning.folder.glob("*.*v*")) == ["trials.csv"]
    search(tuning, trials=3)
    write_report(tuning)
    assert {file.name for file in tuning.folder.glob("*.svg")} == {"history.svg", "values.svg"}
    table = (tuning.folder / "trials.csv").read_text().splitlines()
    assert len(table) == 4 and "params_learning_rate" in table[0] and ",0.5," in table[1]
