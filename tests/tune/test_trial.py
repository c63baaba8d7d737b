"""One trial, really trained: reports its epochs, ends early where its scores are low, and repeats."""

from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from podium.errors import DeviceMemoryError, DivergedError, TrainingError
from podium.training import run as training_run
from podium.tune import trial as trial_module
from podium.tune.study import OWN_VALUES
from podium.tune.trial import FAILURES, run_trial, train_inner
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
    assert not (tuning.workspace.paths.outputs / "oof").exists()


def test_the_score_of_an_epoch_is_that_of_the_competitions_metric(toy):
    toy.settings_file.write_text(LOG_LOSS.format(toy.settings_file.read_text()))
    tuning = toy.open()
    trial = tuning.study.ask()
    logits, labels = np.log([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0])
    trial_module._Reporter(tuning, trial, tuning.run.recipe).validation(logits, labels)
    (score,) = tuning.study.trials[0].intermediate_values.values()
    assert score == pytest.approx(-(np.log(0.9) + np.log(0.4)) / 2)
    assert tuning.study.direction.name == "MINIMIZE"


@pytest.fixture
def tuning_of_good_trials(tuning):
    """A search of trials whose score is 1 after each of two epochs."""
    for _ in range(5):
        good = tuning.study.ask()
        good.report(1.0, 1)
        good.report(1.0, 2)
        tuning.study.tell(good, 1.0)
    return tuning


@pytest.mark.parametrize(("epochs", "own", "pruned_after"), [(3, False, 2), (2, False, None), (3, True, None)])
def test_a_trial_below_the_median_is_pruned_before_its_last_epoch_and_the_recipe_itself_never(
    tuning_of_good_trials, epochs, own, pruned_after
):
    recipe = replace(tuning_of_good_trials.run.recipe, epochs=epochs)
    tuning = replace(tuning_of_good_trials, run=replace(tuning_of_good_trials.run, recipe=recipe))
    trial = tuning.study.ask()
    if own:
        trial.set_user_attr(OWN_VALUES, True)
    assert pruned_epoch(tuning, trial, recipe) == pruned_after


def test_a_trial_that_is_longer_than_the_recipe_is_not_pruned(tuning_of_good_trials):
    tuning = tuning_of_good_trials
    assert pruned_epoch(tuning, tuning.study.ask(), replace(tuning.run.recipe, epochs=3)) is None


def pruned_epoch(tuning, trial, recipe):
    """The epoch after which a trial without a correct row is pruned; None if it is not."""
    reporter = trial_module._Reporter(tuning, trial, recipe)
    for epoch in range(1, recipe.epochs + 1):
        try:
            reporter.validation(np.eye(10)[:2], np.array([5, 5]))
        except optuna.TrialPruned:
            return epoch
    return None


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
