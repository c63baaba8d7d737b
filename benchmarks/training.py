"""Images a second in training and inference: Podium beside stock fastai and a plain PyTorch loop, and what limits it.

    python benchmarks/training.py [--architectures resnet34 fastnet] [--images 192] [--batch 64] [--repeats 3]

The three train the same network from nothing, in equal batches (the recipe's size; on a CPU 64, but for the fastnet),
with as many threads as there are cores: in turn, `--repeats` times, so that what else the machine does meets all of
them; a ratio is the median of the turns' ratios. Stock fastai and the plain loop are written as their documentation
writes them: PNG files, a worker process a core, float32, contiguous memory; fastai with its Adam, the loop with SGD.
Podium is its `Learner` with the recipe, at its full side. Every one flips and shifts; only Podium also cuts out, where
the recipe says so.

A step is timed from the end of the one before, after a warm-up, and there are more images than are timed: starting
workers costs the others nothing, and they read ahead as in the middle of an epoch.
"""

import argparse
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from podium.config.keys import Recipe
from podium.config.recipe import read_recipe
from podium.data.cache import Dataset, open_images
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, PixelStore
from podium.training.device import cpu_threads, device_name, pick_device
from podium.training.inference import evaluation_batches, predict_logits
from podium.training.learner import Learner, prepare_network
from podium.training.losses import Loss
from podium.training.networks.architectures import IMAGENET, Network, build_network
from podium.training.networks.fastnet import FastNetBody
from podium.training.progress import Listener, ProgressRecorder
from podium.workspace import open_workspace

ROOT = Path(__file__).parents[1]
# Which competition's folder holds the recipe that is timed.
RECIPES = dict.fromkeys(("vgg19", "resnet34", "densenet121", "efficientnet_b0"), "cifar10-nine") | {
    "fastnet": "cifar10-scratch"
}
CORES = len(os.sched_getaffinity(0))
# In each turn: images that are timed, and steps before them.
TIMED_IMAGES, WARM_UP_STEPS = {"cpu": 192, "cuda": 20_000}, {"cpu": 1, "cuda": 10}
# Images of a step on a CPU, but for the fastnet: 256 may take densenet121 a minute.
CPU_BATCH = 64
PRECISIONS = (torch.bfloat16, torch.float32)
PARTS = ("data", "forward", "backward", "optimiser")
SHIFT_PIXELS = 4


class Clock:
    """Times the steps after the warm-up."""

    def __init__(self, device: torch.device, *, batch: int, images: int):
        self.device, self.batch, self.warm_up = device, batch, WARM_UP_STEPS[device.type]
        self.steps = max(2, round(images / batch))
        self.rows = np.arange(batch * (self.warm_up + self.steps))
        self.done, self.running, self.seconds = 0, False, 0.0

    @property
    def images_per_second(self) -> float:
        return self.batch * self.steps / self.seconds

    def tick(self) -> bool:
        """Count one step; True when all steps to be timed are done."""
        self.done += 1
        if self.done == self.warm_up:
            self.started, self.running = self.now(), True
        elif self.done == self.warm_up + self.steps:
            self.seconds, self.running = self.now() - self.started, False
        return self.done >= self.warm_up + self.steps

    def now(self) -> float:
        """Seconds, after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True)
class Setup:
    """One architecture on its images, in memory and as files in class folders."""

    recipe: Recipe
    dataset: Dataset
    folder: Path
    device: torch.device
    images: int  # timed in each turn

    @cached_property
    def store(self) -> PixelStore:
        return PixelStore(self.dataset.train_images, self.device)

    def clock(self) -> Clock:
        return Clock(self.device, batch=self.recipe.batch_size, images=self.images)

    def network(self) -> Network:
        """The recipe's network as torch makes one: contiguous in memory."""
        network = build_network(self.recipe, len(self.dataset.lock.classes), root=ROOT, seed=1, weights=False)
        network.to(self.device, memory_format=torch.contiguous_format)
        if isinstance(network.body, FastNetBody):
            network.normalisation = IMAGENET
            network.body.whiten(torch.cat(list(evaluation_batches(network, self.store, np.arange(1000)))))
        return network

    def write_files(self) -> None:
        """As many PNG files as the timed steps need, and as the workers read ahead of them."""
        clock = self.clock()
        count = len(clock.rows) + (2 * CORES + 3) * clock.batch
        if count > len(self.dataset.lock.train_ids):
            raise SystemExit(f"--images: {count:,} images are needed, there are {len(self.dataset.lock.train_ids):,}.")
        for place in range(count):
            name = self.dataset.lock.classes[self.dataset.lock.train_labels[place]]
            file = self.folder / name / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                Image.fromarray(np.asarray(self.dataset.train_images[place])).save(file)


