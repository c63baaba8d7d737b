"""Trials side by side: each drawn here, judged in a process of its own, and written down as it ends."""

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from podium.config.keys import Recipe
from podium.errors import ConfigError, TrainingError
from podium.metrics import log_loss
from podium.training.faults import naming
from podium.tune import history
from podium.tune.inner import JUDGED_AGAIN
from podium.tune.task import COMPLETE, FAILED, PRUNED, STOPPED, Judged, Place, Task, begin_process
from podium.tune.trial import judge
from podium.tune.tuning import Tuning, own_values, suggest

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search begins no more trials: `trials` of its study in all, or `minutes` from now."""

    trials: int | None = None
    minutes: float | None = None


class Onlooker:
    """Sees how a search goes; does nothing with it. The command line's prints, a test's remembers."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def finished(self, tuning: Tuning, trial: FrozenTrial) -> None:
        """A trial came to its end."""

    def look(self, tuning: Tuning) -> None:
        """Some time has passed."""


@contextmanager
def processes(place: Place, count: int) -> Iterator[Executor]:
    """So many processes that judge; what they are at is stopped when the block is left."""
    context = multiprocessing.get_context("spawn")  # a parent that has started torch's threads cannot be forked safely
    stop = context.Event()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=begin_process, initargs=(place, stop))
    try:
        yield pool
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def run_trials(tuning: Tuning, budget: Budget, *, pool: Executor, onlooker: Onlooker) -> None:
    """Go on until the budget is used up, the recipe's own values first; raises what no values could fix."""
    study, running = tuning.study, {}
    ends = time.monotonic() + 60 * budget.minutes if budget.minutes else None
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    if tuning.own is None and not waiting:
        study.enqueue_trial(own_values(tuning), user_attrs={history.OWN: True})

    def wanted() -> bool:
        if ends is not None:
            return time.monotonic() < ends
        return len(history.finished(study)) + len(running) < budget.trials

    try:
        with naming(tuning.recipe_name, tuning.recipe_file), _killed_told():
            while True:
                while len(running) < tuning.workers and wanted():
                    trial = study.ask()
                    if future := _begun(tuning, trial, pool):
                        running[future] = trial.number
                if not running:
                    return
                done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in sorted(done, key=running.__getitem__):
                    _end(tuning, running[future], future.result())
                    onlooker.finished(tuning, study.trials[running.pop(future)])
                onlooker.look(tuning)
    finally:
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            history.stop(study, trial.number)


def judge_again(tuning: Tuning, *, pool: Executor, onlooker: Onlooker) -> dict[str, Any] | None:
    """How the best trial and the recipe's own values do on other inner rows, with other seeds; None if they are one.

    Gives the number of the trial, both scores, the difference (found - own, more is better) and its standard error
    where the metric is a mean over rows, and the number of rows. Looked at once, then remembered.
    """
    best, own = tuning.best, tuning.own
    if best is None or (own is not None and best.number == own.number):
        return None
    if again := history.remembered(tuning.study, best.number):
        return again
    recipes = (tuning.recipe_with(tuning.values(best)), tuning.recipe)
    fits = len(recipes) * len(JUDGED_AGAIN)
    onlooker.note(f"once more, on other inner rows: trial {best.number} and the recipe as it is, {fits} trainings")
    futures = [[pool.submit(judge, _task(tuning, one, part)) for part in JUDGED_AGAIN] for one in recipes]
    with naming(tuning.recipe_name, tuning.recipe_file), _killed_told():
        parts = [[future.result().probabilities for future in one] for one in futures]
    labels = np.concatenate([_labels(tuning, part) for part in JUDGED_AGAIN])
    again = {"number": best.number, "rows": len(labels)} | _compared(tuning, parts, labels)
    tuning.study.set_user_attr(history.AGAIN, again)
    return again


def _compared(tuning: Tuning, parts: list[list[np.ndarray | None]], labels: np.ndarray) -> dict[str, float | None]:
    found, own = (None if any(one is None for one in some) else np.concatenate(some) for some in parts)
    metric, told = tuning.metric, {"found": None, "own": None, "difference": None, "error": None}
    for name, probabilities in (("found", found), ("own", own)):
        if probabilities is not None:
            told[name] = metric(probabilities, labels)
    if found is not None and own is not None:
        told["difference"] = metric.gain(told["found"]) - metric.gain(told["own"])
        if metric.rows is not None:
            gains = metric.rows(found, labels).astype(float) - metric.rows(own, labels).astype(float)
            told["error"] = float(gains.std(ddof=1) / len(gains) ** 0.5)
    return told


def _begun(tuning: Tuning, trial: optuna.Trial, pool: Executor) -> Future | None:
    """The trial on its way, unless its values do not go together."""
    suggest(trial, tuning.search)
    frozen = tuning.study.trials[trial.number]
    try:
        recipe = tuning.recipe_with(tuning.values(frozen))
    except ConfigError as error:
        _end(tuning, trial.number, Judged(FAILED, reason="; ".join(error.faults)))
        return None
    may_be_pruned = history.OWN not in frozen.user_attrs and _is_as_long(recipe, tuning.recipe)
    return pool.submit(judge, _task(tuning, recipe, 0, trial_id=trial._trial_id, may_be_pruned=may_be_pruned))


def _is_as_long(one: Recipe, other: Recipe) -> bool:
    """Whether an epoch of one can be held against the same epoch of the other: a longer training is behind at first."""
    return (one.freeze_epochs, one.epochs) == (other.freeze_epochs, other.epochs)


def _task(tuning: Tuning, recipe: Recipe, part: int, **keys: Any) -> Task:
    training, judged = tuning.split.training_and_judged(part)
    return Task(recipe=recipe, part=part, training_rows=training, judged_rows=judged, **keys)


def _labels(tuning: Tuning, part: int) -> np.ndarray:
    return tuning.place.lock.train_labels[tuning.split.training_and_judged(part)[1]]


def _end(tuning: Tuning, number: int, judged: Judged) -> None:
    """Write down how a trial went."""
    study = tuning.study
    if judged.state == STOPPED:
        history.stop(study, number)
    elif judged.state == PRUNED:
        study.tell(number, state=TrialState.PRUNED)
    elif judged.state == COMPLETE:
        labels = _labels(tuning, 0)
        score = tuning.metric(judged.probabilities, labels)
        history.note(study, number, {history.SCORE: score, history.LOG_LOSS: log_loss(judged.probabilities, labels)})
        study.tell(number, tuning.metric.gain(score))
    else:
        history.note(study, number, {history.REASON: judged.reason})
        study.tell(number, state=TrialState.FAIL)


@contextmanager
def _killed_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise TrainingError(
            "A process of the search was killed.",
            found="most often: too little memory for so many trials side by side",
            fix="free memory, or raise `threads` in the recipe; then the same again: finished trials are kept",
        ) from None
