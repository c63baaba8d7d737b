"""Which runs a competition has, and which of them are stale: what the Makefile asks before it does anything.

`python -m podium.plan COMPETITION` prints make assignments. Only the standard library is imported, so that
any Python >= 3.11 can answer, at once and before an environment exists.
"""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from podium.config import Recipe, read_competition, read_recipe, recipe_files
from podium.errors import ConfigError, PodiumError
from podium.project import Project
from podium.search import read_search
from podium.stamp import ensemble_is_fresh, file_sha256, is_stale, read_about, run_stamp, weights_sha256

# Names become file names, make targets and words of a command line.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LIKE_A_RUN = re.compile(r".*\.s[0-9]+")
# Names that mean something to make, besides its targets.
MAKES_OWN = {"Makefile", "FORCE", "demo-all", "environment.mk"}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One recipe with one seed, and whether its predictions are missing or of something else."""

    run: str
    recipe_name: str
    recipe: Recipe
    seed: int
    stamp: str
    stale: bool


def run_name(recipe_name: str, seed: int) -> str:
    """`resnet34.s1`: the recipe `resnet34` with seed 1."""
    return f"{recipe_name}.s{seed}"


def list_runs(project: Project, competition_name: str) -> list[PlannedRun]:
    """Every run of a competition, in the order of its recipes and their seeds; raises ConfigError."""
    folder = project.competition_folder(competition_name)
    check_recipe_name(competition_name, folder)
    competition = read_competition(folder)
    lock_sha256 = file_sha256(project.lock_file(competition_name))
    runs = []
    for recipe_name, recipe in read_recipes(folder).items():
        weights = weights_sha256(recipe, project.root)
        for seed in recipe.seeds:
            run = run_name(recipe_name, seed)
            stamp = run_stamp(competition, recipe, seed, lock_sha256=lock_sha256)
            stale = is_stale(project, competition_name, run, stamp=stamp, weights=weights)
            planned = PlannedRun(run=run, recipe_name=recipe_name, recipe=recipe, seed=seed, stamp=stamp, stale=stale)
            runs.append(planned)
    return runs


def read_recipes(folder: Path) -> dict[str, Recipe]:
    """Recipe name -> recipe; raises ConfigError with the faults of all recipes, or where there is none."""
    recipes, errors = {}, []
    for name, file in recipe_files(folder).items():
        try:
            recipes[check_recipe_name(name, file)] = read_recipe(file)
            read_search(file)  # refused here, though nothing but a search needs it: told at once, with all faults
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        faults = [f"{one.file}: {fault}" for one in errors for fault in one.faults or (one.found or one.what,)]
        raise ConfigError("Several recipes have faults.", faults=faults, mend="edit these files")
    if not recipes:
        raise ConfigError(
            "A competition without a recipe.",
            expected=str(folder / "<recipe>.toml"),
            mend="copy one from another competition: ls competitions/*/*.toml",
        )
    return recipes


def named_run(runs: Sequence[PlannedRun], name: str, *, option: str) -> PlannedRun:
    """The run that RUN= names, or the first of the recipe that RUN= or RECIPE= names; raises ConfigError.

    `option` is the one that was asked for: RUN or RECIPE.
    """
    known = {one.recipe_name: one for one in reversed(runs)}
    if option == "RUN":
        known |= {one.run: one for one in runs}
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4) or [runs[0].recipe_name]
    what = "run or recipe" if option == "RUN" else "recipe"
    raise ConfigError(
        f"There is no {what} '{name}'." if name else f"Which {what}?",
        expected=f"one of {', '.join(sorted(known))}",
        mend=f"{option}={nearest[0]}",
    )


def longest_first(project: Project, competition_name: str, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs by the seconds that their last training took, longest first.

    A run that was never trained is taken to last as long as its recipe's other runs, or the longest of all:
    side by side, a long run that starts last is waited for alone.
    """
    seconds: dict[str, float] = {}
    for one in runs:
        about = read_about(project.predictions_file(competition_name, one.run)) or {}
        took = about.get("seconds")
        if isinstance(took, int | float):
            seconds[one.recipe_name] = max(took, seconds.get(one.recipe_name, 0))
    return sorted(runs, key=lambda one: -seconds.get(one.recipe_name, float("inf")))


def make_assignments(project: Project, competition_name: str) -> list[str]:
    """The plan as words without a blank in them, each a make assignment."""
    runs = list_runs(project, competition_name)
    stale = [one for one in longest_first(project, competition_name, runs) if one.stale]
    words = [f"RECIPES+={name}" for name in dict.fromkeys(one.recipe_name for one in runs)]
    words += [f"RUNS+={one.run}" for one in runs]
    words += [f"RUNS_{one.recipe_name}+={one.run}" for one in runs]
    words += [f"STALE+={one.run}" for one in stale]
    if stale or not ensemble_is_fresh(project, competition_name):
        words.append("ENSEMBLE_STALE=yes")
    return words


def check_goals(goals: Sequence[str], targets: Sequence[str], names: Sequence[str]) -> None:
    """Refuse what make cannot make, with the nearest spelling; raises ConfigError.

    `names` are the recipes and runs beside make's `targets`. A goal with a slash is a file: make decides.
    """
    if taken := sorted(set(targets) & set(names)):
        raise ConfigError(
            f"`make {taken[0]}` means something else than the recipe '{taken[0]}'.", mend="rename its file"
        )
    known = [*targets, *names]
    unknown = [goal for goal in goals if goal not in known and "/" not in goal]
    if not unknown:
        return
    nearest = [difflib.get_close_matches(goal, known, n=1) for goal in unknown]
    mends = [f"make {one[0]}" for one in nearest if one]
    raise ConfigError(
        f"There is nothing called {', '.join(repr(goal) for goal in unknown)} to make.",
        expected=f"one of {', '.join(known)}",
        mend="; ".join(dict.fromkeys(mends)) or "make help",
    )


def wanted_runs(known: Sequence[PlannedRun], names: Sequence[str]) -> list[PlannedRun]:
    """The runs that are named, by themselves or by their recipe; all where nothing is; raises ConfigError."""
    check_goals(names, [], [name for run in known for name in (run.recipe_name, run.run)])
    return [run for run in known if not names or run.run in names or run.recipe_name in names]


def check_recipe_name(name: str, file: Path) -> str:
    """The name of a recipe or a competition; raises ConfigError for one that make or the file system would misread."""
    if not NAME.fullmatch(name) or LIKE_A_RUN.fullmatch(name) or name in MAKES_OWN:
        raise ConfigError(
            f"'{name}' cannot be the name of a recipe or a competition.",
            file=file,
            expected="letters, digits, and _ . + - between them; not the end of a run's name, as in .s1",
            mend="rename it",
        )
    return name


def check_run_name(name: str, taken: Sequence[str]) -> None:
    """Refuse a name that no run from elsewhere may have; raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a run.", expected="letters, digits, and _ . + - between them"
        )
    if name in taken:
        raise ConfigError(
            f"'{name}' is a run of a recipe here.", expected="another name", mend=f"podium import other.{name}"
        )


def main(arguments: Sequence[str]) -> int:
    """Print the plan of COMPETITION, or why there is none; GOALS are checked against TARGETS and the runs."""
    competition_name, goals, targets = [*arguments, "", ""][:3]
    try:
        words = make_assignments(Project.at("."), competition_name)
        names = [word.split("=")[1] for word in words if word.startswith(("RECIPES+", "RUNS+"))]
        check_goals(goals.split(), targets.split(), names)
    except (PodiumError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
