"""Two threads on a busy machine: how OpenMP's threads should wait for each other.

    python benchmarks/threads.py [--pixels 32] [--architecture resnet34] [--rounds 3] [--seconds 10]

Trains with as many threads as cores, for so many seconds of the clock, alone and beside a busy process on every core,
with each setting of GNU's OpenMP (libgomp, which torch's CPU builds for Linux use), each in a process of its own and in
turn. Prints the medians of the rounds: images per second, and CPU seconds a thousand images, in which spinning counts.
A checksum of the losses of the first steps shows that the setting changes no bit.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack, contextmanager
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BATCH, CLASSES, CHECKED_STEPS = 64, 10, 3


def train(architecture: str, pixels: int, seconds: float) -> None:
    """Print images per second, CPU seconds a thousand images, and a checksum of the first losses."""
    import torch

    from podium.config.keys import Recipe
    from podium.training.networks.architectures import build_network

    torch.set_num_threads(len(os.sched_getaffinity(0)))
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


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pixels", type=int, default=32)
    arguments.add_argument("--architecture", default="resnet34")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=10)
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        train(options.architecture, options.pixels, options.seconds)
        return
    cores = len(os.sched_getaffinity(0))
    measured: dict[tuple[str, int], list[list[float]]] = {}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    for _ in range(options.rounds):
        for others in (0, cores):
            for name, setting in SETTINGS.items():
                command = [sys.executable, "-W", "ignore", __file__, "--child", "--pixels", str(options.pixels)]
                command += ["--architecture", options.architecture, "--seconds", str(options.seconds)]
                with busy_cores(others):
                    result = subprocess.run(command, env=own | setting, stdout=subprocess.PIPE, text=True, check=True)
                measured.setdefault((name, others), []).append([float(number) for number in result.stdout.split()])
    print(f"{options.architecture}, {options.pixels} pixels, {cores} threads, load {os.getloadavg()[0]:.1f}\n")
    print("| setting | alone: images/s | CPU s for 1,000 | beside other work: images/s | CPU s for 1,000 |")
    print("| --- | --- | --- | --- | --- |")
    for name in SETTINGS:
        cells = [
            f"{statistics.median(column):.{digits}f}"
            for others in (0, cores)
            for column, digits in zip(list(zip(*measured[name, others], strict=True))[:2], (0, 1), strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    checksums = {row[2] for rows in measured.values() for row in rows}
    print(f"\nThe first losses are {'equal' if len(checksums) == 1 else 'NOT equal'} to the last bit.")


if __name__ == "__main__":
    main()
