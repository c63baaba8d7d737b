"""One trial, really trained: scores epochs, ends early where it is told to, and repeats."""

import threading

import numpy as np
import pytest

from podium.errors import DivergedError, TrainingError
from podium.training.faults import naming
from podium.training.progress import EpochReport
from podium.tune import task as shared
from podium.tune import trial as trial_module
from podium.tune.history import open_history
from podium.tune.task import COMPLETE, FAILED, PRUNED, STOPPED, Task, begin_process
from podium.tune.trial import judge
from podium.tune.tuning import suggest


@pytest.fixture
def task(house, monkeypatch):
    """What makes a task of some values on few rows."""
    monkeypatch.setattr(shared, "place", None, raising=False)
    monkeypatch.setattr(shared, "stop", None)
    tuning = house.open()
    begin_process(tuning.place, None)
    training, judged = tuning.split.training_and_judged(0)

    def make(*, trial_id=None, may_be_pruned=True, **values) -> Task:
        return Task(
            recipe=tuning.recipe_with(values),
            part=0,
            training_rows=training[:200],
            judged_rows=judged,
            trial_id=trial_id,
            may_be_pruned=may_be_pruned,
        )

    make.tuning = tuning
    return make


def test_a_trial_tells_its_epochs_and_repeats_bit_for_bit(task):
    trial = task.tuning.study.ask()
    suggest(trial, task.tuning.search)
    first, again = judge(task(trial_id=trial._trial_id)), judge(task())
    assert first.state == COMPLETE and first.probabilities.shape == (200, 10)
    assert np.array_equal(first.probabilities, again.probabilities)
    told = task.tuning.study.trials[trial.number].intermediate_values
    labels = task.tuning.place.lock.train_labels[task().judged_rows]
    accuracy = float((first.probabilities.argmax(axis=1) == labels).mean())
    assert list(told) == [1, 2] and told[2] == pytest.approx(accuracy, abs=1e-5)


def test_a_trial_below_the_median_is_pruned_unless_it_is_the_recipe_itself(task):
    study, search = task.tuning.study, task.tuning.search

    def drawn():
        trial = study.ask()
        suggest(trial, search)
        return trial

    for _ in range(5):
        before = drawn()
        before.report(1.0, 1)
        before.report(1.0, 2)
        study.tell(before.number, 1.0)
    long = {"epochs": 3}
    assert judge(task(trial_id=drawn()._trial_id, may_be_pruned=False, **long)).state == COMPLETE
    assert judge(task(trial_id=drawn()._trial_id, **long)).state == PRUNED
    assert judge(task(trial_id=drawn()._trial_id)).state == COMPLETE, "its second epoch is its last"


def test_a_diverged_trial_is_a_failure_with_its_reason(task):
    found = judge(task(optimiser="sgd", schedule="constant", learning_rate=1e30, batch_size=50))
    assert found.state == FAILED and "Training diverged." in found.reason and found.probabilities is None


def test_too_little_memory_is_a_failure_of_the_trial(task, monkeypatch):
    def full(*_, **__):
        raise trial_module.torch.OutOfMemoryError

    monkeypatch.setattr(trial_module, "fit_network", full)
    assert judge(task()).reason == "The device's memory is too small."


def test_a_trial_stops_where_the_search_was_stopped(task):
    stop = threading.Event()
    stop.set()
    begin_process(task.tuning.place, stop)
    assert judge(task()).state == STOPPED


def test_a_recipe_that_no_values_mend_raises(task):
    with pytest.raises(TrainingError, match="There is no such architecture"):
        judge(task(architecture="resnet43"))


def test_a_trial_whose_searcher_is_gone_ends_its_process(monkeypatch):
    reporter, ended = trial_module._Reporter(None, None, pruned_until=9), []
    reporter.step(0.5, 1.0)
    reporter.epoch(EpochReport("train", 1, 2, 0.1, 0.5, 1.0, 1.0, 1.0))
    monkeypatch.setattr(trial_module.os, "getppid", lambda: 1)
    monkeypatch.setattr(trial_module.os, "_exit", ended.append)
    reporter.step(0.5, 1.0)
    assert ended == [1] and reporter.epochs == 1


def test_a_diverged_run_is_still_told_apart_once_it_has_its_name(tmp_path):
    with pytest.raises(DivergedError, match="tiny: Training diverged"), naming("tiny", tmp_path):
        raise DivergedError("Training diverged.", found="nan")


def test_a_history_begins_where_there_is_none_and_says_where_it_begins_anew(tmp_path):
    study, anew = open_history(tmp_path / "new" / "journal.log", "a", seed=1)
    assert study.trials == [] and not anew
    assert open_history(tmp_path / "new" / "journal.log", "b", seed=1)[1]
