"""The runs of a competition, their names, and which of them are stale. Only the standard library is imported."""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from podium.config.competition import read_competition
from podium.config.keys import COMPETITION_FILE, Competition, Recipe
from podium.config.recipe import read_recipe
from podium.errors import ConfigError, TrainingError, examples, unknown_name
from podium.plan.paths import Paths, find_competition
from podium.plan.stamp import file_sha256, is_stale, lock_sha256, read_about, run_stamp, weights_sha256

# In a message, with all targets of the Makefile.
MOST_KNOWN = 60
# A name becomes a file name, a make target and an argument of a command line.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
CHARACTERS = "letters, digits, and _ . + - between them"
RUN_SUFFIX = re.compile(r".*\.s[0-9]+")
# Names that the Makefile uses for itself, beside its targets.
RESERVED = {"Makefile", "FORCE", "demo-all", "clean-code", "environment.mk"}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One recipe with one seed; `stale`: predictions are missing, or their recipe, seed, data or split was another."""

    run: str
    recipe_name: str
    recipe: Recipe
    seed: int
    stamp: str
    stale: bool
    about: dict[str, Any] | None = field(default=None, compare=False, repr=False)  # what `read_about` returns


@dataclass(frozen=True)
class Plan:
    """The settings of one competition, its recipes, and its runs; each file is read once, when it is first needed."""

    paths: Paths
    competition: Competition

    @property
    def name(self) -> str:
        """Name of the competition."""
        return self.paths.name

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """What `read_recipes` returns; empty if all runs are imported."""
        return read_recipes(self.paths.folder, target=self.competition.data.target)

    @cached_property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run, in the order of the recipes and their seeds; raises ConfigError as `recipes` does."""
        runs, paths, lock = [], self.paths, lock_sha256(self.paths.lock_file)
        for name, recipe in self.recipes.items():
            weights_hash = weights_sha256(recipe, paths.root)
            files = {"pseudo_labels": paths.root / recipe.pseudo_labels} if recipe.pseudo_labels else {}
            files |= {"metadata": paths.metadata_file} if recipe.metadata_columns else {}
            hashes = {key: file_sha256(file) for key, file in files.items()}
            for seed in recipe.seeds:
                run = run_name(name, seed)
                about = read_about(paths.predictions_file(run))
                stamp = run_stamp(self.competition, recipe, seed, lock_sha256=lock, **hashes)
                names = {"run": run, "recipe_name": name, "recipe": recipe, "seed": seed, "stamp": stamp}
                stale = is_stale(about, stamp=stamp, weights=weights_hash)
                runs.append(PlannedRun(**names, stale=stale, about=about))
        return tuple(runs)

    @property
    def trainable_runs(self) -> tuple[PlannedRun, ...]:
        """Every run, for commands that train; raises ConfigError where there is no recipe."""
        if not self.recipes:
            file = self.paths.recipe_file("<recipe>")
            fix = "copy one from another competition: ls competitions/*/*.toml"
            raise ConfigError("A competition without a recipe.", file=file, fix=fix)
        return self.runs

    @property
    def stale_runs(self) -> list[PlannedRun]:
        """The runs that are to be trained."""
        return [run for run in self.runs if run.stale]


def read_plan(name: str, root: Path | str = ".", *, kind: type = Plan) -> Plan:
    """The plan of the competition `name` below `root`, an object of the class `kind`; raises ConfigError."""
    paths = find_competition(name, root)
    check_recipe_name(name, paths.folder)
    return kind(paths, read_competition(paths.folder))


def read_recipes(folder: Path, *, target: str = "class") -> dict[str, Recipe]:
    """Recipe name -> recipe; raises ConfigError with the faults of all recipes.

    `target` is that of the data: keys without effect on it are refused.
    """
    recipes, errors = {}, []
    files = set(folder.glob("*.toml")) - set(folder.glob(".#*")) - {folder / COMPETITION_FILE}  # .#: Emacs's lock files
    for file in sorted(files):
        try:
            check_recipe_name(file.stem, file)
            recipes[file.stem] = read_recipe(file, target=target)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        faults = [
            f"{error.file}: {fault}" for error in errors for fault in error.faults or (error.found or error.what,)
        ]
        raise ConfigError("Several recipes have faults.", faults=faults, fix="edit these files")
    return recipes


def fit_names(competition: Competition, recipe: Recipe) -> list[str]:
    """The networks that a run trains: one for each fold, which validates, and where the recipe says so, the refit."""
    folds = competition.validation.folds if competition.validation.kind == "k-fold" else 1
    return [f"fold{k}" for k in range(folds)] + ["refit"] * recipe.refit


