"""What `make plan-cost` takes for granted, measured on this machine, and its simulation beside trainings of their own.

    python benchmarks/scale.py [--only PART ...] [--images FILE ...] [--epochs 2 4 8]

    decode    images a second that one core decodes: CIFAR-10's PNG files, photos (archives in --images)
    transfer  MB a second from a file of the driver to a file of a node, in chunks through Ray's object store
    driver    seconds of a Ray driver for each task that returns a checkpoint of 10 MB; of starting a process for it
    schedule  runs of the digits with few and many epochs are trained one after the other. From their times alone the
              simulation predicts how long they take side by side, by make and by Ray; then they are trained so. A
              second prediction is from their times in that training, which other work on the machine slows down
    recorded  from the seconds of the committed runs, the time of `make all` on two cores, which docs/results.md has
    failures  1,000 nodes of 8 devices train 16,000 runs of an hour, and nodes are lost

All on loopback: a network between machines is slower than `transfer`.
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
MEGABYTE, CHECKPOINT, FILE = 10**6, 10**7, 512 * 10**6
START = 7.5  # seconds that `schedule` measured on two busy cores of an Intel Xeon
# Competition -> seconds of `make all` on two cores, from images to CSV.
RECORDED = {"cifar10": 54 * 60 + 21, "cifar10-scratch": 57 * 60 + 6}
SETTINGS = 'title = "Digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPE = """
architecture = "resnet34"
seeds = [1, 2]
epochs = {epochs}
batch_size = 64
learning_rate = 0.002
training_pixels = 16
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--images", nargs="*", type=Path, default=[], help="zip archives of images")
    parser.add_argument("--epochs", nargs="+", type=int, default=[2, 4, 8], help="of the recipes that are scheduled")
    options = parser.parse_args()
    os.environ |= {"RAY_worker_niceness": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the beginning")
    for name in options.only:
        PARTS[name](options)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def decode(options: argparse.Namespace) -> None:
    """As `make prepare` does, by one process; CPU time, so that other work does not count."""
    from podium.data.images import decode as decode_image

    for file in options.images:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith((".png", ".jpg"))][:2000]
            contents = [archive.read(name) for name in names]
        pixels = 32 if len(contents[0]) < 10_000 else 224
        started = time.process_time()
        for content in contents:
            decode_image(content, pixels, shape="crop")
        rate = len(contents) / (time.process_time() - started)
        size = statistics.fmean(map(len, contents)) / 1000
        print(f"decode    {file.name}: {rate:,.0f} images/s a core at {pixels} pixels, from {size:,.1f} kB each")


@contextmanager
def ray_here() -> Iterator[tuple[object, float]]:
    """Ray on this machine, with the seconds that it took to start."""
    import ray

    started = time.perf_counter()
    ray.init("local", include_dashboard=False, log_to_driver=False)
    try:
        yield ray, time.perf_counter() - started
    finally:
        ray.shutdown()


