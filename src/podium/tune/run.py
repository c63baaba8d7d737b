"""A search: trials in worker processes, a comparison of the best one with the recipe, and the files."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from functools import partial

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from podium.errors import TrainingError
from podium.metrics import Metric
from podium.processes import worker_pool
from podium.tune.inner import COMPARISON_PARTS
from podium.tune.report import first_lines, summary, trial_line, winner_file, write_report, write_winner
from podium.tune.study import Tuning, open_tuning
from podium.tune.trial import FAILURES, parallel_trials, run_trial, train_inner
from podium.workspace import Workspace

Log = Callable[[str], None]  # worker processes receive it, so it must be picklable


def tune(
    workspace: Workspace,
    recipe_name: str,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    out: str | None = None,
    log: Log,
) -> None:
    """Search better values of a recipe's keys and write the best as a recipe, `out` or `<recipe>-tuned`.

    No new trial starts after `trials` trials, earlier ones included, or after `minutes` minutes.
    """
    with open_tuning(workspace, recipe_name) as tuning:
        file, parallel = winner_file(tuning, out), parallel_trials(tuning.run.recipe)
        for line in first_lines(tuning, trials, minutes, parallel):
            log(line)
        try:
            with trial_workers(tuning, parallel) as pool:
                run_trials(tuning, trials, minutes, pool=pool, parallel=parallel, log=log)
                comparison = compare_with_recipe(tuning, pool=pool, log=log)
        finally:
            tuning.fail_running_trials()
            write_report(tuning)
        if tuning.best is None:
            log("no trial has a score")
        else:
            log(f"\n{summary(tuning, comparison or 'It is the recipe as it is.')}")
        if comparison:
            write_winner(tuning, file, comparison)
            option = f"COMPETITION={workspace.name}"
            log(f"wrote {file}, a recipe like any other: `make all` trains its runs")
            log(f"next: make {file.stem} {option}, then make ensemble {option}; or rm {file}")
        log(f"see {tuning.folder}: trials.csv and plots")


@contextmanager
def trial_workers(tuning: Tuning, count: int) -> Iterator[Executor]:
    """Worker processes; their trainings are stopped when the block is left."""
    killed = TrainingError(
        "A worker process was killed.",
        found="the usual cause is too little memory for parallel trials",
        fix="free memory, or raise `threads` in the recipe; then repeat the command, which keeps finished trials",
    )
    with worker_pool(count, killed=killed) as pool:
        try:
            yield pool
        finally:
            # Not terminate(): a process that is killed while it writes the journal leaves the journal locked.
            tuning.stop_file.touch()


def run_trials(
    tuning: Tuning, trials: int | None, minutes: float | None, *, pool: Executor, parallel: int, log: Log
) -> None:
    """Run trials in `parallel` workers, the recipe's own values first; raises errors that other values cannot fix."""
    tuning.enqueue_own_values()
    workers = parallel if trials is None else min(parallel, trials - len(tuning.finished))
    work = partial(_work, tuning, trials, minutes, reseed=workers > 1, log=log)
    for future in as_completed([pool.submit(work) for _ in range(workers)]):
        future.result()


def _work(tuning: Tuning, trials: int | None, minutes: float | None, *, reseed: bool, log: Log) -> None:
    """Run one trial after the other until the search has `trials`, or the `minutes` are over."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if reseed:
        tuning.study.sampler.reseed_rng()  # else all workers would draw the same values

    def has_all_trials() -> bool:
        running = tuning.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return trials is not None and len(tuning.finished) + len(running) >= trials

    def after_trial(study: optuna.Study, trial: FrozenTrial) -> None:
        log(trial_line(tuning, trial))
        if has_all_trials():
            study.stop()

    if has_all_trials():  # the other workers started earlier
        return
    timeout = None if minutes is None else 60 * minutes
    tuning.study.optimize(partial(run_trial, tuning), timeout=timeout, catch=FAILURES, callbacks=[after_trial])


def compare_with_recipe(tuning: Tuning, *, pool: Executor, log: Log) -> str | None:
    """Compare the best trial with the recipe's own values on other inner rows, with other seeds; returns a sentence.

    None where no trial is better than the recipe.
    """
    best, own = tuning.best, tuning.own
    if best is None or (own is not None and best.number == own.number):
        return None
    trainings = 2 * len(COMPARISON_PARTS)
    log(f"compares trial {best.number} with the recipe as it is: {trainings} trainings on other inner rows")
    futures = [
        [pool.submit(train_inner, tuning, recipe, part=part) for part in COMPARISON_PARTS]
        for recipe in (tuning.recipe_of(best), tuning.run.recipe)
    ]
    labels = np.concatenate([tuning.cell_labels(part) for part in COMPARISON_PARTS])
    try:
        tuned, untuned = (np.concatenate([future.result() for future in parts]) for parts in futures)
        return describe_gain(tuning.metric, tuned, untuned, labels)
    except FAILURES as error:
        return f"It could not be compared with the recipe on other inner rows: {error.what}"


def describe_gain(metric: Metric, tuned: np.ndarray, untuned: np.ndarray, labels: np.ndarray) -> str:
    """A sentence with the scores of two sets of probabilities (n, classes), and the gain of the first.

    The standard error is of the difference on the same rows; only a metric that is a mean over rows has one.
    """
    score, own_score = metric(tuned, labels), metric(untuned, labels)
    gain = metric.gain(score) - metric.gain(own_score)
    sentence = (
        "The best score of many trials is usually too good: on "
        f"{len(labels):,} other inner rows, with other seeds, it has {score:.4f} against {own_score:.4f}, {gain:+.4f}"
    )
    if metric.rows is None:
        return f"{sentence}."
    differences = metric.rows(tuned, labels).astype(float) - metric.rows(untuned, labels).astype(float)
    error = differences.std(ddof=1) / len(differences) ** 0.5
    verdict = "a difference beyond noise" if abs(gain) > 2 * error else "no difference beyond noise"
    return f"{sentence} ± {error:.4f}: {verdict}."
