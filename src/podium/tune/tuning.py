"""A search for better values of a recipe's keys: what it is made of, and what was found so far."""

import difflib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from podium.config.keys import Recipe, read_competition, recipe_files
from podium.config.search import Choices, Search, changed_recipe, default_search, read_search, value_of
from podium.errors import ConfigError
from podium.lock import read_lock
from podium.metrics import METRICS, Metric
from podium.plan.paths import Project
from podium.plan.runs import read_recipes
from podium.plan.stamp import file_sha256, run_stamp, weights_sha256
from podium.training.device import pick_device
from podium.training.rows import checked_dataset
from podium.tune.history import OWN, judged, open_history, own_trial
from podium.tune.inner import InnerSplit, inner_split
from podium.tune.task import Place


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search that is ready to go on."""

    competition_name: str
    recipe_name: str
    recipe_file: Path
    recipe: Recipe
    search: Search
    own_ranges: bool  # of the recipe's [search], not Podium's
    metric_name: str
    split: InnerSplit
    place: Place
    study: optuna.Study
    folder: Path
    anew: bool  # the folder has a search of other values, ranges or data

    @property
    def metric(self) -> Metric:
        """What trials are compared by."""
        return METRICS[self.metric_name]

    @property
    def workers(self) -> int:
        """Trials side by side: as many as have cores of their own; a GPU has one."""
        if pick_device().type != "cpu":
            return 1
        return max(1, len(os.sched_getaffinity(0)) // self.recipe.threads)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Key -> value of a trial, as the recipe has them; drawn numbers with four digits, for a file to be read."""
        exact = OWN in trial.user_attrs
        drawn = {name: one for name, one in self.search.items() if name in trial.params}
        return {name: _decoded(one, trial.params[name], exact=exact) for name, one in drawn.items()}

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial so far."""
        return next(iter(judged(self.study)), None)

    @property
    def own(self) -> FrozenTrial | None:
        """The trial of the recipe's own values, once it came to an end."""
        return own_trial(self.study)

    def recipe_with(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with the values of a trial."""
        return changed_recipe(self.recipe, values, self.recipe_file)


@contextmanager
def open_tuning(
    project: Project, competition_name: str, recipe_name: str, *, data: str | None = None
) -> Iterator[Tuning]:
    """Everything that a search needs, checked, with its earlier trials; one command at a time. Raises PodiumError."""
    home = project.competition_folder(competition_name)
    recipe = _named(read_recipes(home), recipe_name, competition_name)
    file = recipe_files(home)[recipe_name]
    competition, lock_file = read_competition(home), project.lock_file(competition_name)
    lock, search = read_lock(lock_file), read_search(file)
    split = inner_split(lock, competition.validation)
    checked_dataset(project, competition_name, recipe, lock=lock, data=data)
    ranges, seed = search or default_search(recipe), recipe.seeds[0]
    stamp = run_stamp(competition, recipe, seed, lock_sha256=file_sha256(lock_file))
    content = [stamp, weights_sha256(recipe, project.root), competition.metric, describe_ranges(ranges)]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    folder = project.outputs / "reports" / competition_name / "tune" / recipe_name
    with _alone(folder, recipe_name):
        study, anew = open_history(folder / "journal.log", name, seed=seed)
        yield Tuning(
            competition_name=competition_name,
            recipe_name=recipe_name,
            recipe_file=file,
            recipe=recipe,
            search=ranges,
            own_ranges=bool(search),
            metric_name=competition.metric,
            split=split,
            place=Place(
                project=project,
                competition_name=competition_name,
                data=data,
                lock=lock,
                seed=seed,
                journal=folder / "journal.log",
                study_name=name,
            ),
            study=study,
            folder=folder,
            anew=anew,
        )


def describe_ranges(search: Search) -> dict[str, Any]:
    """The ranges as a recipe's [search] has them."""
    return {name: list(one.values) if isinstance(one, Choices) else asdict(one) for name, one in search.items()}


def suggest(trial: optuna.Trial, search: Search) -> None:
    """Draw a value of each key."""
    for name, one in search.items():
        if isinstance(one, Choices):
            trial.suggest_categorical(name, [_encoded(value) for value in one.values])
        elif isinstance(one.low, int):
            trial.suggest_int(name, one.low, one.high, log=one.log)
        else:
            trial.suggest_float(name, one.low, one.high, log=one.log)


def own_values(tuning: Tuning) -> dict[str, Any]:
    """The recipe's own values, as a trial has them."""
    values = {name: value_of(tuning.recipe, name) for name in tuning.search}
    return {name: _encoded(one) if isinstance(tuning.search[name], Choices) else one for name, one in values.items()}


def _encoded(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list) else value  # Optuna stores scalars alone


def _decoded(range_or_choices: object, value: Any, *, exact: bool) -> Any:
    if not isinstance(range_or_choices, Choices):
        return value if exact or isinstance(value, int) else float(f"{value:.4g}")
    return next(one for one in range_or_choices.values if _encoded(one) == value)


def _named(recipes: Mapping[str, Recipe], name: str, competition_name: str) -> Recipe:
    if name in recipes:
        return recipes[name]
    nearest = difflib.get_close_matches(name, recipes, n=1) or list(recipes)
    raise ConfigError(
        f"There is no recipe '{name}' to tune." if name else "Which recipe is to be tuned?",
        expected=f"one of {', '.join(recipes)}",
        fix=f"make tune RECIPE={nearest[0]} COMPETITION={competition_name}",
    )


@contextmanager
def _alone(folder: Path, recipe_name: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"Another command tunes {recipe_name}.", file=folder, fix="wait for it; what it finds is kept"
            ) from None
        yield
