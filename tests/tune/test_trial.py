"""One trial, really trained: reports its epochs, ends early where it is told to, and repeats."""

import threading
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch

from podium.errors import DeviceMemoryError, DivergedError, TrainingError
from podium.training import run as training_run
from podium.training.progress import EpochReport
from podium.tune import trial as trial_module
from podium.tune import worker
from podium.tune.run import FAILURES, _run
from podium.tune.study import distributions
from podium.tune.trial import parallel_trials, run_trial
from podium.tune.worker import Stopped, Trial, start_worker


@pytest.fixture
def make_trial(toy, monkeypatch):
    """Makes a trial of some values."""
    monkeypatch.setattr(worker, "context", None, raising=False)
    monkeypatch.setattr(worker, "stop", None)
    tuning = toy.open()
    start_worker(tuning.context, None)

    def make(*, trial_id=None, may_be_pruned=True, **values) -> Trial:
        run = _run(tuning, tuning.recipe_with(values), 0)
        return Trial(run=run, part=0, trial_id=trial_id, may_be_pruned=may_be_pruned)

    make.tuning = tuning
    return make


def test_a_trial_reports_its_epochs_and_repeats_bit_for_bit(make_trial):
    study = make_trial.tuning.study
    optuna_trial = study.ask()
    first, second = run_trial(make_trial(trial_id=optuna_trial._trial_id)), run_trial(make_trial())
    assert first.shape == (200, 10) and np.array_equal(first, second)
    reported = study.trials[optuna_trial.number].intermediate_values
    accuracy = float((first.argmax(axis=1) == make_trial.tuning.split.labels(0)).mean())
    assert list(reported) == [1, 2] and reported[2] == pytest.approx(accuracy, abs=1e-5)
    assert not (make_trial.tuning.workspace.paths.outputs / "oof").exists()


def test_a_trial_below_the_median_is_pruned_unless_it_must_not_be(make_trial):
    study, ranges = make_trial.tuning.study, distributions(make_trial.tuning.search)
    for _ in range(5):
        good = study.ask(ranges)
        good.report(1.0, 1)
        good.report(1.0, 2)
        study.tell(good, 1.0)

    def run(**keys):
        return run_trial(make_trial(trial_id=study.ask(ranges)._trial_id, **keys))

    run(epochs=3, may_be_pruned=False)
    run(epochs=2)  # its second epoch is its last
    with pytest.raises(optuna.TrialPruned):
        run(epochs=3)


def test_diverged_training_and_full_memory_raise_errors_that_other_values_may_fix(make_trial, monkeypatch):
    with pytest.raises(DivergedError, match="Training diverged"):
        run_trial(make_trial(optimiser="sgd", schedule="constant", learning_rate=1e30, batch_size=50))

    def full(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(training_run, "fit_network", full)
    with pytest.raises(DeviceMemoryError):
        run_trial(make_trial())
    assert {DivergedError, DeviceMemoryError} < set(FAILURES)


def test_a_trial_stops_where_the_search_was_stopped(make_trial):
    stop = threading.Event()
    stop.set()
    start_worker(make_trial.tuning.context, stop)
    with pytest.raises(Stopped):
        run_trial(make_trial())


def test_a_recipe_that_no_values_fix_raises(make_trial):
    with pytest.raises(TrainingError, match="There is no such architecture"):
        run_trial(make_trial(architecture="resnet43"))


def test_a_worker_ends_once_the_main_process_is_gone(monkeypatch):
    reporter, statuses = trial_module._Reporter(None, None, last_pruned_epoch=9), []
    reporter.step(0.5, 1.0)
    reporter.epoch(EpochReport("train", 1, 2, 0.1, 0.5, 1.0, 1.0, 1.0))
    monkeypatch.setattr(trial_module.os, "getppid", lambda: 1)
    monkeypatch.setattr(trial_module.os, "_exit", statuses.append)
    reporter.step(0.5, 1.0)
    assert statuses == [1] and reporter.epochs == 1


def test_a_gpu_has_one_trial_at_a_time_and_a_cpu_one_for_each_recipes_threads(make_trial, monkeypatch):
    monkeypatch.setattr(trial_module.os, "sched_getaffinity", lambda _: set(range(8)))
    recipe = make_trial.tuning.run.recipe
    counts = [parallel_trials(replace(recipe, threads=threads)) for threads in (1, 3, 16)]
    assert counts == [8, 2, 1]
    monkeypatch.setattr(trial_module, "pick_device", lambda: torch.device("cuda"))
    assert parallel_trials(recipe) == 1
