"""Train on a Ray cluster (https://docs.ray.io): each fit is a task, wherever a node has free cores or a free GPU.

Podium's sources, settings and small weights travel as Ray's `working_dir`; the environment is the node's. Decoded
images and large weights are read where the driver has them, if a node sees the same file there, as on a shared disk;
else they are sent in chunks, once a node. A lost node costs its tasks the time since the last checkpoint where
`checkpoints` names a folder or an address of fsspec that every node reaches, and else their whole time.
"""

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.engines.tasks import Note, Table, Task, TaskFailedError, run_task, version_faults
from podium.errors import ConfigError, TrainingError
from podium.files import atomic_write, file_lock, write_file
from podium.plan.packages import training_versions
from podium.plan.stamp import file_sha256

CHECKPOINT = "checkpoint"
CHUNK = 32 << 20
CONNECT = "ADDRESS=<host>:6379 of a cluster that `ray start --head` began; without it Ray uses this machine alone"
RETRIES, POLL_SECONDS, SAVE_SECONDS, CONNECT_SECONDS = 10, 1.0, 10.0, 20.0
MEMORY = 2 << 30  # of a task; its images are mapped, and need not fit
# Ray would leave out files that .gitignore names, and start workers by `uv run` where the driver was started so.
DRIVER_ENVIRONMENT = {"RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@dataclass(frozen=True)
class SentFile:
    """A large file: where it is at the driver, its size in bytes, a name that its content determines, its SHA-256.

    Without SHA-256, as for images, whose checksums every training compares, the content is not checked on arrival.
    """

    source: str
    size: int
    name: str
    sha256: str = ""

    def is_at(self, file: Path) -> bool:
        """Whether a file is this one."""
        is_there = file.is_file() and file.stat().st_size == self.size
        return is_there and self.sha256 in ("", file_sha256(file))


@dataclass(frozen=True)
class Job:
    """What all tasks share: `images` are files of the cache, `weights` files of the project, by their places."""

    images: Mapping[str, SentFile]
    weights: Mapping[str, SentFile]
    checkpoints: str = ""  # a folder or an address that every node reaches
    copies: bool = False  # send files also to nodes that see the driver's


class Coordinator:
    """An actor beside the driver: reads large files in chunks, and keeps which node trains what."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}

    def read(self, file: str, offset: int) -> bytes:
        """A chunk of a file."""
        with open(file, "rb") as stream:
            stream.seek(offset)
            return stream.read(CHUNK)

    def starts(self, task: str, place: str) -> None:
        """A node begins with a task."""
        self.places[task] = place

    def running(self) -> dict[str, str]:
        """Task -> the node that began with it last."""
        return self.places


def train_fit_on_node(task: Task, job: Job, coordinator: Any) -> dict[str, bytes]:
    """On a node: train a fit; returns its checkpoint and its files of lr_find, by their places at the driver.

    The working directory is the project.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()[:6]
    place = f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, node {node})"
    ray.get(coordinator.starts.remote(str(task), place))
    project, store = Path.cwd(), Path(tempfile.gettempdir()) / f"podium-node-{os.getuid()}"
    for places, folder in ((job.images, store / "cache"), (job.weights, project)):
        for name, file in places.items():
            source = Path(file.source)
            if job.copies or not file.is_at(source):  # else this node sees the driver's file, as on a shared disk
                source = store / "files" / file.name
                fetch(file, source, lambda *arguments: ray.get(coordinator.read.remote(*arguments)))
            _link(source, folder / name)
    checkpoint = store / "cache" / task.checkpoint
    environment = {"PODIUM_CACHE": str(store / "cache"), "PODIUM_WEIGHTS": str(project / "published")}
    with saved_elsewhere(checkpoint, f"{job.checkpoints}/{checkpoint.name}" if job.checkpoints else ""):
        run_task(task, project, environment | {"PYTHONPATH": str(project)})
    curves = (project / "reports" / task.competition / "lr-find").glob(f"{task.run}.*")
    files = {file.relative_to(project).as_posix(): file.read_bytes() for file in curves}
    files[CHECKPOINT] = checkpoint.read_bytes()
    checkpoint.unlink()
    return files


def fetch(file: SentFile, target: Path, read: Callable[[str, int], bytes]) -> None:
    """Copy a file in chunks, unless another task of this node has; raises OSError where it arrives damaged."""
    with file_lock(target.with_name(f"{target.name}.lock")):
        if file.is_at(target):
            return
        with atomic_write(target) as stream:
            while stream.tell() < file.size and (chunk := read(file.source, stream.tell())):
                stream.write(chunk)
            stream.flush()
            if not file.is_at(Path(stream.name)):
                raise OSError(f"{file.source} changed, or arrived damaged")


