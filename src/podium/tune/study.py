"""One search: its settings, and its trials as an Optuna study in a journal file that worker processes share."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from podium.metrics import Metric
from podium.plan.runs import PlannedRun, find_run
from podium.plan.stamp import weights_sha256
from podium.seeding import stream_seed
from podium.tune.inner import inner_split
from podium.workspace import Workspace

# Attributes that Podium adds to trials. A failed trial without a reason was interrupted.
# The log loss is, of numbers, another error of which less is better.
OWN_VALUES, REASON, SCORE, LOG_LOSS = "own values", "reason", "score", "log loss"
RANDOM_TRIALS, UNPRUNED_TRIALS = 8, 4
# Not Hyperband, whose brackets learn separately and need more than tens of trials. A one-cycle schedule says nothing
# before the second epoch.
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=2)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """An open search, which worker processes receive as a copy. `run` has the recipe's own values and first seed."""

    workspace: Workspace
    run: PlannedRun
    search: Search
    inner: Lock  # its folds are parts of the rows of the search
    study: optuna.Study
    folder: Path  # reports/<competition>/tune/<recipe>

    @property
    def scratch(self) -> Path:
        """Folder of the files that trainings write; it is deleted with the search."""
        return self.folder / "scratch"

    @property
    def stop_file(self) -> Path:
        """Worker processes stop once this file exists."""
        return self.scratch / "stop"

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
        """Trials that are complete or pruned, or failed for a reason; interrupted ones do not count."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state in states or REASON in trial.user_attrs]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best score; of equal scores, the one with the smallest log loss."""
        complete = [trial for trial in self.finished if trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (-trial.value, trial.user_attrs[LOG_LOSS], trial.number), default=None)

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
        """Make the recipe's own values the next trial, unless they have a trial."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.own is None and not waiting:
            params = {name: _encoded(value_of(self.run.recipe, name)) for name in self.search}
            self.study.enqueue_trial(params, user_attrs={OWN_VALUES: True})

    def fail_running_trials(self) -> None:
        """Record the trials of processes that were stopped as failed without a reason."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)


@contextmanager
def open_tuning(workspace: Workspace, recipe_name: str) -> Iterator[Tuning]:
    """Open a recipe's search with its earlier trials; a file lock admits one command at a time. Raises PodiumError."""
    run = find_run(workspace.trainable_runs, recipe_name, option="RECIPE")
    search = read_search(workspace.paths.recipe_file(recipe_name), run.recipe)
    inner = inner_split(workspace.lock, workspace.competition.validation)
    folder = workspace.paths.reports / "tune" / recipe_name
    fix = "wait until it ends; its trials are kept"
    refusal = ConfigError(f"Another command tunes {recipe_name}.", file=folder, fix=fix)
    with ExitStack() as stack:
        stack.enter_context(file_lock(folder / ".lock", refusal=refusal))
        study = _open_study(folder / "journal.log", _study_name(workspace, run, search), seed=run.seed)
        tuning = Tuning(workspace=workspace, run=run, search=search, inner=inner, study=study, folder=folder)
        tuning.fail_running_trials()
        shutil.rmtree(tuning.scratch, ignore_errors=True)  # a killed search left it
        tuning.scratch.mkdir()
        stack.callback(shutil.rmtree, tuning.scratch, ignore_errors=True)
        yield tuning


def _study_name(workspace: Workspace, run: PlannedRun, search: Search) -> str:
    """A hash of all that makes scores comparable: recipe, seed, data, weights, metric and ranges."""
    ranges = {name: asdict(values) if isinstance(values, Range) else values for name, values in search.items()}
    weights = weights_sha256(run.recipe, workspace.paths.root)
    content = json.dumps([run.stamp, weights, workspace.competition.metric, ranges])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _open_study(journal: Path, name: str, *, seed: int) -> optuna.Study:
    """The study `name` in the journal, which is created where it is missing; raises ConfigError where it is damaged."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        # With a relative path, Optuna would wait for ever for a lock that a killed process left.
        storage = JournalStorage(JournalFileBackend(str(journal.resolve())))
        study = optuna.create_study(
            storage=storage, study_name=name, direction="maximize", pruner=PRUNER, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            "The record of a search is damaged.",
            file=journal,
            found=f"{type(error).__name__}: {str(error)[:200]}",
            fix=f"rm {journal}, which begins a new search",
        ) from None
    # A resumed search needs another random stream: the same one would draw the same values again.
    sampler_seed = stream_seed(seed, f"tune after {len(study.trials)}") % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=sampler_seed, n_startup_trials=RANDOM_TRIALS, constant_liar=True)
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
