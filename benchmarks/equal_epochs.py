"""Accuracy at equal epochs: Podium beside stock fastai, the same network from the same start on the same rows.

    python benchmarks/equal_epochs.py [--architectures vgg19 ...] [--rows 2000] [--epochs 4] [--seeds 2]

Both learn by AdamW and one-cycle with fastai's own defaults (rate 0.001, decay 0.01, momentum 0.95 to 0.85), in batches
of 64, with mirrored images. Stock fastai is written as its documentation writes it: DataBlock on PNG files, its Adam,
float32, ImageNet's mean and deviation. Podium is `fit_network` with a recipe that says the same, in the precision that
it picks. Every network is judged on 4,000 other training rows, once: the validation rows are not used.

As many networks train side by side as there are cores, each on one thread, stock fastai without workers. Standard
errors are over the rows, of the seeds' mean hits: the spread of the seeds is printed beside them.
"""

import argparse
import os
import tempfile
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback, CancelValidException
from fastnet import split
from PIL import Image

from podium.config.keys import Augment, Recipe
from podium.data.cache import Dataset, open_images
from podium.metrics import log_losses, softmax
from podium.seeding import stream_seed
from podium.training.batches.stores import FitData, PixelStore
from podium.training.inference import logits_of
from podium.training.learner import fit_network
from podium.training.networks.architectures import build_network
from podium.training.progress import Listener, ProgressRecorder
from podium.workspace import open_workspace
from training import ROOT, machine, stock_learner

COMPETITION = "cifar10"
CPU = torch.device("cpu")
# From the quickest to the slowest.
ARCHITECTURES = ("efficientnet_b0", "vgg19", "resnet34", "densenet121")


@dataclass(frozen=True)
class Trial:
    """The results of one network on the evaluation rows."""

    hits: np.ndarray  # (4000,), 0 or 1
    losses: np.ndarray  # (4000,): their mean is the log loss
    seconds: float  # of CPU, to train
    precision: str


@dataclass(frozen=True)
class Task:
    """One network to train: by whom, and from which start."""

    variant: str
    seed: int
    recipe: Recipe
    rows: int
    folder: Path  # of the same rows as PNG files

    def data(self) -> tuple[Dataset, np.ndarray, np.ndarray]:
        return prepare(self.recipe, self.rows)