def _link(source: Path, place: Path) -> None:
    """Make `place` a link to a file, whatever link was there; several tasks of a node may do so at once."""
    if source != place and place.resolve() != source.resolve():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        temporary.symlink_to(source)
        temporary.replace(place)


@contextmanager
def saved_elsewhere(file: Path, url: str) -> Iterator[None]:
    """Bring a checkpoint from where other nodes see it, and copy it there whenever it was saved."""
    if not url:
        yield
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    with suppress(FileNotFoundError):
        write_file(file, system.cat_file(path))
    ended, saved = threading.Event(), file.stat().st_mtime_ns if file.exists() else 0

    def copy() -> None:
        nonlocal saved
        while not ended.wait(SAVE_SECONDS):
            with suppress(OSError):  # it is tried again: the network may be back
                if (changed := file.stat().st_mtime_ns) != saved:
                    system.makedirs(system._parent(path), exist_ok=True)
                    system.pipe_file(f"{path}.part", file.read_bytes())
                    system.mv(f"{path}.part", path)
                    saved = changed

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    with suppress(FileNotFoundError):
        system.rm(path)


@contextmanager
def connected(address: str, project: Path) -> Iterator[Any]:
    """Ray, connected to a cluster, or to one of this machine's cores; the tasks' working directory is `project`."""
    os.environ |= DRIVER_ENVIRONMENT
    try:
        import ray
    except ImportError:
        raise ConfigError("Ray is not installed.", fix="pip install 'podium[ray]'") from None
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in host:  # Ray itself would end the process where nothing answers
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address or "local", runtime_env={"working_dir": str(project)}, log_to_driver=True)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError("Ray cannot be started.", expected="a cluster that runs", found=found, fix=CONNECT) from None
    try:
        yield ray
    except ray.exceptions.RayError as error:
        what, fix = "The Ray cluster is lost. Fits that came back are kept.", "repeat the command"
        raise TrainingError(what, found=reason_of(error), fix=fix) from None
    finally:
        ray.shutdown()


def train_with_ray(
    tasks: Sequence[Task],
    job: Job,
    project: Path,
    *,
    address: str,
    keep: Callable[[Task, str, bytes], None],
    note: Note,
) -> dict[Task, str]:
    """Train the fits on a cluster; returns the reason for each that failed.

    `keep` is called with each file that comes back: the task, its place, its content. `note` is called with lines for
    people. Raises ConfigError where there is no Ray, or no cluster.
    """
    failed: dict[Task, str] = {}
    with connected(address, project) as ray:
        node = ray.get_runtime_context().get_node_id()
        coordinator = ray.remote(Coordinator).options(num_cpus=0, scheduling_strategy=_at(ray, node)).remote()
        refused = refused_nodes(ray, note)
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        # A new process for each task: nothing stays in its memory.
        remote = ray.remote(max_calls=1, max_retries=RETRIES)(train_fit_on_node)
        waiting, table = {}, Table(tasks, note)
        for task in tasks:
            needs = {"num_cpus": task.cores, "num_gpus": task.processes * has_gpus, "memory": MEMORY * task.processes}
            selector = {"ray.io/node-id": f"!in({','.join(refused)})"} if refused else {}
            placed = remote.options(name=str(task), label_selector=selector, **needs)
            waiting[placed.remote(task, job, coordinator)] = task
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
            for name, place in ray.get(coordinator.running.remote()).items():
                table.show(name, f"running on {place}")
            for reference in ready:
                task = waiting.pop(reference)
                try:
                    for place, content in ray.get(reference).items():
                        keep(task, place, content)
                    table.show(task, "done")
                except (ray.exceptions.RayError, OSError) as error:  # OSError: the disk here is full
                    failed[task] = reason_of(error)
                    table.show(task, "failed")
    return failed


def _at(ray: Any, node: str) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def refused_nodes(ray: Any, note: Note) -> list[str]:
    """The nodes that have other versions than the driver, which are named; raises ConfigError if all have."""
    check, nodes = ray.remote(num_cpus=0)(version_faults), [node for node in ray.nodes() if node["Alive"]]
    here, refused, faults = training_versions(), [], []
    answers = [check.options(scheduling_strategy=_at(ray, node["NodeID"])).remote(here) for node in nodes]
    for node, answer in zip(nodes, answers, strict=True):
        with suppress(ray.exceptions.RayError):  # lost meanwhile
            if found := ray.get(answer):
                refused.append(node["NodeID"])
                faults.append(f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}): {'; '.join(found)}")
    if len(refused) == len(nodes):
        fix = "install the same versions everywhere: requirements.lock"
        raise ConfigError("All nodes have other versions than this machine.", faults=faults, fix=fix)
    for fault in faults:
        note(f"not used: {fault}")
    return refused


def reason_of(error: Exception) -> str:
    """What went wrong on a node: Podium's own message, or Ray's last line."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return "\n".join(lines) if isinstance(cause, TaskFailedError) else lines[-1]
