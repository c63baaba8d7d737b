"""Do two trainings agree bit for bit, as they come and in the deterministic mode, and what does that mode cost?

    python benchmarks/deterministic.py [--recipes cifar10-scratch/fastnet ...] [--rows 2000] [--epochs 2]

Each recipe trains on a part of cifar10's training rows, twice in each mode, in turn, after a short training that
warms up; its logits are of 1,000 other training rows. On a GPU: `--rows 40000`, and all five networks.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from podium.config.keys import Recipe
from podium.config.recipe import read_recipe
from podium.data.cache import Dataset, open_images
from podium.errors import TrainingError
from podium.training.batches.stores import FitData, PixelStore
from podium.training.device import cpu_threads, pick_device, repeatable
from podium.training.inference import logits_of
from podium.training.learner import fit_network
from podium.training.progress import Listener, ProgressRecorder
from podium.workspace import open_workspace
from training import RECIPES, ROOT, machine

COMPETITION, JUDGED_ROWS, WARM_UP_ROWS = "cifar10", 1_000, 512
MODES = {False: "as it comes", True: "deterministic"}
HEAD = ("recipe", "mode", "seconds", "cost", "parameters that differ", "logits that differ", "largest difference")


@dataclass(frozen=True)
class Training:
    """One training's bits and time."""

    parameters: torch.Tensor  # all of them, and the running statistics, one after the other
    logits: np.ndarray  # (JUDGED_ROWS, classes)
    seconds: float


def train(recipe: Recipe, dataset: Dataset, device: torch.device, *, rows: int) -> Training:
    """Train on the first `rows` and predict the last ones."""
    store = PixelStore(dataset.train_images, device)
    training, judged = np.arange(rows), np.arange(len(store) - JUDGED_ROWS, len(store))
    labels, classes = dataset.lock.train_labels, len(dataset.lock.classes)
    data = FitData(store, labels, classes, training, judged[:0], seed=1)
    with repeatable(recipe.deterministic, device):
        progress = ProgressRecorder(Listener(), images=rows * recipe.epochs)
        started = time.perf_counter()
        trained = fit_network(recipe, data, root=ROOT, progress=progress)
        seconds = time.perf_counter() - started
        logits = logits_of(trained, store, judged)
    tensors = [value.flatten().double().cpu() for value in trained.state_dict().values()]
    return Training(torch.cat(tensors), logits, seconds)


def compare(name: str, recipe: Recipe, dataset: Dataset, device: torch.device, *, rows: int) -> list[Sequence[str]]:
    """The lines of the table about one recipe."""
    trials: dict[bool, list[Training]] = {mode: [] for mode in MODES}
    try:
        for mode in MODES:
            train(replace(recipe, deterministic=mode, epochs=1), dataset, device, rows=WARM_UP_ROWS)
        for mode in (False, True, True, False):
            trials[mode].append(train(replace(recipe, deterministic=mode), dataset, device, rows=rows))
    except TrainingError as error:
        return [(name, "deterministic", "", "", f"{error.what} {error.found}", "", "")]
    quickest = min(trial.seconds for trial in trials[False])
    lines = []
    for mode, (first, again) in trials.items():
        seconds = min(first.seconds, again.seconds)
        parameters = int((first.parameters != again.parameters).sum())
        logits = int((first.logits != again.logits).sum())
        largest = float(np.abs(first.logits - again.logits).max())
        counts = f"{parameters:,} of {len(first.parameters):,}", f"{logits:,} of {first.logits.size:,}"
        times = f"{first.seconds:.2f}, {again.seconds:.2f}", f"{seconds / quickest:.2f}x"
        lines.append((name, MODES[mode], *times, *counts, f"{largest:.2g}"))
    plain, repeating = (trials_of_mode[0] for trials_of_mode in trials.values())
    same = np.array_equal(plain.logits, repeating.logits)
    print(f"{name}: the two modes give {'the same' if same else 'other'} logits", flush=True)
    return lines


def main() -> None:
    """Compare the modes of each recipe and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [f"{folder}/{name}" for name, folder in RECIPES.items()]
    parser.add_argument("--recipes", nargs="+", default=["cifar10-scratch/fastnet"], help=f"such as {' '.join(known)}")
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    device, lines = pick_device(), []
    print(
        f"{machine(device)}\n{arguments.epochs} epochs of {arguments.rows:,} rows; cost is of the quicker one",
        flush=True,
    )
    for name in arguments.recipes:
        recipe = replace(read_recipe(ROOT / "competitions" / f"{name}.toml"), epochs=arguments.epochs)
        workspace = open_workspace(COMPETITION, ROOT)
        dataset = open_images(workspace.paths, workspace.lock, pixels=recipe.stored_pixels, shape=recipe.shape)
        with cpu_threads(recipe.threads):
            lines += compare(name, recipe, dataset, device, rows=arguments.rows)
    print()
    for line in (HEAD, ["---"] * len(HEAD), *lines):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