class StopFastai(Callback):
    """Counts batches, and ends the fit or the inference after the last timed one."""

    order = 100

    def __init__(self, clock: Clock, stop: type[Exception]):
        self.clock, self.stop = clock, stop

    def after_batch(self) -> None:
        if self.clock.tick():
            raise self.stop


def stock_learner(
    folder: Path,
    network: nn.Module,
    *,
    splitter: Callable,
    item_tfms: list,
    batch: int,
    device: torch.device,
    **loading,
) -> Any:
    """What fastai's documentation writes, on image files in class folders: flips, its Adam, float32."""
    from fastai.vision import all as fastai

    block = fastai.DataBlock(
        blocks=(fastai.ImageBlock, fastai.CategoryBlock),
        get_items=fastai.get_image_files,
        get_y=fastai.parent_label,
        splitter=splitter,
        item_tfms=item_tfms,
        batch_tfms=[fastai.Flip(), fastai.Normalize.from_stats(*fastai.imagenet_stats)],
    )
    dls = block.dataloaders(folder, bs=batch, device=device, **loading)
    return fastai.Learner(dls, network, loss_func=fastai.CrossEntropyLossFlat(), metrics=fastai.accuracy)


def stock_fastai(setup: Setup) -> tuple[float, float]:
    from fastai.vision import all as fastai

    side = setup.recipe.network_pixels
    learner = stock_learner(
        setup.folder,
        setup.network(),
        splitter=fastai.RandomSplitter(valid_pct=0.01, seed=1),
        item_tfms=[fastai.CropPad(side + 2 * SHIFT_PIXELS), fastai.RandomCrop(side)],
        batch=setup.recipe.batch_size,
        device=setup.device,
    )
    training, inference = setup.clock(), setup.clock()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(1, cbs=StopFastai(training, CancelFitException))
        loader = learner.dls.test_dl(fastai.get_image_files(setup.folder), bs=inference.batch)
        learner.get_preds(dl=loader, reorder=False, cbs=StopFastai(inference, CancelValidException))
    return training.images_per_second, inference.images_per_second


