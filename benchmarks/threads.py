"""Two threads on a busy machine: how OpenMP's threads should wait for each other.

    python benchmarks/threads.py [--pixels 32] [--architecture resnet34] [--rounds 3] [--seconds 10] [--preload FILE]

Trains with as many threads as cores, for so many seconds of the clock, alone and beside a busy process on every core,
with each setting of GNU's OpenMP (libgomp, which torch's CPU builds for Linux use), each in a process of its own and in
turn; with LLVM's OpenMP where `--preload` names its library (`libiomp5.so` of the package intel-openmp); and as many
runs of one thread side by side, as `make train` does. Prints the medians of the rounds: images per
second of all runs, and CPU seconds a thousand images, in which spinning counts. A checksum of the losses of the first
steps shows that no setting changes a bit.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
ONE_THREAD = "one thread each, as many runs as cores"
BATCH, CLASSES, CHECKED_STEPS = 64, 10, 3


def train(architecture: str, pixels: int, seconds: float, threads: int) -> None:
    """Print images per second, CPU seconds a thousand images, and a checksum of the first losses."""
    import torch

    from podium.config.keys import Recipe
    from podium.training.networks.architectures import build_network

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    recipe = Recipe(architecture=architecture, stem="small", epochs=1, learning_rate=0.1, stored_pixels=pixels)
    network = build_network(recipe, CLASSES, root=Path(), seed=0, device=torch.device("cpu"))
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    images = torch.randn(BATCH, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
    labels, losses = torch.randint(0, CLASSES, (BATCH,)), []

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss))

    for _ in range(CHECKED_STEPS):
        step()
    checksum = zlib.crc32(repr(losses).encode())
    started, cpu_started, steps = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    elapsed, cpu, trained = time.perf_counter() - started, time.process_time() - cpu_started, steps * BATCH
    print(trained / elapsed, 1000 * cpu / trained, checksum)


@contextmanager
def busy_cores(count: int):
    """Other work: `count` processes that never wait."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def measure(command: Sequence[str], environment: Mapping[str, str], runs: int) -> tuple[float, float, float]:
    """Images per second of `runs` processes together, their mean CPU seconds a thousand images, one's checksum."""
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(runs)]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    speeds, costs, checksums = zip(*([float(number) for number in output.split()] for output in outputs), strict=True)
    return sum(speeds), statistics.fmean(costs), checksums[0]


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pixels", type=int, default=32)
    arguments.add_argument("--architecture", default="resnet34")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--preload", metavar="FILE", help="LLVM's OpenMP, for rows of its own")
    arguments.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        train(options.architecture, options.pixels, options.seconds, options.child)
        return
    cores = len(os.sched_getaffinity(0))
    settings = SETTINGS | {ONE_THREAD: {}}
    if options.preload:
        preloaded = {"LD_PRELOAD": str(Path(options.preload).resolve(strict=True))}
        settings["LLVM's default"] = preloaded
        settings["LLVM's, KMP_BLOCKTIME=0"] = preloaded | {"KMP_BLOCKTIME": "0"}
    measured: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    for _ in range(options.rounds):
        for others in (0, cores):
            for name, setting in settings.items():
                runs = cores if name == ONE_THREAD else 1
                command = [sys.executable, "-W", "ignore", __file__, "--child", str(cores // runs)]
                command += ["--pixels", str(options.pixels), "--architecture", options.architecture]
                command += ["--seconds", str(options.seconds)]
                with busy_cores(others):
                    row = measure(command, own | setting, runs)
                measured.setdefault((name, others), []).append(row)
    print(f"{options.architecture}, {options.pixels} pixels, {cores} threads, load {os.getloadavg()[0]:.1f}\n")
    print("| setting | alone: images/s | CPU s for 1,000 | beside other work: images/s | CPU s for 1,000 |")
    print("| --- | --- | --- | --- | --- |")
    for name in settings:
        cells = [
            f"{statistics.median(column):.{digits}f}"
            for others in (0, cores)
            for column, digits in zip(list(zip(*measured[name, others], strict=True))[:2], (0, 1), strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    checksums = {row[2] for (name, _), rows in measured.items() for row in rows if name != ONE_THREAD}
    print(f"\nThe first losses are {'equal' if len(checksums) == 1 else 'NOT equal'} to the last bit.")


if __name__ == "__main__":
    main()
