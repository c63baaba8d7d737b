"""Train one network once: fastai's Learner with Podium's loaders, optimiser and schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback, TrainEvalCallback
from fastai.callback.schedule import ParamScheduler
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner

from podium.config.keys import Recipe
from podium.seeding import stream_seed
from podium.training.accumulation import AccumulatingLearner
from podium.training.batches.loader import EvaluationLoader, FitData, TrainingLoader
from podium.training.batches.stores import PixelStore
from podium.training.callbacks import AverageWithStart, GradientScaling, LossRecorder, ParameterAverage, ProgressiveSize
from podium.training.device import pick_precision
from podium.training.features import fit_head, pooled_features
from podium.training.logits import predict_logits
from podium.training.losses import make_loss
from podium.training.networks.architectures import Network, build_network
from podium.training.networks.fastnet import FastNetBody
from podium.training.optimisers import (
    AFTER_FREEZE_DIVISOR,
    KINDS,
    frozen_schedule,
    list_rates,
    optimiser_maker,
    schedule,
    split_parameters,
)
from podium.training.progress import ProgressCallback, ProgressRecorder

# At most so many validation rows after each epoch, to follow the training. The run's score is of all of them.
EPOCH_ROWS = 2_000
# At most so many training images determine the first layer of a fastnet.
WHITENING_ROWS = 5_000


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, and the recipe that it was trained by."""

    network: Network
    recipe: Recipe  # with the learning rate as a number
    scale: tuple[float, float] = (0.0, 1.0)  # of the outputs: what is added to them, after they are multiplied

    def logits(self, store: PixelStore, rows: np.ndarray) -> np.ndarray:
        """Logits (n, outputs) float32 of the rows of a store."""
        outputs, (mean, deviation) = self.outputs(store, rows), self.scale
        return outputs if self.scale == (0.0, 1.0) else (outputs * deviation + mean).astype(np.float32)

    def outputs(self, store: PixelStore, rows: np.ndarray) -> np.ndarray:
        """The network's outputs (n, outputs) float32 for the rows of a store."""
        if not len(rows):  # a competition without test images
            return np.empty((0, self.network.head[-1].out_features), np.float32)
        if not self.recipe.epochs:  # the features of the store were computed by the same body
            features, layer = pooled_features(self.network, self.recipe, store, rows), self.network.head[-1]
            with torch.inference_mode():
                return layer(torch.from_numpy(features).to(store.device)).cpu().numpy()
        loader = EvaluationLoader(store, rows, self.recipe, normalisation=self.network.normalisation)
        return predict_logits(self.network, loader, views=self.recipe.test_time_augmentation)


def fit_network(
    recipe: Recipe, data: FitData, *, seed: int, purpose: str, root: Path, progress: ProgressRecorder, stage: str
) -> TrainedNetwork:
    """Train the recipe's network; its `learning_rate` must be a number.

    Every random stream is derived from `seed` and `purpose`, which differs between the fits of a run. `root` is the
    folder that `pretrained` is relative to. `stage` names the fit in reports. Raises TrainingError.
    """
    device = data.store.device
    network = prepare_network(recipe, data, root=root, seed=stream_seed(seed, f"network{purpose}"))
    epochs, images = recipe.epochs + recipe.freeze_epochs, recipe.images_per_epoch(len(data.training_rows))
    precision_name = str(network.precision).removeprefix("torch.")
    progress.listener.note(f"{epochs} epochs of {images:,} images{stage}, {device}, {precision_name}")
    if not recipe.epochs:
        return TrainedNetwork(network, recipe, data.scale)
    learner = make_learner(recipe, network, data, seed=seed, purpose=purpose)
    with seeded_dropout(device, seed, f"dropout{purpose}"):
        _fit_stages(learner, recipe, progress=progress, stage=stage)
    return TrainedNetwork(network, recipe, data.scale)


def prepare_network(recipe: Recipe, data: FitData, *, root: Path, seed: int) -> Network:
    """A network on the device, ready to be trained."""
    network = build_network(recipe, data.classes, root=root, seed=seed)
    network.to(data.store.device)
    network.normalisation = network.normalisation or data.normalisation
    network.precision = pick_precision(recipe, network, data.store.device)
    if isinstance(network.body, FastNetBody):
        rows = every_nth(data.training_rows, WHITENING_ROWS)
        loader = EvaluationLoader(data.store, rows, recipe, normalisation=network.normalisation)
        network.body.whiten(torch.cat([images for (images,) in loader]))
    if recipe.fits_features:
        fit_head(network, recipe, data)
    return network


@contextmanager
def seeded_dropout(device: torch.device, seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global generators, which dropout uses, and restore them afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(seed, purpose))
        yield


def every_nth(rows: np.ndarray, most: int) -> np.ndarray:
    """Every n-th of the rows, with the smallest n that gives at most `most` of them."""
    return rows[:: max(1, -(-len(rows) // most))]


def make_learner(
    recipe: Recipe, network: Network, data: FitData, *, seed: int, purpose: str, folder: Path | None = None
) -> Learner:
    """Fastai's Learner of a network; `folder` is where LRFinder keeps the initial parameters."""
    normalisation, rows = network.normalisation, every_nth(data.validation_rows, EPOCH_ROWS)
    training = TrainingLoader(recipe, data, normalisation=normalisation, seed=seed, purpose=purpose)
    validation = EvaluationLoader(data.store, rows, recipe, normalisation=normalisation, labels=data.targets)
    callbacks = {
        TrainEvalCallback(): True,
        GradientScaling(): network.precision == torch.float16,
        GradientClip(recipe.gradient_clip): recipe.gradient_clip,
        AverageWithStart(): recipe.head == "logistic",
        LossRecorder(): recipe.hard_share < 1,
    }
    learner = AccumulatingLearner(
        DataLoaders(training, validation if len(rows) else []),
        network,
        loss_func=make_loss(recipe, data),
        opt_func=optimiser_maker(recipe),
        splitter=split_parameters,
        cbs=[callback for callback, is_used in callbacks.items() if is_used],
        path=folder,
        default_cbs=False,
    )
    learner.parts = recipe.accumulate
    return learner


def _fit_stages(learner: Learner, recipe: Recipe, *, progress: ProgressRecorder, stage: str) -> None:
    """Train the head alone for `freeze_epochs`, then all layers for `epochs`."""
    rate, groups = recipe.learning_rate, len(learner.model.layer_groups())

    def progress_callbacks(stage: str) -> list[Callback]:
        return [ProgressCallback(progress, stage), *progress.trackers.callbacks(learner, stage)]

    if recipe.freeze_epochs:
        learner.freeze_to(-KINDS)  # all but the head's lists of parameters
        scheduler = ParamScheduler(frozen_schedule(recipe, rate, groups=groups))
        learner.fit(recipe.freeze_epochs, rate, cbs=[*progress_callbacks(f"freeze{stage}"), scheduler])
        learner.unfreeze()
        rate /= AFTER_FREEZE_DIVISOR
    callbacks = progress_callbacks(stage or "train")
    if recipe.progressive_pixels:
        callbacks.append(ProgressiveSize(recipe.stage_pixels))
    if recipe.ema_decay:
        callbacks.append(ParameterAverage(recipe.ema_decay))
    scheduler = ParamScheduler(schedule(recipe, list_rates(recipe, rate, groups=groups)))
    learner.fit(recipe.epochs, rate, cbs=[*callbacks, scheduler])