def plain_loop(setup: Setup) -> tuple[float, float]:
    network = setup.network()
    training, inference = setup.clock(), setup.clock()
    criterion = nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    network.train()
    for images, labels in plain_batches(setup, training, augmented=True):
        loss = criterion(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if training.tick():
            break
    network.eval()
    with torch.no_grad():
        for images, labels in plain_batches(setup, inference, augmented=False):
            (network(images).argmax(1) == labels).sum().item()
            if inference.tick():
                break
    return training.images_per_second, inference.images_per_second


def plain_batches(setup: Setup, clock: Clock, *, augmented: bool) -> Iterator[list[torch.Tensor]]:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    moves = [
        transforms.RandomHorizontalFlip(),
        transforms.RandomCrop(setup.recipe.network_pixels, padding=SHIFT_PIXELS),
    ]
    change = transforms.Compose(
        [*(moves if augmented else []), transforms.ToTensor(), transforms.Normalize(IMAGENET.mean, IMAGENET.deviation)]
    )
    loader = torch.utils.data.DataLoader(
        ImageFolder(setup.folder, change),
        batch_size=clock.batch,
        shuffle=augmented,
        num_workers=CORES,
        pin_memory=setup.device.type == "cuda",
    )
    for batch in loader:
        yield [part.to(setup.device, non_blocking=True) for part in batch]


class StopPodium(Listener):
    """Counts steps, and raises CancelFitException after the last timed one."""

    def __init__(self, clock: Clock):
        self.clock = clock

    def step(self, share_done: float, images_per_second: float) -> None:
        if self.clock.tick():
            raise CancelFitException


def fit_podium(setup: Setup, clock: Clock) -> Network:
    rows, dataset, recipe = clock.rows, setup.dataset, setup.recipe
    data = FitData(setup.store, dataset.lock.train_labels, len(dataset.lock.classes), rows, rows[:0], seed=1)
    progress = ProgressRecorder(StopPodium(clock), images=len(rows) * recipe.epochs)
    network = prepare_network(recipe, data, root=ROOT)
    with suppress(CancelFitException):
        Learner(network, data).train(progress)
    return network


def podium(setup: Setup) -> tuple[float, float]:
    training, inference = setup.clock(), setup.clock()
    network = fit_podium(setup, training)

    def ticking() -> Iterator[torch.Tensor]:
        for images in evaluation_batches(network, setup.store, inference.rows, batch_size=inference.batch):
            yield images
            inference.tick()

    predict_logits(network, ticking(), views="none")
    return training.images_per_second, inference.images_per_second


# By architecture: what was timed, and what `compare` measured.
Results = dict[str, tuple[Setup, dict[str, Any]]]
VARIANTS = {"stock fastai": stock_fastai, "plain loop": plain_loop, "Podium": podium}


class Parts:
    """Seconds of each part of the steps of Podium's Learner."""

    def __init__(self, clock: Clock):
        self.clock, self.seconds = clock, dict.fromkeys(PARTS, 0.0)

    def timed(self, name: str, work: Callable) -> Callable:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self.clock.running:
                return work(*args, **kwargs)
            started = self.clock.now()
            result = work(*args, **kwargs)
            self.seconds[name] += self.clock.now() - started
            return result

        return wrapper

    @contextmanager
    def watching(self) -> Iterator[None]:
        serve = TrainingLoader.__iter__
        pieces = [
            (
                TrainingLoader,
                "__iter__",
                lambda loader: iter(self.timed("data", partial(next, serve(loader), None)), None),
            ),
            (Network, "forward", self.timed("forward", Network.forward)),
            (Loss, "__call__", self.timed("forward", Loss.__call__)),
            (torch.Tensor, "backward", self.timed("backward", torch.Tensor.backward)),
            (Learner, "update", self.timed("optimiser", Learner.update)),
        ]
        with ExitStack() as stack:
            for owner, method, timed in pieces:
                stack.enter_context(patch.object(owner, method, timed, create=True))
            yield


def measure_parts(setup: Setup) -> tuple[dict[str, float], torch.dtype]:
    """Shares of a step, the rest being the loop's own; and the precision that was picked."""
    clock = setup.clock()
    parts = Parts(clock)
    with parts.watching():
        network = fit_podium(setup, clock)
    shares = {name: spent / clock.seconds for name, spent in parts.seconds.items()}
    return shares | {"loop": 1 - sum(shares.values())}, network.precision


def count_flops(setup: Setup, *, images: int = 4) -> float:
    """Floating-point operations of a training step an image: forward and backward, two to a multiplication."""

    def backward(grad, inputs, filters, *others, out_shape=None, **named) -> int:
        # torch's own formula takes a depthwise convolution for a dense one.
        return conv_flop_count(inputs, filters, grad) * sum(others[-1][:2])

    side = setup.recipe.network_pixels
    network, batch = setup.network(), torch.rand(images, 3, side, side, device=setup.device)
    labels = torch.zeros(images, dtype=torch.int64, device=setup.device)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: backward}) as counter:
        cross_entropy(network(batch), labels).backward()
    return counter.get_total_flops() / images


