"""`python -m podium.plan COMPETITION` prints the plan as make assignments: recipes, runs, and which are stale."""

import sys
from collections.abc import Sequence

from podium.errors import PodiumError
from podium.plan.names import check_goals
from podium.plan.runs import Plan, longest_first, read_plan
from podium.plan.stamp import ensemble_is_fresh


def make_assignments(plan: Plan) -> list[str]:
    """The plan as make assignments, none of which contains a blank."""
    stale = [run for run in longest_first(plan.paths, plan.runs) if run.stale]
    words = [f"RECIPES+={name}" for name in plan.recipes]
    words += [f"RUNS+={run.run}" for run in plan.runs]
    words += [f"RUNS_{run.recipe_name}+={run.run}" for run in plan.runs]
    words += [f"STALE+={run.run}" for run in stale]
    if stale or not ensemble_is_fresh(plan.paths, plan.competition):
        words.append("ENSEMBLE_STALE=yes")
    return words


def main(arguments: Sequence[str]) -> int:
    """Print the plan of COMPETITION, or an error; GOALS are checked against TARGETS and the names of runs."""
    competition_name, goals, targets = [*arguments, "", ""][:3]
    try:
        plan = read_plan(competition_name)
        words = make_assignments(plan)
        names = [word.split("=")[1] for word in words if word.startswith(("RECIPES+", "RUNS+"))]
        check_goals(goals.split(), targets.split(), names)
        if "train" in goals.split():
            _ = plan.trainable_runs  # raises ConfigError where there is no recipe
    except (PodiumError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(" ".join(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
