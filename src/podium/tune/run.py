"""A search: trials in worker processes, a comparison of the best one with the recipe, and the files."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np
import optuna
from optuna.trial import TrialState

from podium.config.keys import Recipe
from podium.errors import ConfigError, DeviceMemoryError, DivergedError, TrainingError
from podium.metrics import log_loss
from podium.plan.runs import PlannedRun
from podium.seeding import stream_seed
from podium.tune.inner import COMPARISON_PARTS
from podium.tune.report import write_report
from podium.tune.study import (
    LOG_LOSS,
    OWN_VALUES,
    REASON,
    SCORE,
    Tuning,
    distributions,
    open_tuning,
    own_params,
    stop_running_trials,
    stop_trial,
)
from podium.tune.text import Comparison, first_lines, last_lines, trial_line
from podium.tune.trial import parallel_trials, run_trial
from podium.tune.winner import winner_file, write_winner
from podium.tune.worker import Context, Stopped, Trial, start_worker
from podium.workspace import Workspace

COMPARISON = "comparison"  # the study's attribute
# Errors of a trial that other values may not have.
FAILURES = (DivergedError, DeviceMemoryError, ConfigError)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a search starts no more trials: `trials` of its study in all, or `minutes` from now."""

    trials: int | None = None
    minutes: float | None = None


def tune(
    workspace: Workspace, recipe_name: str, *, budget: Budget, out: str | None = None, log: Callable[[str], None]
) -> None:
    """Search better values of a recipe's keys and write the best as a recipe, `out` or `<recipe>-tuned`."""
    with open_tuning(workspace, recipe_name) as tuning:
        file, parallel = winner_file(tuning, out), parallel_trials(tuning.run.recipe)
        bound = f"{budget.trials} trials in all" if budget.trials else f"starts trials for {budget.minutes:g} minutes"
        for line in first_lines(tuning, bound, parallel):
            log(line)
        comparison = None
        try:
            with worker_pool(tuning.context, parallel) as pool:
                run_trials(tuning, budget, pool=pool, parallel=parallel, log=log)
                comparison = compare_with_recipe(tuning, pool=pool, log=log)
        finally:
            write_report(tuning)
        if comparison:
            write_winner(tuning, file, comparison)
        for line in last_lines(tuning, comparison, file):
            log(line)


@contextmanager
def worker_pool(context: Context, count: int) -> Iterator[Executor]:
    """Worker processes; their running trials are stopped when the block is left."""
    processes = multiprocessing.get_context("spawn")  # a process with torch's threads cannot be forked safely
    stop = processes.Event()
    pool = ProcessPoolExecutor(count, mp_context=processes, initializer=start_worker, initargs=(context, stop))
    try:
        yield pool
    except BrokenProcessPool:
        raise TrainingError(
            "A worker process was killed.",
            found="the usual cause is too little memory for parallel trials",
            fix="free memory, or raise `threads` in the recipe; then the same command: finished trials are kept",
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def run_trials(tuning: Tuning, budget: Budget, *, pool: Executor, parallel: int, log: Callable[[str], None]) -> None:
    """Run trials until the budget is used up, the recipe's own values first; raises what no values would fix."""
    study = tuning.study
    running: dict[Future, optuna.Trial] = {}
    deadline = time.monotonic() + 60 * budget.minutes if budget.minutes else None
    if tuning.own is None and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial(own_params(tuning), user_attrs={OWN_VALUES: True})

    def wants_more() -> bool:
        if deadline is not None:
            return time.monotonic() < deadline
        return len(tuning.finished) + len(running) < budget.trials

    try:
        while True:
            while len(running) < parallel and wants_more():
                trial = study.ask(distributions(tuning.search))
                running[_submit(tuning, trial, pool)] = trial
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda future: running[future].number):
                trial = running.pop(future)
                _record(tuning, trial, future)
                log(trial_line(tuning, study.trials[trial.number]))
    finally:
        stop_running_trials(study)


