"""Train one network once. `Learner` is the training: the steps, and everything that changes from one to the next."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from fastai.torch_core import norm_bias_params
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from podium.config.keys import Recipe
from podium.config.pixels import Pixels
from podium.seeding import stream_seed
from podium.training import optimisers
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, every_nth
from podium.training.checkpoint import State
from podium.training.device import StepMemoryError, is_memory_error
from podium.training.inference import evaluation_batches, fit_head, logits_of
from podium.training.losses import make_loss
from podium.training.networks.architectures import Network, build_network
from podium.training.networks.fastnet import FastNetBody
from podium.training.optimisers import Schedule
from podium.training.progress import Listener, ProgressRecorder
from podium.training.ranks import ALONE, Ranks

# At most so many validation rows after each epoch, to follow the training. The run's score is of all of them.
EPOCH_ROWS = 2_000
# At most so many training images determine the first layer of a fastnet.
WHITENING_ROWS = 5_000
# Steps that the initial parameters count as, where they are averaged with the final ones.
START_STEPS = 50


def fit_network(
    recipe: Recipe, data: FitData, *, root: Path, progress: ProgressRecorder, ranks: Ranks = ALONE
) -> Network:
    """Train the recipe's network; its `learning_rate` must be a number.

    `root` is the folder that `pretrained` is relative to. A fit that was in training when the checkpoint was saved
    goes on from it. The other `ranks` must call `help_to_fit`. Raises TrainingError.
    """
    network = prepare_network(recipe, data, root=root)
    device, precision_name = data.store.device, str(network.precision).removeprefix("torch.")
    epochs, images = recipe.epochs + recipe.freeze_epochs, recipe.images_per_epoch(len(data.training_rows))
    progress.listener.note(f"{epochs} epochs of {images:,} images{data.stage}, {device}, {precision_name}")
    if recipe.epochs:
        # From a GPU, the parameters would be put on that of rank 0 in all processes.
        parameters = {name: value.cpu() for name, value in network.state_dict().items()}
        ranks.connect((network.normalisation, parameters, progress.checkpoint.learner))
        with seeded_dropout(data):
            Learner(network, data, ranks=ranks).train(progress)
    return network


def help_to_fit(ranks: Ranks, recipe: Recipe, data: FitData) -> None:
    """Train a part of each batch of a fit, beside rank 0, which calls `fit_network`."""
    device, progress = data.store.device, ProgressRecorder(Listener(), images=1)
    network = build_network(recipe, data.classes, root=Path(), seed=0, weights=False, device=device)
    network.normalisation, parameters, progress.checkpoint.learner = ranks.connect()
    network.load_state_dict(parameters)
    Learner(network, data, ranks=ranks).train(progress)


def count_images(recipe: Recipe, fits: Sequence[FitData]) -> int:
    """How many training images all fits of a run process, over all epochs."""
    images = sum(recipe.images_per_epoch(len(data.training_rows)) for data in fits)
    return (recipe.freeze_epochs + recipe.epochs) * images


def prepare_network(recipe: Recipe, data: FitData, *, root: Path) -> Network:
    """A network on the device, ready to be trained; a head on features is fitted to those of the training rows."""
    seed, device = data.stream("network"), data.store.device
    network = build_network(recipe, data.classes, root=root, seed=seed, device=device)
    network.normalisation, network.scale = network.normalisation or data.normalisation, data.scale
    if isinstance(network.body, FastNetBody):
        rows = every_nth(data.training_rows, WHITENING_ROWS)
        network.body.whiten(torch.cat(list(evaluation_batches(network, data.store, rows))))
    if recipe.fits_features:
        fit_head(network, data)
    return network


@contextmanager
def seeded_dropout(data: FitData) -> Iterator[None]:
    """Seed torch's global generators, which dropout uses, and restore them afterwards."""
    device = data.store.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(data.stream("dropout"))
        yield


