"""One trial, really trained: reports its epochs, ends early where its scores are low, and repeats."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch

from podium.errors import DeviceMemoryError, DivergedError, TrainingError
from podium.training import run as training_run
from podium.tune import trial as trial_module
from podium.tune.study import OWN_VALUES
from podium.tune.trial import FAILURES, _prunable_epochs, parallel_trials, run_trial, train_inner
from tune_toys import LOG_LOSS


@pytest.fixture
def tuning(toy):
    toy.recipe_file.write_text(toy.recipe_file.read_text().replace("progressive_pixels = [[], [8]]", ""))
    return toy.open()


def test_a_trial_reports_its_epochs_and_repeats_bit_for_bit(tuning):
    tuning.enqueue_own_values()
    accuracy = run_trial(tuning, tuning.study.ask())
    first, second = (train_inner(tuning, tuning.run.recipe, part=0) for _ in range(2))
    assert first.shape == (200, 10) and np.array_equal(first, second)
    assert accuracy == pytest.approx(
        float((first.argmax(axis=1) == tuning.inner.train_labels[tuning.inner.folds == 0]).mean())
    )
    reported = tuning.study.trials[0].intermediate_values
    assert list(reported) == [1, 2] and reported[2] == pytest.approx(accuracy, abs=1e-5)
    assert not (tuning.workspace.paths.outputs / "oof").exists() and not list(tuning.scratch.iterdir())


def test_the_gain_of_an_epoch_is_that_of_the_competitions_metric(toy):
    toy.settings_file.write_text(LOG_LOSS.format(toy.settings_file.read_text()))
    tuning = toy.open()
    trial = tuning.study.ask()
    logits, labels = np.log([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0])
    trial_module._Reporter(tuning, trial).validation(logits, labels)
    (gain,) = tuning.study.trials[0].intermediate_values.values()
    assert gain == pytest.approx((np.log(0.9) + np.log(0.4)) / 2), "minus the log loss: less is better"


def test_a_trial_below_the_median_is_pruned_before_its_last_epoch(tuning):
    for _ in range(5):
        good = tuning.study.ask()
        good.report(1.0, 1)
        good.report(1.0, 2)
        tuning.study.tell(good, 1.0)

    def train(recipe, prunable_epochs):
        listener = trial_module._Reporter(tuning, tuning.study.ask(), prunable_epochs=prunable_epochs)
        train_inner(tuning, recipe, part=0, listener=listener)

    recipe = replace(tuning.run.recipe, epochs=3)
    train(recipe, 0)
    with pytest.raises(optuna.TrialPruned):
        train(recipe, 2)


def test_only_trials_as_long_as_the_recipe_may_be_pruned_and_never_the_recipe_itself(tuning):
    recipe = tuning.run.recipe
    trial, own = SimpleNamespace(user_attrs={}), SimpleNamespace(user_attrs={OWN_VALUES: True})
    assert _prunable_epochs(tuning, trial, recipe) == 1, "the last epoch is never pruned"
    assert _prunable_epochs(tuning, trial, replace(recipe, epochs=3)) == 0
    assert _prunable_epochs(tuning, own, recipe) == 0


def test_diverged_training_and_full_memory_raise_errors_that_other_values_may_fix(tuning, monkeypatch):
    diverging = {"optimiser": "sgd", "schedule": "constant", "learning_rate": 1e30, "batch_size": 50}
    with pytest.raises(DivergedError, match="Training diverged"):
        train_inner(tuning, replace(tuning.run.recipe, **diverging), part=0)

    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training_run, "fit_network", full)
    with pytest.raises(DeviceMemoryError):
        train_inner(tuning, tuning.run.recipe, part=0)
    assert {DivergedError, DeviceMemoryError} < set(FAILURES)


def test_a_recipe_that_no_values_fix_raises(tuning):
    with pytest.raises(TrainingError, match="There is no such architecture"):
        train_inner(tuning, replace(tuning.run.recipe, architecture="resnet43"), part=0)


def test_a_trial_stops_where_the_search_was_stopped_and_leaves_no_file(tuning):
    tuning.stop_file.touch()
    with pytest.raises(KeyboardInterrupt):
        train_inner(tuning, tuning.run.recipe, part=0)
    assert list(tuning.scratch.iterdir()) == [tuning.stop_file]


def test_each_gpu_has_one_trial_at_a_time_and_a_cpu_one_for_each_recipes_threads(tuning, monkeypatch):
    monkeypatch.setattr(trial_module.os, "sched_getaffinity", lambda _: set(range(8)))
    recipe = tuning.run.recipe
    counts = [parallel_trials(replace(recipe, threads=threads)) for threads in (1, 3, 16)]
    assert counts == [8, 2, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, count in [("cuda", 2), ("cuda:1", 1)]:
        monkeypatch.setenv("PODIUM_DEVICE", device)
        assert parallel_trials(recipe) == count
