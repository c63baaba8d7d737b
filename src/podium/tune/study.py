"""One search: its settings, and its trials as an Optuna study in a journal file, which the next command continues."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from podium.config.keys import Recipe
from podium.config.search import Range, Search, changed_recipe, read_search, value_of
from podium.errors import ConfigError
from podium.files import file_lock
from podium.lock import Lock
from podium.metrics import METRICS, Metric
from podium.plan.runs import PlannedRun, find_run
from podium.plan.stamp import weights_sha256
from podium.seeding import stream_seed
from podium.tune.inner import inner_split
from podium.workspace import Workspace

# Attributes that Podium adds to trials: of the recipe's own values, and why a trial could not be trained.
OWN_VALUES, REASON = "own values", "reason"
RANDOM_TRIALS, UNPRUNED_TRIALS = 8, 4
SCRATCH = "scratch"  # in the folder of a search: files that trainings write, which the end of the search deletes


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """An open search; `run` has the recipe's own values and first seed."""

    workspace: Workspace
    run: PlannedRun
    search: Search
    inner: Lock  # its folds are parts of the rows of the search
    study: optuna.Study
    folder: Path  # reports/<competition>/tune/<recipe>

    @property
    def recipe_file(self) -> Path:
        """The file of the recipe."""
        return self.workspace.paths.recipe_file(self.run.recipe_name)

    @property
    def metric(self) -> Metric:
        """The competition's metric, by which trials are compared."""
        return self.inner.target.metrics[self.workspace.competition.metric]

    def cell_labels(self, part: int) -> np.ndarray:
        """The labels of the cells (see podium.targets) of a part of the inner rows."""
        return self.inner.target.cell_labels(self.inner.train_labels[self.inner.folds == part])

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are complete or pruned; interrupted ones do not count."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best score, the first of equal ones."""
        complete = [trial for trial in self.finished if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: self.metric.gain(trial.value), default=None)

    @property
    def own(self) -> FrozenTrial | None:
        """The finished trial of the recipe's own values."""
        return next((trial for trial in self.finished if OWN_VALUES in trial.user_attrs), None)

    def values(self, trial: FrozenTrial | Trial) -> dict[str, Any]:
        """Key -> value that a trial draws or has drawn, as in the recipe's file; numbers are rounded to four digits."""
        drawn = {name: _value(trial, name, values) for name, values in self.search.items()}
        is_own = OWN_VALUES in trial.user_attrs  # without rounding
        return {name: value_of(self.run.recipe, name) for name in drawn} if is_own else drawn

    def recipe_of(self, trial: FrozenTrial | Trial) -> Recipe:
        """The recipe with the values of a trial; raises ConfigError where they contradict each other."""
        return changed_recipe(self.run.recipe, self.values(trial), self.recipe_file)

    def enqueue_own_values(self) -> None:
        """Make the recipe's own values the next trial, unless they have or wait for a trial."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.own is None and not waiting:
            params = {name: _encoded(value_of(self.run.recipe, name)) for name in self.search}
            self.study.enqueue_trial(params, user_attrs={OWN_VALUES: True})


class _NoLock:
    """Stands in for Optuna's lock, because `open_tuning` holds one: a signal within Optuna's ends with a traceback."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def open_tuning(workspace: Workspace, recipe_name: str) -> Iterator[Tuning]:
    """Open a recipe's search with its earlier trials; a file lock admits one command at a time. Raises PodiumError."""
    run = find_run(workspace.trainable_runs, recipe_name, option="RECIPE")
    search = read_search(workspace.paths.recipe_file(recipe_name), run.recipe)
    inner = inner_split(workspace.lock, workspace.competition.validation)
    folder = workspace.paths.reports / "tune" / recipe_name
    fix = "wait until it ends; its trials are kept"
    refusal = ConfigError(f"Another command tunes {recipe_name}.", file=folder, fix=fix)
    with file_lock(folder / ".lock", refusal=refusal):
        study = _open_study(folder / "journal.log", workspace, run, search)
        tuning = Tuning(workspace=workspace, run=run, search=search, inner=inner, study=study, folder=folder)
        try:
            yield tuning
        finally:
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def _open_study(journal: Path, workspace: Workspace, run: PlannedRun, search: Search) -> optuna.Study:
    """The study in the journal whose scores are comparable, or a new one; raises ConfigError for a damaged journal."""
    metric = workspace.competition.metric
    direction = "maximize" if METRICS[metric].greater_is_better else "minimize"
    ranges = {name: asdict(values) if isinstance(values, Range) else values for name, values in search.items()}
    content = [run.stamp, weights_sha256(run.recipe, workspace.paths.root), metric, direction, ranges]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    # Not Hyperband, whose brackets learn separately and need more than tens of trials. A one-cycle schedule says
    # nothing before the second epoch.
    pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=2)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_NoLock()))
        study = optuna.create_study(
            storage=storage, study_name=name, direction=direction, pruner=pruner, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "The record of a search is damaged.",
            file=journal,
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix=f"rm {journal}, which begins a new search",
        ) from None
    # A resumed search needs another random stream: the same one would draw the same values again.
    sampler_seed = stream_seed(run.seed, f"tune after {len(study.trials)}") % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=RANDOM_TRIALS)
    return study


def _value(trial: FrozenTrial | Trial, name: str, values: Range | tuple) -> Any:
    if isinstance(values, tuple):
        choices = [_encoded(value) for value in values]
        return values[choices.index(trial.suggest_categorical(name, choices))]
    if isinstance(values.low, int):
        return trial.suggest_int(name, values.low, values.high, log=values.log)
    return float(f"{trial.suggest_float(name, values.low, values.high, log=values.log):.4g}")


def _encoded(value: Any) -> Any:
    """A value as Optuna stores it: it accepts only scalars."""
    return json.dumps(value) if isinstance(value, list) else value
