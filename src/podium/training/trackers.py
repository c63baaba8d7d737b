"""TensorBoard, Weights & Biases, MLflow and trackio record the curves of a run's training.

They do not change the results of a run, and each is imported only where the competition asks for it.
"""

import io
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

from podium.errors import TrainingError
from podium.files import file_lock
from podium.plan.runs import PlannedRun
from podium.training.checkpoint import Checkpoint, Note
from podium.workspace import Workspace

# `wandb sync` sends later what was not sent in this time.
FINISH_SECONDS = 120


class Tracker(NamedTuple):
    """Records one run."""

    # The name of a stage, a step of it, its place in the run (the images trained before), and values.
    log: Callable[[str, int, int, dict[str, float]], object]
    finish: Callable[[bool], object] = bool  # with whether the training failed
    last_place: int = -1  # up to where it was recorded before it was killed


class Trackers(dict[str, Tracker]):
    """The trackers of one run. One that fails, as on a full disk, stops with a note; the training goes on."""

    def __init__(self, note: Note = print):
        self.note = note

    def log(self, stage: str, step: int, images: int, values: dict[str, float]) -> None:
        """Log the values of a step, or of the epoch that it ends, unless they are recorded already."""
        place = images + ("epoch" in values)
        self.call(lambda tracker: place > tracker.last_place and tracker.log(stage, step, place, values))

    def call(self, action: Callable[[Tracker], object]) -> None:
        """Do something with each tracker."""
        for name, tracker in tuple(self.items()):
            title, _, error_class, _ = TRACKERS[name]
            try:
                action(tracker)
            except (OSError, resolve_name(error_class)) as error:
                del self[name]
                self.note(f"{title} stops, and the training goes on: {_reason(error)}")


@contextmanager
def open_trackers(
    workspace: Workspace, run: PlannedRun, name: str, checkpoint: Checkpoint, *, other_stages: Collection[str]
) -> Iterator[Trackers]:
    """The trackers that the competition asks for, opened for a fit; its curves resume where its training does.

    None in Kaggle's notebooks. `name` is that of the curves, `other_stages` are those of the run's other fits.

    Raises TrainingError where one is not installed or cannot start, before anything is trained.
    """
    trackers, failed = Trackers(checkpoint.note), True
    try:
        for tracker in workspace.competition.trackers if "PODIUM_NO_TRACKERS" not in os.environ else ():
            trackers[tracker] = _start(tracker, workspace, run, name, checkpoint, other_stages)
        yield trackers
        failed = False
    finally:
        trackers.call(lambda tracker: tracker.finish(failed))


def _start(
    tracker: str,
    workspace: Workspace,
    run: PlannedRun,
    name: str,
    checkpoint: Checkpoint,
    other_stages: Collection[str],
) -> Tracker:
    title, start, error_class, fix = TRACKERS[tracker]
    config = asdict(run.recipe) | {"seed": run.seed, "competition": workspace.name}
    names = {"project": f"podium-{workspace.name}", "group": run.run, "name": name}
    reports = workspace.paths.reports.absolute()
    reports.mkdir(parents=True, exist_ok=True)
    try:
        return start(reports, names | {"config": config}, checkpoint.state["id"], checkpoint.is_saved, other_stages)
    except ModuleNotFoundError as error:
        found, fix = f"no package {error.name}", f"pip install 'podium[{tracker}]'"
    except (OSError, resolve_name(error_class)) as error:
        found = _reason(error)
    what, file = f"{title} could not be started: nothing was trained.", workspace.paths.settings_file
    raise TrainingError(what, file=file, found=found, fix=f"{fix}; or take it out of `trackers`")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)