def matrix_rate(device: torch.device, precision: torch.dtype, *, turns: int = 8) -> float:
    """Floating-point operations a second of the product of two square matrices, the best of a few."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.rand(side, side, device=device).to(precision) for _ in range(2))
    clock, times = Clock(device, batch=1, images=1), []
    for _ in range(turns):
        started = clock.now()
        torch.mm(left, right)
        times.append(clock.now() - started)
    return 2 * side**3 / min(times)


def compare(setup: Setup, repeats: int) -> dict[str, Any]:
    """Everything about one architecture: speeds a variant, shares of a step a part, matrix rates a precision."""
    measured: dict[str, Any] = {name: [] for name in VARIANTS}
    shares, rates = [], []
    for turn in range(1, repeats + 1):
        for name, run in VARIANTS.items() if turn % 2 else reversed(VARIANTS.items()):
            training, inference = run(setup)
            measured[name].append((training, inference))
            print_now(f"  turn {turn}: {name:<12} training {training:9,.1f}, inference {inference:9,.1f} images/s")
        parts, measured["precision"] = measure_parts(setup)
        shares.append(parts.values())
        rates.append([matrix_rate(setup.device, precision) for precision in PRECISIONS])
        print_now(f"  turn {turn}: " + ", ".join(f"{name} {share:.1%}" for name, share in parts.items()))
    best = dict(zip(PRECISIONS, map(max, zip(*rates, strict=True)), strict=True))
    return measured | {"shares": list(zip(*shares, strict=True)), "rates": best}


def print_now(text: str = "") -> None:
    print(text, flush=True)


def table(title: str, *rows: Iterable[str]) -> None:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    print_now("\n".join(["", f"## {title}", "", head, re.sub(r"[^|]+", " --- ", head), *body]))


def print_speeds(title: str, results: Results, *, place: int) -> None:
    rows = []
    for name, (setup, measured) in results.items():
        speeds = {variant: [pair[place] for pair in measured[variant]] for variant in VARIANTS}
        cells = [f"{median(speed):,.1f} ({min(speed):,.1f} to {max(speed):,.1f})" for speed in speeds.values()]
        *other_speeds, podium_speeds = speeds.values()
        ratios = [
            median(ours / theirs for ours, theirs in zip(podium_speeds, speeds, strict=True)) for speeds in other_speeds
        ]
        rows.append([name, str(setup.recipe.batch_size), *cells, *(f"{ratio:.2f}x" for ratio in ratios)])
    table(title, ["architecture", "batch", *VARIANTS, "Podium / stock fastai", "Podium / plain loop"], *rows)


def print_parts(title: str, results: Results) -> None:
    rows = []
    for name, (_, measured) in results.items():
        shares = [*measured["shares"], [data + own for data, *_, own in zip(*measured["shares"], strict=True)]]
        rows.append([name, *(f"{median(share):.1%}" for share in shares)])
    table(title, ["architecture", *PARTS, "loop", "data + loop"], *rows)


def print_floor(title: str, results: Results) -> None:
    rows = []
    for name, (setup, measured) in results.items():
        flops, rates, precision = count_flops(setup), measured["rates"], measured["precision"]
        floor = 1000 * setup.recipe.batch_size * flops / rates[precision]
        step = 1000 * setup.recipe.batch_size / median(training for training, _ in measured["Podium"])
        cells = [str(precision).removeprefix("torch."), *(f"{rate / 1e12:,.3f}" for rate in rates.values())]
        rows.append([name, f"{flops / 1e9:.2f}", *cells, f"{floor:,.1f}", f"{step:,.1f}", f"{floor / step:.0%}"])
    head = ["precision", *(f"{str(precision).removeprefix('torch.')} TFLOP/s" for precision in PRECISIONS)]
    table(title, ["architecture", "GFLOP an image", *head, "floor, ms a step", "Podium, ms a step", "reached"], *rows)


def print_results(results: Results) -> None:
    print_speeds("Training, images/s: median (least to most). Aim: at least 2x stock fastai", results, place=0)
    print_speeds("Inference, images/s, one view of each image", results, place=1)
    print_parts("Where Podium's step goes. Aim: data + loop below 5 %", results)
    print_floor("The floor: a step's convolutions and matrix products at the rate of square matrices here", results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--competition", default="cifar10", help="whose images")
    parser.add_argument("--architectures", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--images", type=int, help="timed in each turn, at least two steps; 192, on a GPU 20,000")
    parser.add_argument("--batch", type=int, help="images of a step; the recipe's, on a CPU 64 (but for fastnet)")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    device = pick_device()
    images = arguments.images or TIMED_IMAGES[device.type]
    print_now(f"{machine(device)}\nload average before: {load()}")
    results = {}
    with tempfile.TemporaryDirectory() as scratch, cpu_threads(CORES):
        for name in arguments.architectures:
            recipe = read_recipe(ROOT / "competitions" / RECIPES[name] / f"{name}.toml")
            batch = arguments.batch or (CPU_BATCH if device.type == "cpu" and name != "fastnet" else recipe.batch_size)
            recipe = replace(recipe, batch_size=batch, progressive_pixels=())
            setup = prepare(recipe, arguments.competition, folder=Path(scratch), device=device, images=images)
            print_now(f"{name}: {setup.clock().steps} timed steps of {setup.recipe.batch_size} images in each turn")
            results[name] = setup, compare(setup, arguments.repeats)
        print_results(results)
    print_now(f"\nload average after: {load()} (this benchmark among it); medians of {arguments.repeats} turns")


def prepare(recipe: Recipe, competition: str, *, folder: Path, device: torch.device, images: int) -> Setup:
    workspace = open_workspace(competition, ROOT)
    dataset = open_images(workspace.paths, workspace.lock, pixels=recipe.stored_pixels, shape=recipe.shape)
    setup = Setup(recipe, dataset, folder / f"{recipe.stored_pixels}-{recipe.shape}", device, images)
    setup.write_files()
    return setup


def machine(device: torch.device) -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.+)", text)
    cpu = model[1] if model else platform.processor()
    return f"{cpu}, {CORES} cores, {CORES} threads; {device_name(device)}; torch {torch.__version__}"


def load() -> str:
    return " ".join(f"{minutes:.2f}" for minutes in os.getloadavg())


if __name__ == "__main__":
    main()