def runs_in_fits(competition: Competition, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs whose fits make trains side by side: those of `runs`, where these alone would leave cores idle.

    The fits of a run that share features of a pretrained network, which are computed once, are trained by one process.
    """
    if sum(run.recipe.cores for run in runs) >= len(os.sched_getaffinity(0)):
        return []
    return [run for run in runs if not run.recipe.fits_features and len(fit_names(competition, run.recipe)) > 1]


def run_name(recipe_name: str, seed: int) -> str:
    """`resnet34.s1`: the recipe `resnet34` with seed 1."""
    return f"{recipe_name}.s{seed}"


def check_recipe_name(name: str, file: Path) -> None:
    """Raise ConfigError if make or a file system would misread the name of a recipe or a competition."""
    if not NAME.fullmatch(name) or RUN_SUFFIX.fullmatch(name) or name in RESERVED:
        what = f"'{name}' cannot be the name of a recipe or a competition."
        raise ConfigError(what, file=file, expected=f"{CHARACTERS}; no seed as in .s1", fix="rename it")


def check_run_name(name: str, taken: Sequence[str]) -> None:
    """Raise ConfigError if an imported run cannot have this name; `taken` are the names of the runs of recipes."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be the name of a run.", expected=CHARACTERS, fix="vit.s1")
    if name in taken:
        what, fix = f"'{name}' is already the name of a recipe's run.", f"podium import other.{name}"
        raise ConfigError(what, expected="another name", fix=fix)


def check_goals(goals: Sequence[str], targets: Sequence[str], names: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest spelling, for goals that make does not know.

    `targets` are those of the Makefile, `names` the recipes and runs. Goals with a slash are files, which make checks.
    """
    if conflicts := sorted(set(targets) & set(names)):
        raise ConfigError(f"The recipe '{conflicts[0]}' has the name of a make target.", fix="rename its file")
    known = [*targets, *names]
    unknown = [goal for goal in goals if goal not in known and "/" not in goal]
    if not unknown:
        return
    nearest = [name for goal in unknown for name in difflib.get_close_matches(goal, known, n=1)]
    raise ConfigError(
        f"make does not know {', '.join(repr(goal) for goal in unknown)}.",
        expected=f"one of {examples(known, most=MOST_KNOWN)}",
        fix="; ".join(dict.fromkeys(f"make {name}" for name in nearest))
        or "make help; podium --help has more commands",
    )


def find_run(runs: Sequence[PlannedRun], name: str, *, option: str) -> PlannedRun:
    """Find a run by its name, or by the name of its recipe, which gives the first run; raises ConfigError.

    `option` is the variable that the user set: RUN (a run or a recipe) or RECIPE (a recipe).
    """
    known = {run.recipe_name: run for run in reversed(runs)}
    if option == "RUN":
        known |= {run.run: run for run in runs}
    if name not in known:
        raise unknown_name("run or recipe" if option == "RUN" else "recipe", name, sorted(known), option=option)
    return known[name]


def longest_first(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Sort runs by the longest known training time of their recipe, longest first.

    Recipes that were never trained come before, those with the most training pixels first. So no long run is left
    alone at the end while other cores are idle.
    """
    seconds: dict[str, float] = {}
    for run in runs:
        last_seconds = (run.about or {}).get("seconds")
        if isinstance(last_seconds, int | float):
            seconds[run.recipe_name] = max(last_seconds, seconds.get(run.recipe_name, 0))
    return sorted(runs, key=lambda run: (-seconds.get(run.recipe_name, float("inf")), -run.recipe.pixels_per_row))


def select_runs(known: Sequence[PlannedRun], names: Sequence[str]) -> list[PlannedRun]:
    """The runs whose name or recipe is in `names`; all if `names` is empty. Raises ConfigError for unknown names."""
    wanted = set(names)
    for name in sorted(wanted - {name for run in known for name in (run.run, run.recipe_name)}):
        find_run(known, name, option="RUN")
    return [run for run in known if not wanted or run.run in wanted or run.recipe_name in wanted]


def check_parameters(plan: Plan, runs: Sequence[str]) -> None:
    """Raise TrainingError with every run whose parameters are not here."""
    missing = [run for run in runs if not plan.paths.parameters_file(run).is_file()]
    if not missing:
        return
    has_predictions = plan.paths.predictions_file(missing[0]).is_file()
    raise TrainingError(
        f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no trained parameters here.",
        file=plan.paths.parameters_file(missing[0]),
        found=f"{'' if has_predictions else 'no '}predictions, without parameters, which are not committed",
        fix=training_command(plan, *missing),
    )


def training_command(plan: Plan, *runs: str) -> str:
    """The command that trains runs; for an unknown run, the names of those that have parameters."""
    if {*runs} <= {planned.run for planned in plan.runs}:
        return f"podium train {' '.join(runs)} --again --competition {plan.name}"
    files = plan.paths.parameters_folder.glob("*.safetensors")
    others = sorted(file.stem for file in files if file.stem not in runs)
    return f"one of {', '.join(others)}" if others else f"podium train --competition {plan.name}"
