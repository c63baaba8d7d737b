"""A search: trials, a comparison of the best one with the recipe, and the files."""

from collections.abc import Callable
from functools import partial

import numpy as np

from podium.metrics import Metric
from podium.tune.inner import COMPARISON_PARTS
from podium.tune.report import first_lines, summary, trial_line, winner_file, write_report, write_winner
from podium.tune.study import Tuning, open_tuning
from podium.tune.trial import FAILURES, run_trial, train_inner
from podium.workspace import Workspace

Log = Callable[[str], None]


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
        file = winner_file(tuning, out)
        for line in first_lines(tuning, trials, minutes):
            log(line)
        try:
            run_trials(tuning, trials, minutes, log=log)
            comparison = compare_with_recipe(tuning, log=log)
        finally:
            write_report(tuning)
        log(f"\n{summary(tuning, comparison)}" if tuning.best else "no trial has a score")
        if comparison:
            write_winner(tuning, file, comparison)
            option = f"COMPETITION={workspace.name}"
            log(f"wrote {file}, a recipe like any other: `make all` trains its runs")
            log(f"next: make {file.stem} {option}, then make ensemble {option}; or rm {file}")
        log(f"see {tuning.folder}: trials.csv and plots")


def run_trials(tuning: Tuning, trials: int | None, minutes: float | None, *, log: Log) -> None:
    """Run one trial after the other, the recipe's own values first; raises errors that other values cannot fix."""
    tuning.enqueue_own_values()
    tuning.study.optimize(
        partial(run_trial, tuning),
        n_trials=None if trials is None else max(0, trials - len(tuning.finished)),
        timeout=None if minutes is None else 60 * minutes,
        callbacks=[lambda _, trial: log(trial_line(tuning, trial))],
    )


def compare_with_recipe(tuning: Tuning, *, log: Log) -> str:
    """Compare the best trial with the recipe's own values on other inner rows, with other seeds; returns a sentence.

    It is empty where no trial is better than the recipe.
    """
    best, own = tuning.best, tuning.own
    if best is None or (own is not None and best.number == own.number):
        return ""
    trainings = 2 * len(COMPARISON_PARTS)
    log(f"compares trial {best.number} with the recipe as it is: {trainings} trainings on other inner rows")
    try:
        tuned, untuned = (
            np.concatenate([train_inner(tuning, recipe, part=part) for part in COMPARISON_PARTS])
            for recipe in (tuning.recipe_of(best), tuning.run.recipe)
        )
    except FAILURES as error:
        return f"It could not be compared with the recipe on other inner rows: {error.what}"
    labels = np.concatenate([tuning.cell_labels(part) for part in COMPARISON_PARTS])
    return describe_gain(tuning.metric, tuned, untuned, labels)


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
