"""`python -m podium.plan COMPETITION GOALS` prints make assignments: recipes, runs, and which of them are stale."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from podium.errors import PodiumError
from podium.plan.memory import pick_competition, remember
from podium.plan.paths import find_competition
from podium.plan.runs import Plan, check_goals, fit_names, longest_first, read_plan, runs_in_fits, select_runs
from podium.plan.stamp import ensemble_is_fresh


def make_assignments(plan: Plan) -> list[str]:
    """The plan as make assignments, none of which contains a blank."""
    stale = [run for run in longest_first(plan.runs) if run.stale]
    words = [f"RECIPES+={name}" for name in plan.recipes]
    words += [f"RUNS+={run.run}" for run in plan.runs]
    words += [f"RUNS_{run.recipe_name}+={run.run}" for run in plan.runs]
    words += [f"STALE+={run.run}" for run in stale]
    if stale or not ensemble_is_fresh(plan.paths, plan.competition):
        words.append("ENSEMBLE_STALE=yes")
    return words


def goal_assignments(
    plan: Plan, goals: Sequence[str], targets: Sequence[str], names_to_train: Sequence[str]
) -> list[str]:
    """What the goals of make train, as make assignments; raises ConfigError for a goal that make does not know."""
    names = [*plan.recipes, *(run.run for run in plan.runs)]
    check_goals(goals, targets, names)
    if "train" in goals:
        to_train = select_runs(plan.trainable_runs, names_to_train)
        words = [f"TRAIN+={run.run}" for run in to_train]
    else:
        to_train, words = select_runs(plan.runs, [goal for goal in goals if goal in names]), []
    stale = [run for run in to_train if run.stale]
    words += [f"TO_CHECK+={name}" for name in dict.fromkeys(run.recipe_name for run in stale)]
    in_fits = runs_in_fits(plan.competition, stale)
    return words + [f"FITS+={run.run}/{fit}" for run in in_fits for fit in fit_names(plan.competition, run.recipe)]


def main(arguments: Sequence[str]) -> int:
    """Print COMPETITION, where GOALS need it also its plan, or an error; GOALS are checked against TARGETS and runs.

    The goal `train` trains the runs that TRAIN names, or all. An empty COMPETITION is the one of an earlier command,
    else DEFAULT, else the only one; a name is remembered for later commands if REMEMBER is not empty.
    """
    named, goals, targets, names_to_train, default, remembers = [*arguments, *[""] * 6][:6]
    root = Path()
    try:
        name = named or pick_competition(root, default=default, note=partial(print, file=sys.stderr))
        find_competition(name, root)
        if named and remembers:
            remember(root, name)
        words = [f"COMPETITION={name}"]
        if goals:
            plan = read_plan(name, root)
            words += make_assignments(plan)
            words += goal_assignments(plan, goals.split(), targets.split(), names_to_train.split())
    except (PodiumError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
