"""One network, trained once: fastai's Learner with Podium's loader, optimiser and schedule."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import LRFinder, ParamScheduler, combined_cos
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from torch import nn

from podium.config.keys import Recipe
from podium.seeding import stream_seed
from podium.training.batches.loader import (
    EvaluationLoader,
    Normalisation,
    PixelStore,
    TrainingLoader,
    measure_normalisation,
)
from podium.training.callbacks import Autocast, ParameterAverage, ProgressiveSize, RememberLosses
from podium.training.device import pick_precision
from podium.training.lr_find import Finding, finding_of
from podium.training.networks.architectures import Network, build_network
from podium.training.networks.fastnet import FastNetBody
from podium.training.optimisers import (
    AFTER_FREEZE_DIVISOR,
    END_DIVISOR,
    KINDS,
    START_DIVISOR,
    _by_kind,
    _course,
    _list_rates,
    optimiser_maker,
    split_parameters,
)
from podium.training.progress import Listener, TellSteps, Watch, WatchFit
from podium.training.rows import Material

EVALUATION_BATCH = 256
# fastai's own again: the steps of lr_find, and the rates that they run through.
FINDER_STEPS, FINDER_LOWEST, FINDER_HIGHEST = 100, 1e-7, 10.0
# Each epoch is judged on this many validation rows at most, to be followed; the run is judged on all of them.
EPOCH_ROWS = 2_000
# Images that the first layer of a fastnet is computed from.
WHITENING_ROWS = 5_000


@dataclass(frozen=True)
class Fitted:
    """A trained network and how it looks at images."""

    network: Network
    normalisation: Normalisation
    precision: torch.dtype
    learning_rate: float


def fit_network(
    recipe: Recipe, material: Material, *, seed: int, purpose: str, root: Path, watch: Watch, stage: str
) -> Fitted:
    """Train the recipe's network from `seed`; `purpose` keeps the streams of folds and refits apart."""
    device = material.store.device
    network = build_network(recipe, material.classes, root=root, seed=stream_seed(seed, f"network{purpose}"))
    network.to(device)
    normalisation = network.normalisation or measure_normalisation(material.images, material.training_rows)
    _whiten(network, recipe, material, normalisation)
    precision = pick_precision(recipe, network, device)
    rate = recipe.learning_rate
    if isinstance(rate, str):
        finding = find_learning_rate(recipe, material, normalisation=normalisation, seed=seed, root=root)
        watch.found(finding)
        rate = finding.rate
        watch.listener.note(f"lr_find suggests learning_rate = {rate:.2g}")
    images, words = recipe.images_an_epoch(len(material.training_rows)), str(precision).removeprefix("torch.")
    watch.listener.note(f"{recipe.epochs + recipe.freeze_epochs} epochs of {images:,} images{stage}, {device}, {words}")
    learner = _learner(recipe, network, material, normalisation=normalisation, seed=seed, purpose=purpose)
    with _own_dropout(device, stream_seed(seed, f"dropout{purpose}")):
        _fit_stages(learner, recipe, rate=rate, precision=precision, watch=watch, stage=stage)
    return Fitted(network, normalisation, precision, rate)