def transfer(_: argparse.Namespace) -> None:
    from podium.engines.ray import Coordinator, SentFile, fetch

    def copy(source: str, target: str, coordinator: object) -> float:
        import ray

        sent, started = SentFile(source, FILE, "images"), time.perf_counter()
        fetch(sent, Path(target), lambda *arguments: ray.get(coordinator.read.remote(*arguments)))
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder, ray_here() as (ray, _seconds):
        source = Path(folder, "images")
        source.write_bytes(os.urandom(MEGABYTE) * (FILE // MEGABYTE))
        coordinator = ray.remote(Coordinator).options(num_cpus=0).remote()
        remote = ray.remote(num_cpus=0)(copy).remote
        alone = ray.get(remote(str(source), f"{folder}/0", coordinator))
        started = time.perf_counter()
        ray.get([remote(str(source), f"{folder}/{copy}", coordinator) for copy in (1, 2)])
        both = time.perf_counter() - started
    print(f"transfer  {FILE / MEGABYTE / alone:,.0f} MB/s to one node, {2 * FILE / MEGABYTE / both:,.0f} MB/s to two")


def driver(_: argparse.Namespace) -> None:
    with ray_here() as (ray, seconds):
        print(f"driver    Ray starts in {seconds:.1f} s; {task_seconds(ray, 40):.3f} s for each task of the driver")
        print(f"driver    {process_seconds(ray):.1f} s to start the process of a task, on one core")


def task_seconds(ray: object, count: int) -> float:
    """Seconds of the driver for a task that returns 10 MB, which it writes to a file, as it does a checkpoint."""
    from podium.files import write_file

    task = ray.remote(num_cpus=1)(lambda: os.urandom(CHECKPOINT))
    ray.get(task.remote())  # starts a process
    with tempfile.TemporaryDirectory() as folder:
        started, waiting = time.perf_counter(), [task.remote() for _ in range(count)]
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=1.0)
            for reference in ready:
                write_file(Path(folder, "checkpoint"), ray.get(reference))
        return (time.perf_counter() - started) / count


def process_seconds(ray: object) -> float:
    """Seconds of a core to start and end the process of a task that does nothing."""
    cores = len(os.sched_getaffinity(0))
    task = ray.remote(num_cpus=1, max_calls=1)(lambda: None)
    started = time.perf_counter()
    ray.get([task.remote() for _ in range(6 * cores)])
    return (time.perf_counter() - started) / 6


def schedule(options: argparse.Namespace) -> None:
    from podium.plan.runs import longest_first
    from podium.plan.simulate import Machines, Task, simulate
    from podium.workspace import open_workspace

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        project = Path(folder)
        run(project, sys.executable, "-m", "podium", "init")
        settings = project / "competitions" / "digits"
        settings.mkdir(parents=True)
        (settings / "competition.toml").write_text(SETTINGS)
        for epochs in options.epochs:
            (settings / f"net{epochs}.toml").write_text(RECIPE.format(epochs=epochs))
        run(project, "make", "prepare")
        names = [run.run for run in longest_first(open_workspace("digits", project).runs)]
        walls = {name: run(project, sys.executable, "-m", "podium", "train", name) for name in names}
        alone = seconds_of_runs(project)
        start = statistics.fmean(walls[name] - alone[name] for name in names)
        seconds = ", ".join(f"{alone[name]:.0f}" for name in names)
        print(
            f"schedule  one after the other: {seconds} s, and {start:.1f} s to start each: {sum(walls.values()):.0f} s"
        )
        forget_runs(project)
        before = run(project, "make", "check-recipes")
        with ray_here() as (ray, ray_starts):
            by_ray = Machines(devices=cores, driver=task_seconds(ray, 40), start=start + process_seconds(ray))
        for engine, machines, first in (
            ("", Machines(devices=cores, start=start), before),
            ("ray", by_ray, before + start + ray_starts),
        ):
            measured = run(project, "make", "train", f"-j{cores}", *([f"ENGINE={engine}"] if engine else []))
            both = [
                first + simulate([Task(times[name]) for name in names], machines).seconds
                for times in (alone, seconds_of_runs(project))
            ]
            errors = " and ".join(f"{predicted:.0f} s ({predicted / measured - 1:+.1%})" for predicted in both)
            print(f"schedule  by {engine or 'make'}: predicted {errors}, measured {measured:.0f} s")
            forget_runs(project)


def seconds_of_runs(project: Path) -> dict[str, float]:
    from podium.workspace import open_workspace

    return {run.run: run.about["seconds"] for run in open_workspace("digits", project).runs}


def recorded(_: argparse.Namespace) -> None:
    from dataclasses import replace

    from podium.plan.runs import longest_first, read_plan
    from podium.plan.simulate import Machines, Task, simulate

    for name, measured in RECORDED.items():
        runs = read_plan(name, ROOT).runs
        order = [run.run for run in longest_first([replace(run, about=None) for run in runs])]
        seconds = {run.run: run.about["seconds"] for run in runs}
        predicted = simulate([Task(seconds[run]) for run in order], Machines(devices=2, start=START)).seconds
        text = f"predicted {predicted:,.0f} s, measured {measured:,} s ({predicted / measured - 1:+.1%})"
        print(f"recorded  {name}: {len(order)} runs, {sum(seconds.values()):,.0f} s in all: {text}")


def failures(_: argparse.Namespace) -> None:
    from podium.plan.simulate import Machines, Task, simulate

    print("failures  of a node a day, checkpoints: hours, busy, tasks lost, seconds of the simulation")
    for rate in (0.0, 0.004, 1.0, 24.0):
        for minutes in (5.0, math.inf):
            machines = Machines(
                nodes=1000,
                devices=8,
                driver=0.04,
                start=START,
                stragglers=0.05,
                failures=rate / 86_400,
                repair=600,
                checkpoint=60 * minutes,
            )
            started = time.perf_counter()
            outcome = simulate([Task(3600.0)] * 16_000, machines)
            seconds, every = time.perf_counter() - started, "none" if minutes == math.inf else f"{minutes:.0f} min"
            result = f"{outcome.seconds / 3600:.2f} h, {outcome.busy:.1%}, {outcome.lost:,}, {seconds:.1f} s"
            print(f"failures  {rate:g}, {every}: {result}")


def run(folder: Path, *command: str) -> float:
    """Run a command of the project; returns its seconds. Its locks of cores are not those of other projects."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    kept = {name: text for name, text in os.environ.items() if name not in ("MAKEFLAGS", "PODIUM_CACHE")}
    environment = kept | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary), "RAY_TMPDIR": str(folder)}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def forget_runs(project: Path) -> None:
    shutil.rmtree(project / "oof")
    shutil.rmtree(project / ".cache" / "digits" / "checkpoints", ignore_errors=True)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    function.__name__: function for function in (decode, transfer, driver, schedule, recorded, failures)
}

if __name__ == "__main__":
    main()
