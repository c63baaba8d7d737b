"""One search: its settings, and its trials as an Optuna study in a journal file that worker processes share."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from podium.config.keys import Recipe
from podium.config.search import Choices, Range, Search, changed_recipe, default_search, read_search, value_of
from podium.errors import ConfigError
from podium.files import file_lock
from podium.metrics import METRICS, Metric
from podium.plan.runs import PlannedRun, named_run
from podium.plan.stamp import weights_sha256
from podium.seeding import stream_seed
from podium.tune.inner import InnerSplit, inner_split
from podium.tune.worker import Context
from podium.workspace import Workspace

# Attributes that Podium adds to trials.
OWN_VALUES, REASON, SCORE, LOG_LOSS = "own values", "reason", "score", "log loss"
STOPPED = "stopped"  # the reason of a trial that was interrupted
FINISHED = ("complete", "pruned", "failed")
RANDOM_TRIALS, UNPRUNED_TRIALS = 8, 4
# Not Hyperband, whose brackets learn separately and need more than tens of trials. A one-cycle schedule says nothing
# before the second epoch.
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=2)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """An open search. `run` has the recipe's own values and its first seed."""

    workspace: Workspace
    run: PlannedRun
    search: Search
    has_own_ranges: bool  # `search` is the recipe's [search] table, not Podium's default
    split: InnerSplit
    study: optuna.Study
    is_new: bool  # the journal has trials of another recipe, ranges or data only
    folder: Path  # reports/<competition>/tune/<recipe>

    @property
    def recipe_file(self) -> Path:
        """The file of the recipe."""
        return self.workspace.paths.recipe_file(self.run.recipe_name)

    @property
    def metric_name(self) -> str:
        """The competition's metric, by which trials are compared."""
        return self.workspace.competition.metric

    @property
    def metric(self) -> Metric:
        """The competition's metric."""
        return METRICS[self.metric_name]

    @property
    def context(self) -> Context:
        """What worker processes need."""
        return Context(
            workspace=self.workspace,
            split=self.split,
            journal=_journal(self.folder),
            study_name=self.study.study_name,
        )

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are complete, pruned or failed; interrupted ones do not count."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if state_of(trial) in FINISHED]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the best score; of equal scores, the one with the smallest log loss."""
        complete = [trial for trial in self.finished if trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (-trial.value, trial.user_attrs[LOG_LOSS], trial.number), default=None)

    @property
    def own(self) -> FrozenTrial | None:
        """The finished trial of the recipe's own values."""
        return next((trial for trial in self.finished if OWN_VALUES in trial.user_attrs), None)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Key -> value of a trial, as in the recipe's file; drawn numbers are rounded to four digits."""
        is_own = OWN_VALUES in trial.user_attrs
        return {name: _decode(self.search[name], value, is_own) for name, value in trial.params.items()}

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with the values of a trial; raises ConfigError where they contradict each other."""
        return changed_recipe(self.run.recipe, values, self.recipe_file)


@contextmanager
def open_tuning(workspace: Workspace, recipe_name: str) -> Iterator[Tuning]:
    """Open a recipe's search with its earlier trials; a file lock admits one command at a time. Raises PodiumError."""
    run = named_run(workspace.runs, recipe_name, option="RECIPE")
    ranges = read_search(workspace.paths.recipe_file(recipe_name), run.recipe)
    search = ranges or default_search(run.recipe)
    described = {name: asdict(values) for name, values in search.items()}
    weights = weights_sha256(run.recipe, workspace.paths.root)
    content = json.dumps([run.stamp, weights, workspace.competition.metric, described])
    split = inner_split(workspace.lock, workspace.competition.validation)
    folder = workspace.paths.reports / "tune" / recipe_name
    with _exclusive(folder, recipe_name):
        study_name = hashlib.sha256(content.encode()).hexdigest()[:12]
        study, is_new = _open_study(_journal(folder), study_name, seed=run.seed)
        yield Tuning(
            workspace=workspace,
            run=run,
            search=search,
            has_own_ranges=bool(ranges),
            split=split,
            study=study,
            is_new=is_new,
            folder=folder,
        )


def load_study(journal: Path, name: str) -> optuna.Study:
    """A study as a worker process needs it: it reports and prunes, and draws nothing."""
    return optuna.load_study(storage=_storage(journal), study_name=name, pruner=PRUNER)


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """The ranges as Optuna's distributions."""
    return {name: _distribution(values) for name, values in search.items()}


def own_params(tuning: Tuning) -> dict[str, Any]:
    """The recipe's own values, as Optuna stores them."""
    return {name: _encode(value_of(tuning.run.recipe, name)) for name in tuning.search}


def stop_running_trials(study: optuna.Study) -> None:
    """Record that the running trials were interrupted."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        stop_trial(study, optuna.Trial(study, trial._trial_id))


def stop_trial(study: optuna.Study, trial: optuna.Trial) -> None:
    """Record that a trial was interrupted, so that it does not count."""
    trial.set_user_attr(REASON, STOPPED)
    study.tell(trial, state=TrialState.FAIL)


def state_of(trial: FrozenTrial) -> str:
    """complete, pruned, failed, stopped, running or waiting."""
    if trial.state == TrialState.FAIL:
        return STOPPED if trial.user_attrs.get(REASON) == STOPPED else "failed"
    return trial.state.name.lower()


def _open_study(journal: Path, name: str, *, seed: int) -> tuple[optuna.Study, bool]:
    """The study, and whether the journal has only other studies; raises ConfigError for a damaged journal."""
    try:
        storage = _storage(journal)
        others = set(optuna.get_all_study_names(storage)) - {name}
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
    study.sampler = TPESampler(seed=sampler_seed, n_startup_trials=RANDOM_TRIALS, constant_liar=True)
    stop_running_trials(study)  # trials of a search that was killed
    return study, bool(others) and not study.trials


def _journal(folder: Path) -> Path:
    return folder / "journal.log"


def _storage(journal: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return JournalStorage(JournalFileBackend(str(journal)))


def _distribution(values: Range | Choices) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution([_encode(value) for value in values.values])
    kind = IntDistribution if isinstance(values.low, int) else FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _encode(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value  # Optuna stores only scalars


def _decode(values: Range | Choices, value: Any, is_own: bool) -> Any:
    if isinstance(values, Choices):
        return next(choice for choice in values.values if _encode(choice) == value)
    return value if is_own or isinstance(value, int) else float(f"{value:.4g}")


@contextmanager
def _exclusive(folder: Path, recipe_name: str) -> Iterator[None]:
    try:
        with file_lock(folder / ".lock", wait=False):
            yield
    except BlockingIOError:
        raise ConfigError(
            f"Another command tunes {recipe_name}.", file=folder, fix="wait until it ends; its trials are kept"
        ) from None
