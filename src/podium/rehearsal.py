"""The whole way on few images: what one runs before spending hours."""

from dataclasses import dataclass, replace

from podium.ensemble.write import WrittenEnsemble, write_ensemble
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import PlannedRun, list_runs
from podium.training.progress import Listener
from podium.training.rows import balanced_part
from podium.training.run import train_run
from podium.workspace import open_workspace

REHEARSED_ROWS = 1_000


@dataclass(frozen=True)
class Rehearsal:
    """Where a rehearsal wrote, and what."""

    project: Project
    written: WrittenEnsemble


def rehearse(project: Project, competition_name: str, *, listener_of: type[Listener]) -> Rehearsal:
    """Train one run of every recipe for one epoch on a small balanced part, and blend over all test images.

    Everything is written below `.rehearsal/`; `listener_of` is called with each run's name.
    """
    scratch = Project(project.root, project.root / ".rehearsal")
    for old in scratch.predictions_folder(competition_name).glob("*.npz"):
        old.unlink()
    lock = read_lock(project.lock_file(competition_name))
    rows = balanced_part(lock.train_labels, lock.folds, rows=REHEARSED_ROWS)
    first = {run.recipe_name: run for run in reversed(list_runs(project, competition_name))}
    for name in sorted(first):
        train_run(
            scratch,
            competition_name,
            _shortened(first[name]),
            listener=listener_of(name),
            rows=rows,
        )
    workspace = open_workspace(competition_name, scratch.root, scratch.outputs)
    return Rehearsal(scratch, write_ensemble(workspace, rehearsed=True))


def _shortened(run: PlannedRun) -> PlannedRun:
    recipe = replace(
        run.recipe,
        epochs=1,
        freeze_epochs=min(run.recipe.freeze_epochs, 1),
        progressive_pixels=(),
    )
    return replace(run, recipe=recipe, stamp=f"rehearsal of {run.stamp}")