def prepare(recipe: Recipe, rows: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The images, the rows to learn from and the rows that judge."""
    workspace = open_workspace(COMPETITION, ROOT)
    lock = workspace.lock
    dataset = open_images(workspace.paths, lock, pixels=recipe.stored_pixels, shape=recipe.shape)
    return dataset, *split(lock.train_labels, lock.folds, rows)


def write_files(folder: Path, recipe: Recipe, rows: int) -> None:
    """The rows as PNG files: train/<class>/<row>.png and valid/<class>/<row>.png."""
    dataset, training, judged = prepare(recipe, rows)
    for part, part_rows in (("train", training), ("valid", judged)):
        for row in part_rows:
            file = folder / part / dataset.lock.classes[dataset.lock.train_labels[row]] / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(dataset.train_images[row])).save(file)


class NoValidation(Callback):
    """Spends no time on the rows that judge before the end."""

    def before_validate(self) -> None:
        raise CancelValidException


def stock_fastai(task: Task) -> tuple[np.ndarray, float, str]:
    """Logits (4000, classes) of the rows that judge, in their order; seconds and precision."""
    from fastai.vision import all as fastai

    recipe, dataset = task.recipe, task.data()[0]
    fastai.set_seed(task.seed)
    network = build_network(
        recipe, len(dataset.lock.classes), root=ROOT, seed=stream_seed(task.seed, "network"), weights=False
    ).to(memory_format=torch.contiguous_format)
    learner = stock_learner(
        task.folder,
        network,
        splitter=fastai.GrandparentSplitter(),
        item_tfms=[],
        batch=recipe.batch_size,
        device=CPU,
        num_workers=0,
    )
    with learner.no_bar(), learner.no_logging():
        started = time.process_time()
        learner.fit_one_cycle(recipe.epochs, recipe.learning_rate, wd=recipe.weight_decay, cbs=NoValidation())
        seconds = time.process_time() - started
        logits, _ = learner.get_preds(act=fastai.noop)
    assert list(learner.dls.vocab) == list(dataset.lock.classes), "both number the classes alike"
    rows = [int(file.stem) for file in learner.dls.valid_ds.items]
    return logits.numpy()[np.argsort(rows)], seconds, "float32"


def podium(task: Task) -> tuple[np.ndarray, float, str]:
    """Logits (4000, classes) of the rows that judge, in their order; seconds and precision."""
    recipe, (dataset, training, judged) = task.recipe, task.data()
    store = PixelStore(dataset.train_images, CPU)
    data = FitData(store, dataset.lock.train_labels, len(dataset.lock.classes), training, judged[:0], seed=task.seed)
    progress = ProgressRecorder(Listener(), images=len(training) * recipe.epochs)
    started = time.process_time()
    network = fit_network(recipe, data, root=ROOT, progress=progress)
    seconds = time.process_time() - started
    return logits_of(network, store, judged), seconds, str(network.precision).removeprefix("torch.")


VARIANTS = {"stock fastai": stock_fastai, "Podium": podium}


def judge(task: Task) -> Trial:
    """Train and judge one network on one thread."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dataset, _, judged = task.data()
    labels = dataset.lock.train_labels[judged]
    logits, seconds, precision = VARIANTS[task.variant](task)
    return Trial(logits.argmax(axis=1) == labels, log_losses(softmax(logits), labels), seconds, precision)


def change(stock: list[np.ndarray], ours: list[np.ndarray], *, digits: int) -> tuple[str, str]:
    """The mean difference over rows with its standard error, and the difference of each seed."""
    rows = np.mean(ours, axis=0) - np.mean(stock, axis=0)
    seeds = [mine.mean() - theirs.mean() for theirs, mine in zip(stock, ours, strict=True)]
    error = rows.std() / len(rows) ** 0.5
    return f"{rows.mean():+.{digits}f} ± {error:.{digits}f}", ", ".join(f"{seed:+.{digits}f}" for seed in seeds)


def row(name: str, trials: dict[str, list[Trial]]) -> list[str]:
    stock, ours = trials.values()
    points = [[100.0 * trial.hits for trial in trials_of_variant] for trials_of_variant in (stock, ours)]
    losses = [[trial.losses for trial in trials_of_variant] for trials_of_variant in (stock, ours)]
    seconds = [np.mean([trial.seconds for trial in trials_of_variant]) for trials_of_variant in (stock, ours)]
    return [
        f"{name} ({ours[0].precision})",
        *(f"{np.mean(variant):.2f}" for variant in points),
        *change(*points, digits=2),
        *(f"{np.mean(variant):.4f}" for variant in losses),
        *change(*losses, digits=4),
        *(f"{mean:.0f}" for mean in seconds),
        f"{seconds[0] / seconds[1]:.2f}x",
    ]


HEAD = [
    "architecture (Podium's precision)",
    *(f"{name}: accuracy, %" for name in VARIANTS),
    "difference, points",
    "by seed",
    *(f"{name}: log loss" for name in VARIANTS),
    "difference",
    "by seed",
    *(f"{name}: CPU seconds" for name in VARIANTS),
    "faster",
]


def main() -> None:
    """Train every architecture both ways with every seed; print each line of the table as soon as it is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--precision", default="auto", help="Podium's; stock fastai's is float32")
    arguments = parser.parse_args()
    print(
        f"{machine(CPU)}\n{arguments.epochs} epochs of {arguments.rows:,} rows, {arguments.seeds} seeds\n", flush=True
    )
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
    ):
        recipes = {name: make_recipe(name, arguments) for name in arguments.architectures}
        write_files(Path(scratch), next(iter(recipes.values())), arguments.rows)
        task = partial(Task, rows=arguments.rows, folder=Path(scratch))
        waiting: dict[str, dict[str, list[Future]]] = {
            name: {
                variant: [
                    pool.submit(judge, task(variant=variant, seed=seed, recipe=recipe))
                    for seed in range(1, arguments.seeds + 1)
                ]
                for variant in VARIANTS
            }
            for name, recipe in recipes.items()
        }
        for name, variants in waiting.items():
            trials = {variant: [future.result() for future in futures] for variant, futures in variants.items()}
            print(f"| {' | '.join(row(name, trials))} |", flush=True)


def make_recipe(name: str, arguments: argparse.Namespace) -> Recipe:
    return Recipe(
        architecture=name,
        stem="small",
        epochs=arguments.epochs,
        batch_size=64,
        learning_rate=arguments.learning_rate,
        momentum=0.95,
        precision=arguments.precision,
        augment=Augment(flip="horizontal"),
    )


if __name__ == "__main__":
    main()