class Learner:
    """A network in training.

    What changes from step to step is the network, the state of the optimiser, the loader's random streams and losses,
    the scale of float16's gradients, the averages, and torch's random state, which dropout uses.
    """

    def __init__(self, network: Network, data: FitData, *, ranks: Ranks = ALONE):
        self.network, self.data, self.recipe, self.ranks = network, data, network.recipe, ranks
        self.loader = TrainingLoader(self.recipe, data, normalisation=network.normalisation, ranks=ranks)
        self.loss = make_loss(self.recipe, data)
        self.optimiser = optimisers.make_optimiser(self.recipe, network)
        self.scaler = torch.amp.GradScaler(data.store.device.type, enabled=network.precision == torch.float16)
        self.average: AveragedModel | None = None  # the moving average of parameters and running statistics
        self.start: list[Tensor] = []  # the initial parameters, if they are averaged with the final ones
        self.share_done = 0.0  # of the steps of the stage

    def train(self, progress: ProgressRecorder) -> None:
        """Train the head alone for `freeze_epochs`, then all layers for `epochs`.

        After a logistic head, the final parameters are averaged with the initial ones, which count as START_STEPS
        steps: few steps then change little of a network that knew the classes before (arXiv:2109.01903).
        """
        recipe, network = self.recipe, self.network
        groups, stage = len(network.layer_groups()), self.data.stage or "train"
        if recipe.freeze_epochs and not progress.checkpoint.is_in(stage):
            self.train_body(False)
            rates, sizes = optimisers.frozen_schedule(recipe, groups=groups), [recipe.network_pixels]
            self.fit(recipe.freeze_epochs, rates, sizes=sizes, stage=f"freeze{self.data.stage}", progress=progress)
            self.train_body(True)
        if recipe.ema_decay:
            self.average = AveragedModel(network, use_buffers=True)
        if recipe.head == "logistic":
            self.start = [value.detach().clone() for value in network.parameters()]
        rates = optimisers.schedule(recipe, groups=groups)
        self.fit(recipe.epochs, rates, sizes=recipe.stage_pixels, stage=stage, progress=progress)
        if self.average:
            network.load_state_dict(self.average.module.state_dict())
        if self.start:
            share = START_STEPS / (START_STEPS + recipe.epochs * len(self.loader))
            with torch.no_grad():
                for value, start in zip(network.parameters(), self.start, strict=True):
                    value.lerp_(start, share)

    def fit(
        self, epochs: int, rates: Schedule, *, sizes: Sequence[Pixels], stage: str, progress: ProgressRecorder
    ) -> None:
        """Train for `epochs`, in parts of equally many epochs, each with its own size of the images."""
        checkpoint = progress.checkpoint

        def save(epoch: int, *, epoch_ends: bool) -> None:
            if checkpoint.is_due(epoch_ends=epoch_ends):
                learner = self.state_dict() | {"stage": stage, "epoch": epoch}
                checkpoint.save(learner=learner, progress=progress.state_dict())

        state = checkpoint.take_learner(stage)
        if state:
            self.load_state_dict(state)
        for epoch in range(state.get("epoch", 0), epochs):
            self.loader.pixels = size_of_epoch(sizes, epoch, epochs)
            self.network.train()
            if not self.loader.position:
                self.share_done = epoch / epochs
                progress.start_epoch(stage, epoch + 1, epochs)
            for images, targets in self.loader:
                optimisers.set_rates(self.optimiser, rates, self.share_done)
                loss = self.step(images, targets)
                self.share_done += 1 / (len(self.loader) * epochs)
                progress.step(loss, len(self.loader.last_rows), self.optimiser.param_groups)
                save(epoch, epoch_ends=False)
            if self.ranks.rank == 0:
                progress.end_epoch(partial(self.validate, progress))
            save(epoch + 1, epoch_ends=True)

    def state_dict(self) -> State:
        """What changes from step to step."""
        device = self.data.store.device
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "loader": self.loader.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "start": self.start,
            "share_done": self.share_done,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where a killed training was; parameters are loaded in place, because Muon holds views of them."""
        for name in ("network", "optimiser", "loader", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        if self.average:
            self.average.load_state_dict(state["average"])
        for value, saved in zip(self.start, state["start"], strict=True):
            value.copy_(saved)
        self.share_done = state["share_done"]
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.data.store.device)

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Train on this process's part of a batch; returns the mean loss of the batch, a scalar on the device.

        With `accumulate`, the gradient of the mean over the batch is computed in parts, in the memory of one. Raises
        StepMemoryError.
        """
        parts = self.recipe.accumulate * self.data.parts
        parts = min(parts, max(1, len(images) // 2))  # batch norm cannot be trained on one image
        losses, losses_of_images, total = [], [], len(images)
        if self.ranks.count > 1:
            total = len(self.loader.last_rows)
            torch.manual_seed(stream_seed(self.loader.seed_of_batch, "dropout"))
        try:
            for inputs, outputs in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
                logits = self.network(inputs)
                loss = self.loss(logits, outputs) * (len(inputs) / total)
                self.scaler.scale(loss).backward()
                losses.append(loss.detach())
                if self.recipe.hard_share < 1:
                    losses_of_images.append(self.loss.of_each(logits.detach(), outputs))
            loss, of_images = self.add_ranks(torch.stack(losses).sum(), losses_of_images)
            if losses_of_images:
                self.loader.record_losses(of_images)
            self.update()
        except (RuntimeError, MemoryError) as error:
            if is_memory_error(error):
                raise StepMemoryError(str(error)) from None
            raise
        return loss

    def add_ranks(self, loss: Tensor, losses_of_images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The losses of a batch and of its images, from those of all processes; so are the gradients.

        Each batch norm has computed with the images of its process. Its running statistics become their mean.
        """
        own_losses = torch.cat([loss[None][:0], *losses_of_images])
        if self.ranks.count == 1:
            return loss, own_losses
        losses = own_losses.new_zeros(len(self.loader.last_rows))
        if len(own_losses):
            losses[self.ranks.own(len(losses))] = own_losses
        norms = [layer for layer in self.network.modules() if isinstance(layer, _BatchNorm) and layer.training]
        means = [value for layer in norms for value in (layer.running_mean, layer.running_var) if value is not None]
        for value in means:
            value.div_(self.ranks.count)
        self.ranks.add([loss, losses, *means, *(p.grad for p in self.network.parameters() if p.grad is not None)])
        return loss, losses

    def update(self) -> None:
        """Update the parameters by their gradients, except where gradients of float16 are not finite; clear them."""
        self.scaler.unscale_(self.optimiser)
        is_finite, clip = True, self.recipe.gradient_clip
        if clip or self.scaler.is_enabled():
            norm = clip_grad_norm_(self.network.parameters(), clip or math.inf)
            is_finite = not self.scaler.is_enabled() or bool(norm.isfinite())
        if is_finite:
            self.optimiser.step()
        self.scaler.update()
        self.optimiser.zero_grad()
        if self.average:  # the decay is smaller at first, so that the average forgets the first steps
            steps = int(self.average.n_averaged)
            decay = min(self.recipe.ema_decay, (1 + steps) / (10 + steps))
            self.average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.average.update_parameters(self.network)

    def validate(self, progress: ProgressRecorder) -> tuple[float, float]:
        """The accuracy and the mean loss of the average, or else of the network, on some validation rows, or NaN."""
        data, rows = self.data, every_nth(self.data.validation_rows, EPOCH_ROWS)
        if not len(rows):
            return math.nan, math.nan
        network = self.average.module if self.average else self.network
        logits = logits_of(network, data.store, rows, views="none")
        labels, target = data.labels[rows], data.target
        progress.listener.validation(logits, labels)
        loss = float(target.row_losses(target.probabilities(logits), labels).mean())
        return target.scores_of(logits, labels).get("accuracy", math.nan), loss

    def train_body(self, is_trained: bool) -> None:
        """Train the body from now on, or only its norms and the head; as in fastai, the optimiser starts anew."""
        self.optimiser.state.clear()
        norms = {id(p) for p in norm_bias_params(self.network, with_bias=False)}
        for group in self.optimiser.param_groups[: -optimisers.KINDS]:
            for p in group["params"]:
                p.requires_grad_(is_trained or id(p) in norms)


def size_of_epoch(sizes: Sequence[Pixels], epoch: int, epochs: int) -> Pixels:
    """The size of the images of one epoch (counted from 0)."""
    return sizes[epoch * len(sizes) // epochs]