def find_learning_rate(
    recipe: Recipe,
    material: Material,
    *,
    seed: int,
    root: Path,
    normalisation: Normalisation | None = None,
    listener: Listener | None = None,
) -> Finding:
    """What fastai's lr_find says, found with a network and streams that are thrown away.

    Each list of parameters moves as training moves it: biases at `bias_ratio`, early layers more slowly. Muon's
    filters stand still. Raises TrainingError where the loss is no number.
    """
    began, device = time.perf_counter(), material.store.device
    network = build_network(recipe, material.classes, root=root, seed=stream_seed(seed, "network/lr-find"))
    network.to(device)
    normalisation = (
        normalisation or network.normalisation or measure_normalisation(material.images, material.training_rows)
    )
    _whiten(network, recipe, material, normalisation)
    finder, groups = LRFinder(num_it=FINDER_STEPS), len(network.layer_groups())
    # Not LRFinder's own course, which would move all lists alike.
    finder.scheds = {"lr": lambda share: _finder_rates(recipe, share, groups=groups)}
    callbacks = _callbacks(recipe, pick_precision(recipe, network, device), device)
    recorder = Recorder()
    callbacks += [recorder, TellSteps(listener or Listener(), FINDER_STEPS), finder]
    with tempfile.TemporaryDirectory() as folder, _own_dropout(device, stream_seed(seed, "dropout/lr-find")):
        learner = _learner(
            recipe, network, material, normalisation=normalisation, seed=seed, purpose="/lr-find", folder=Path(folder)
        )
        with learner.no_logging():
            learner.fit(FINDER_STEPS // len(learner.dls.train) + 1, cbs=callbacks)
        losses = [float(loss) for loss in recorder.losses]
    return finding_of(
        [_finder_rate(step / FINDER_STEPS) for step in range(len(losses))],
        losses,
        seconds=time.perf_counter() - began,
        batch_size=recipe.batch_size,
        rows=len(material.training_rows),
    )


def _finder_rate(share: float) -> float:
    return FINDER_LOWEST * (FINDER_HIGHEST / FINDER_LOWEST) ** share


def _finder_rates(recipe: Recipe, share: float, *, groups: int) -> np.ndarray:
    rates = _list_rates(recipe, _finder_rate(share), groups=groups)
    if recipe.optimiser == "muon":
        # At their own rate they would learn from the first step, and the curve would speak of them.
        rates[::KINDS] = 0.0
    return rates


@contextmanager
def _own_dropout(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout draws from torch's own streams: seeded inside, and as they were outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _whiten(network: Network, recipe: Recipe, material: Material, normalisation: Normalisation) -> None:
    if isinstance(network.body, FastNetBody):
        rows = _evenly(material.training_rows, WHITENING_ROWS)
        loader = evaluation_loader(material.store, rows, recipe=recipe, normalisation=normalisation)
        network.body.whiten(torch.cat([images for (images,) in loader]))


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[:: max(1, -(-len(rows) // most))]


def evaluation_loader(
    store: PixelStore,
    rows: np.ndarray,
    *,
    recipe: Recipe,
    normalisation: Normalisation,
    labels: np.ndarray | None = None,
) -> EvaluationLoader:
    """Rows as the network is judged on them."""
    return EvaluationLoader(
        store,
        rows,
        labels=labels,
        batch_size=EVALUATION_BATCH,
        pixels=recipe.network_pixels,
        normalisation=normalisation,
    )


def training_loader(
    recipe: Recipe, material: Material, *, normalisation: Normalisation, seed: int, purpose: str
) -> TrainingLoader:
    """The training rows as the network learns from them."""
    return TrainingLoader(
        material.store,
        material.training_rows,
        labels=material.labels,
        recipe=recipe,
        classes=material.classes,
        normalisation=normalisation,
        seed=seed,
        purpose=purpose,
    )


def _learner(
    recipe: Recipe,
    network: Network,
    material: Material,
    *,
    normalisation: Normalisation,
    seed: int,
    purpose: str,
    folder: Path | None = None,
) -> Learner:
    training = training_loader(recipe, material, normalisation=normalisation, seed=seed, purpose=purpose)
    validation = evaluation_loader(
        material.store,
        _evenly(material.validation_rows, EPOCH_ROWS),
        recipe=recipe,
        normalisation=normalisation,
        labels=material.labels,
    )
    return Learner(
        DataLoaders(training, validation if len(material.validation_rows) else []),
        network,
        loss_func=nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        opt_func=optimiser_maker(recipe),
        splitter=split_parameters,
        cbs=[TrainEvalCallback()],
        path=folder,
        default_cbs=False,
    )


def _fit_stages(
    learner: Learner, recipe: Recipe, *, rate: float, precision: torch.dtype, watch: Watch, stage: str
) -> None:
    callbacks = _callbacks(recipe, precision, learner.dls.train.device)
    if recipe.freeze_epochs:
        learner.freeze_to(-KINDS)  # the head's lists of parameters
        rates = _by_kind(recipe, np.full(len(learner.model.layer_groups()), rate))
        course = {"lr": combined_cos(0.99, rates / START_DIVISOR, rates, rates / END_DIVISOR)}
        learner.fit(
            recipe.freeze_epochs,
            rate,
            cbs=[*callbacks, *_watching(learner, watch, f"freeze{stage}"), ParamScheduler(course)],
        )
        learner.unfreeze()
        rate /= AFTER_FREEZE_DIVISOR
    sides = [*recipe.progressive_pixels, recipe.network_pixels]
    if len(sides) > 1:
        callbacks.append(ProgressiveSize(sides))
    if recipe.ema_decay:
        callbacks.append(ParameterAverage(recipe.ema_decay))
    course = ParamScheduler(_course(recipe, _list_rates(recipe, rate, groups=len(learner.model.layer_groups()))))
    learner.fit(recipe.epochs, rate, cbs=[*callbacks, *_watching(learner, watch, stage or "train"), course])


def _watching(learner: Learner, watch: Watch, stage: str) -> list[Callback]:
    return [WatchFit(watch, stage), *watch.trackers.callbacks(learner, stage)]


def _callbacks(recipe: Recipe, precision: torch.dtype, device: torch.device) -> list[Callback]:
    callbacks: list[Callback] = []
    if precision != torch.float32:
        callbacks.append(Autocast(device, precision))
    if recipe.gradient_clip:
        callbacks.append(GradientClip(recipe.gradient_clip))
    if recipe.hard_share < 1:
        callbacks.append(RememberLosses())
    return callbacks
