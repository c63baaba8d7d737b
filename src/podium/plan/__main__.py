"""`python -m podium.plan COMPETITION` prints the plan as make assignments: recipes, runs, and which are stale."""

import os
import sys
from collections.abc import Sequence

from podium.errors import PodiumError
from podium.plan.runs import Plan, PlannedRun, check_goals, fit_names, longest_first, read_plan, select_runs
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


def fits_side_by_side(plan: Plan, runs: Sequence[PlannedRun]) -> list[str]:
    """`run/fit` for the fits of `runs` that make trains side by side: where these runs alone would leave cores idle.

    The fits of a run that share features of a pretrained network, which are computed once, are trained by one process.
    """
    if sum(run.recipe.threads for run in runs) >= len(os.sched_getaffinity(0)):
        return []
    fits = {run.run: fit_names(plan.competition, run.recipe) for run in runs if not run.recipe.fits_features}
    return [f"{run}/{fit}" for run, names in fits.items() if len(names) > 1 for fit in names]


def main(arguments: Sequence[str]) -> int:
    """Print the plan of COMPETITION, or an error; GOALS are checked against TARGETS and the names of runs.

    The goal `train` trains the runs that the fourth argument names, or all.
    """
    competition_name, goals, targets, names_to_train = [*arguments, "", "", ""][:4]
    try:
        plan = read_plan(competition_name)
        words = make_assignments(plan)
        names = [*plan.recipes, *(run.run for run in plan.runs)]
        check_goals(goals.split(), targets.split(), names)
        if "train" in goals.split():
            to_train = select_runs(plan.trainable_runs, names_to_train.split())
            words += [f"TRAIN+={run.run}" for run in to_train]
        else:
            to_train = select_runs(plan.runs, [goal for goal in goals.split() if goal in names])
        words += [f"FITS+={fit}" for fit in fits_side_by_side(plan, [run for run in to_train if run.stale])]
    except (PodiumError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
