"""Depthwise networks on a CPU in bfloat16: Podium's gradients and memory settings, beside torch's own.

    python benchmarks/depthwise.py [--pixels 128] [--architecture timm:tf_efficientnet_lite0] [--rounds 5]

Times a training step of 64 images and a prediction, on one thread, each in a process of its own and in turn, and
prints the medians of the rounds as images/s: torch in float32, torch under bfloat16 autocast, Podium's depthwise
gradients, and these in a process that keeps its freed memory.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch

from podium.config.keys import Recipe
from podium.training.device import keep_freed_memory
from podium.training.networks import architectures
from podium.training.networks.architectures import Network, build_network

BATCH, CLASSES = 64, 10
VARIANTS = ("torch, float32", "torch, bfloat16", "fast gradients", "fast gradients, memory kept")


def build(architecture: str, pixels: int, variant: str) -> Network:
    """The network of a variant, with random parameters."""
    recipe = Recipe(architecture=architecture, epochs=1, learning_rate=0.1, stored_pixels=pixels)
    with patch.object(architectures, "speed_up", lambda *arguments: None):
        network = build_network(recipe, CLASSES, root=Path(), seed=0)
    if variant.startswith("fast"):
        architectures.speed_up(network.body, [], torch.zeros(2, 3, pixels, pixels))
    network.precision = torch.float32 if variant.endswith("float32") else torch.bfloat16
    return network


def measure(architecture: str, pixels: int, variant: str) -> tuple[float, float]:
    """Seconds of a training step, and of a prediction, of one batch: the better of two after a first one."""
    torch.set_num_threads(1)
    if variant.endswith("kept"):
        keep_freed_memory()
    network = build(architecture, pixels, variant)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    images = torch.randn(BATCH, 3, pixels, pixels).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH,))

    def step() -> None:
        torch.nn.functional.cross_entropy(network.train()(images), labels).backward()
        optimiser.step()
        optimiser.zero_grad()

    def predict() -> None:
        with torch.inference_mode():
            network.eval()(images)

    return best_seconds(step), best_seconds(predict)


def best_seconds(function) -> float:
    """The shorter of two calls after a first one."""
    function()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pixels", type=int, default=128)
    arguments.add_argument("--architecture", default="timm:tf_efficientnet_lite0")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.variant:
        print(*measure(options.architecture, options.pixels, options.variant))
        return
    seconds = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant in VARIANTS:
            command = [sys.executable, "-W", "ignore", __file__, "--variant", variant]
            command += ["--pixels", str(options.pixels), "--architecture", options.architecture]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            seconds[variant].append([float(number) for number in printed.split()])
    print(f"{options.architecture}, {options.pixels} pixels, images/s of one thread, medians of {options.rounds}")
    first = None
    for variant in VARIANTS:
        step, prediction = (BATCH / statistics.median(column) for column in zip(*seconds[variant], strict=True))
        first = first or (step, prediction)
        ratios = f"{step / first[0]:4.2f}x {prediction / first[1]:4.2f}x"
        print(f"  {variant:28} training {step:5.1f}, prediction {prediction:5.1f}; {ratios}")


if __name__ == "__main__":
    main()
