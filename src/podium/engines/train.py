"""Train stale runs by a scheduler: pack what a run needs, train each fit anywhere, and join those that fit the plan."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from podium.data.cache import LISTING_FILE
from podium.engines.ray import CHECKPOINT, Job, SentFile, train_with_ray
from podium.engines.slurm import train_with_slurm
from podium.engines.tasks import Note, Task
from podium.errors import TrainingError
from podium.files import write_file
from podium.kaggle.notebooks.package import source_files, training_files
from podium.plan.paths import Paths
from podium.plan.runs import PlannedRun
from podium.plan.stamp import file_sha256
from podium.training.batches.stores import open_recipe_images
from podium.training.session import unfinished_fits
from podium.workspace import Workspace

# Larger files do not travel with the settings: Ray's limit for all of a job is 100 MiB.
LARGE_BYTES = 16 << 20


def train_elsewhere(
    workspace: Workspace,
    runs: Sequence[PlannedRun],
    *,
    engine: str,
    address: str = "",
    checkpoints: str = "",
    options: Sequence[str] = (),
    note: Note = print,
) -> dict[str, list[str]]:
    """Train the fits of runs that are not finished yet, by a scheduler; returns run -> reasons for each that failed.

    `engine` is ray or slurm. `address` is that of a Ray cluster, or `local`; `checkpoints` a folder, or an address of
    fsspec, that all nodes of a Ray cluster reach; `options` are parameters of SLURM, such as slurm_partition=gpu.
    Every fit that comes back is kept at once: the same command again trains only the rest. Raises DataError where the
    images are not decoded here, ConfigError where the scheduler cannot be reached.
    """
    fits = [(run, fit) for run in runs for fit in unfinished_fits(workspace, run)]
    tasks = [Task(workspace.name, run.run, fit, run.recipe.cores, run.recipe.processes) for run, fit in fits]
    if not tasks:
        return {}
    images = images_of(workspace, runs)
    note(f"{workspace.name}: {len(tasks)} fits to train with {engine}")
    if engine == "slurm":
        failed = train_with_slurm(tasks, workspace.paths, cluster=address or "slurm", options=options, note=note)
    else:
        project, copies = workspace.paths.cache / "engine", os.environ.get("PODIUM_RAY_COPIES") == "1"
        weights = stage(workspace, runs, project)
        job = Job(images, weights, checkpoints.rstrip("/"), copies)
        keep = partial(_keep, workspace.paths)
        failed = train_with_ray(tasks, job, project, address=address, keep=keep, note=note)
    reasons: dict[str, list[str]] = {}
    for task, reason in failed.items():
        reasons.setdefault(task.run, []).extend(f"{task}: {line}" for line in reason.splitlines())
    for run in runs:
        if run.run not in reasons and (lost := unfinished_fits(workspace, run)):
            reasons[run.run] = [f"{run.run}: {', '.join(lost)} did not come back as this folder's settings ask for"]
    return reasons


def _keep(paths: Paths, task: Task, place: str, content: bytes) -> None:
    write_file(paths.checkpoint_file(task.run, task.fit) if place == CHECKPOINT else paths.outputs / place, content)


def stage(workspace: Workspace, runs: Sequence[PlannedRun], folder: Path) -> dict[str, SentFile]:
    """Replace `folder` by a project with the small files that runs need; returns place -> file of the large ones."""
    paths, large = workspace.paths, {}
    settings = [paths.settings_file, paths.lock_file, *filter(Path.is_file, [paths.metadata_file])]
    files = training_files(workspace, runs) | source_files()
    files |= {file.relative_to(paths.root).as_posix(): file for file in settings}
    shutil.rmtree(folder, ignore_errors=True)
    for place, file in files.items():
        place = place.removeprefix("src/")  # a worker of Ray imports from its working directory
        if file.stat().st_size > LARGE_BYTES:
            sha256 = file_sha256(file)
            large[place] = SentFile(str(file.resolve()), file.stat().st_size, sha256, sha256)
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)
    (folder / "published").mkdir(exist_ok=True)  # PODIUM_WEIGHTS must exist
    return large


def images_of(workspace: Workspace, runs: Sequence[PlannedRun]) -> dict[str, SentFile]:
    """Place in the cache -> file of the decoded images of runs, with their checksums and their list."""
    sent = {}
    for recipe in {run.recipe_name: run.recipe for run in runs}.values():
        images = Path(open_recipe_images(workspace, recipe).images.filename)
        checksums = file_sha256(images.with_suffix(".json"))
        for file in (images.with_name(LISTING_FILE), images.with_suffix(".json"), images):
            sha256 = "" if file == images else file_sha256(file)
            place = file.resolve().relative_to(workspace.paths.cache.parent.resolve()).as_posix()
            sent[place] = SentFile(str(file.resolve()), file.stat().st_size, sha256 or f"{checksums}-images", sha256)
    return sent


def failure(failed: dict[str, list[str]]) -> TrainingError:
    """The error that names the runs that failed, each with its last lines."""
    faults = [line for lines in failed.values() for line in lines]
    return TrainingError(f"{len(failed)} runs could not be trained; the others are.", faults=faults)