def _tensorboard(reports: Path, names: dict[str, Any], _: str, resumes: bool, other_stages: Collection[str]) -> Tracker:
    """Each stage has a folder in that of its run. A new training removes all but those of `other_stages`.

    Where the training resumes, TensorBoard does not show the steps after its checkpoint a second time.
    """
    from torch.utils.tensorboard import SummaryWriter

    def folder_of(stage: str) -> Path:
        return reports / "tensorboard" / names["group"] / ("-".join(stage.replace("/", " of ").split()) or "train")

    kept = {folder_of(prefix + stage) for stage in other_stages for prefix in ("", "freeze")}
    for folder in set(folder_of("").parent.glob("*")) - kept if not resumes else ():
        shutil.rmtree(folder, ignore_errors=True)
    writers: dict[str, SummaryWriter] = {}

    def log(stage: str, step: int, place: int, values: dict[str, float]) -> None:
        if stage not in writers:
            writers[stage] = SummaryWriter(folder_of(stage), purge_step=step if resumes else None)
        for name, value in values.items():
            writers[stage].add_scalar(name, value, step)
        if "epoch" in values:
            writers[stage].flush()

    return Tracker(log)


def _wandb(reports: Path, names: dict[str, Any], training: str, resumes: bool, _: Collection[str]) -> Tracker:
    import wandb

    settings = wandb.Settings(silent=True, console="off", finish_timeout=FINISH_SECONDS)
    if wandb.setup(settings).settings.mode == "online" and not wandb.login(prompt=False):
        raise wandb.Error("no account on this machine")
    run = wandb.init(**names, id=training, resume="allow", dir=reports, settings=settings)
    return Tracker(
        lambda stage, step, place, values: run.log(values, step=place),
        lambda failed: run.finish(exit_code=int(failed)),
        run.step - 1,
    )


def _mlflow(reports: Path, names: dict[str, Any], training: str, resumes: bool, _: Collection[str]) -> Tracker:
    """Records epochs only, each of which is a request; into a database in `reports` where no server is named."""
    import mlflow

    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with file_lock(reports / "mlflow.lock"):  # two runs at once would both make the tables
        mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{reports}/mlflow.db")
        folder = mlflow.set_experiment(names["project"]).experiment_id
    client, tags = mlflow.MlflowClient(), {"podium.training": training, "podium.run": names["group"]}
    (run,) = client.search_runs([folder], f"tags.`podium.training` = '{training}'") or [
        client.create_run(folder, run_name=names["name"], tags=tags)
    ]
    run_id = run.info.run_id
    for key, value in () if run.data.params else names["config"].items():
        client.log_param(run_id, key, value)

    def log(stage: str, step: int, place: int, values: dict[str, float]) -> None:
        if "epoch" in values:
            mlflow.log_metrics(values, step=place, run_id=run_id)

    last = max((metric.step for metric in client.get_metric_history(run_id, "epoch")), default=-1)
    return Tracker(log, lambda failed: client.set_terminated(run_id, "FAILED" if failed else "FINISHED"), last)


def _trackio(reports: Path, names: dict[str, Any], _: str, resumes: bool, __: Collection[str]) -> Tracker:
    import trackio

    def finish(failed: bool) -> None:
        with redirect_stdout(io.StringIO()):
            trackio.finish()

    resume = "allow" if resumes else "never"
    with redirect_stdout(io.StringIO()):
        run = trackio.init(**names, resume=resume, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    return Tracker(lambda stage, step, place, values: run.log(values, step=place), finish, run._next_step - 1)


# Key -> title, what starts it, its own class of errors beside OSError, what to do where it cannot start.
TRACKERS: dict[str, tuple[str, Callable[..., Tracker], str, str]] = {
    "tensorboard": ("TensorBoard", _tensorboard, "builtins:OSError", "free the disk"),
    "wandb": ("Weights & Biases", _wandb, "wandb:Error", "wandb login; or WANDB_MODE=offline, and wandb sync later"),
    "mlflow": ("MLflow", _mlflow, "mlflow.exceptions:MlflowException", "look at MLFLOW_TRACKING_URI"),
    "trackio": ("trackio", _trackio, "sqlite3:Error", "look at TRACKIO_DIR"),
}
