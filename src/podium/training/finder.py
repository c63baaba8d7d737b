"""lr_find for one recipe, before any training: what `make lr-find` does."""

from podium.plan import PlannedRun
from podium.project import Project
from podium.training.callbacks import Listener, naming
from podium.training.device import cpu_threads
from podium.training.finding import Finding
from podium.training.fit import first_fold
from podium.training.learner import find_learning_rate


def find_for_run(
    project: Project, competition_name: str, run: PlannedRun, *, data: str | None = None, listener: Listener
) -> Finding:
    """What lr_find says of a run's recipe on the first fold's rows, whatever rate the recipe has.

    Raises TrainingError and DataError.
    """
    recipe_file = project.competition_folder(competition_name) / f"{run.recipe_name}.toml"
    material, _ = first_fold(project, competition_name, run.recipe, data=data)
    # No core is claimed: a person waits, and it is a hundred steps.
    with naming(run.recipe_name, recipe_file), cpu_threads(run.recipe.threads):
        return find_learning_rate(run.recipe, material, seed=run.seed, root=project.root, listener=listener)