def compare_with_recipe(tuning: Tuning, *, pool: Executor, log: Callable[[str], None]) -> Comparison | None:
    """Scores of the best trial and of the recipe's own values on other inner rows, with other seeds.

    None where no trial is better than the recipe. The result is kept in the study, and computed once.
    """
    best, own = tuning.best, tuning.own
    if best is None or (own is not None and best.number == own.number):
        return None
    kept = tuning.study.user_attrs.get(COMPARISON)
    if kept and kept["trial"] == best.number:
        return Comparison(**kept)
    recipes = (tuning.recipe_with(tuning.values(best)), tuning.run.recipe)
    count = len(recipes) * len(COMPARISON_PARTS)
    log(f"compares trial {best.number} with the recipe as it is on other inner rows: {count} trainings")
    futures = [
        [pool.submit(run_trial, Trial(run=_run(tuning, recipe, part), part=part)) for part in COMPARISON_PARTS]
        for recipe in recipes
    ]
    comparison = _compare(tuning, best.number, *map(_probabilities, futures))
    tuning.study.set_user_attr(COMPARISON, asdict(comparison))
    return comparison


def _compare(tuning: Tuning, trial: int, tuned: np.ndarray | None, own: np.ndarray | None) -> Comparison:
    labels = np.concatenate([tuning.split.labels(part) for part in COMPARISON_PARTS])
    metric = tuning.metric
    scores = [None if probabilities is None else metric(probabilities, labels) for probabilities in (tuned, own)]
    comparison = Comparison(trial=trial, rows=len(labels), tuned=scores[0], own=scores[1])
    if tuned is None or own is None:
        return comparison
    comparison = replace(comparison, gain=metric.gain(scores[0]) - metric.gain(scores[1]))
    if metric.rows is None:
        return comparison
    differences = metric.rows(tuned, labels).astype(float) - metric.rows(own, labels).astype(float)
    return replace(comparison, error=float(differences.std(ddof=1) / len(differences) ** 0.5))


def _probabilities(parts: list[Future]) -> np.ndarray | None:
    """Probabilities of all parts, or None where a training failed."""
    try:
        return np.concatenate([part.result() for part in parts])
    except FAILURES:
        return None


def _submit(tuning: Tuning, trial: optuna.Trial, pool: Executor) -> Future:
    """Start a trial; one whose values contradict each other fails at once."""
    frozen = tuning.study.trials[trial.number]
    own = tuning.run.recipe
    try:
        recipe = tuning.recipe_with(tuning.values(frozen))
    except ConfigError as error:
        refused: Future = Future()
        refused.set_exception(error)
        return refused
    # A longer schedule is behind in its first epochs, so only equally long trials are compared epoch by epoch.
    same_length = (recipe.freeze_epochs, recipe.epochs) == (own.freeze_epochs, own.epochs)
    may_be_pruned = OWN_VALUES not in frozen.user_attrs and same_length
    run = _run(tuning, recipe, 0)
    return pool.submit(run_trial, Trial(run=run, part=0, trial_id=trial._trial_id, may_be_pruned=may_be_pruned))


def _run(tuning: Tuning, recipe: Recipe, part: int) -> PlannedRun:
    seed = tuning.run.seed if part == 0 else stream_seed(tuning.run.seed, f"tune part {part}") % 2**32
    return replace(tuning.run, recipe=replace(recipe, refit=False), seed=seed, stamp="")


def _record(tuning: Tuning, trial: optuna.Trial, future: Future) -> None:
    """Write the result of a trial into the study; raises an error that no values would fix."""
    try:
        probabilities = future.result()
    except optuna.TrialPruned:
        tuning.study.tell(trial, state=TrialState.PRUNED)
    except Stopped:
        stop_trial(tuning.study, trial)
    except FAILURES as error:
        trial.set_user_attr(REASON, "; ".join(error.faults) or f"{error.what} {error.found}")
        tuning.study.tell(trial, state=TrialState.FAIL)
    else:
        labels = tuning.split.labels(0)
        score = tuning.metric(probabilities, labels)
        trial.set_user_attr(SCORE, score)
        trial.set_user_attr(LOG_LOSS, log_loss(probabilities, labels))
        tuning.study.tell(trial, tuning.metric.gain(score))
