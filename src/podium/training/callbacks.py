"""fastai callbacks: precision, recorded losses, averaged parameters, and growing images."""

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback, CancelStepException
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from podium.config.pixels import Pixels

# Steps that the initial parameters count as, where they are averaged with the final ones.
START_STEPS = 50


class GradientScaling(Callback):
    """Scales the loss of a network in float16, whose gradients would be 0, and skips steps with infinite gradients.

    fastai's MixedPrecision does the same, on CUDA only.
    """

    order = 10  # before GradientClip, which needs the gradients unscaled

    def before_fit(self) -> None:
        """Start with torch's initial scale."""
        self.scaler = torch.amp.GradScaler(self.learn.dls.train.device.type)

    def before_backward(self) -> None:
        """Scale the loss."""
        self.learn.loss_grad = self.scaler.scale(self.learn.loss_grad)

    def before_step(self) -> None:
        """Unscale the gradients; skip the step where one of them is not finite."""
        self.is_finite = False
        self.scaler.step(self)  # calls `step` below where all are finite
        if not self.is_finite:
            raise CancelStepException

    def after_step(self) -> None:
        """Adapt the scale, also after a skipped step."""
        self.scaler.update()

    @property
    def param_groups(self) -> list[dict]:
        """The parameters, for GradScaler, which takes this callback as the optimiser."""
        return self.learn.opt.opt.param_groups

    def step(self) -> None:
        """Let fastai make the step."""
        self.is_finite = True


class AverageWithStart(Callback):
    """Averages the final parameters with the initial ones, which count as START_STEPS steps (arXiv:2109.01903).

    Few steps then change little of a network that knew the classes before, by its logistic head.
    """

    order = 80  # after ParameterAverage

    def before_fit(self) -> None:
        """Keep the initial parameters."""
        self.start = [value.detach().clone() for value in self.learn.model.parameters()]

    @torch.no_grad()
    def after_fit(self) -> None:
        """Average the parameters."""
        share = START_STEPS / (START_STEPS + self.learn.n_epoch * len(self.learn.dls.train))
        for value, start in zip(self.learn.model.parameters(), self.start, strict=True):
            value.lerp_(start, share)


class LossRecorder(Callback):
    """Passes the loss of each image to the training loader, which selects the images with the largest loss."""

    def after_loss(self) -> None:
        """Record the losses of one batch, (n,)."""
        if self.learn.training:
            losses = self.learn.loss_func.of_each(self.learn.pred.detach(), self.learn.yb[0])
            self.learn.dls.train.record_losses(losses)


class ParameterAverage(Callback):
    """Keeps a moving average of the parameters and running statistics, which is validated and is the final network.

    The decay is at most (1 + steps) / (10 + steps), so that the average forgets the first steps.
    """

    order = 70

    def __init__(self, decay: float):
        self.decay = decay

    def before_fit(self) -> None:
        """Start the average at the current parameters."""
        self.average = AveragedModel(self.learn.model, use_buffers=True)

    def after_step(self) -> None:
        """Update the average."""
        steps = int(self.average.n_averaged)
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
        self.average.update_parameters(self.learn.model)

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange the network's parameters and statistics with the average's."""
        states = self.learn.model.state_dict().values(), self.average.module.state_dict().values()
        for value, average in zip(*states, strict=True):
            copy = value.clone()
            value.copy_(average)
            average.copy_(copy)

    # The network validates with the average, trains on without it, and keeps it in the end.
    before_validate = after_validate = after_fit = exchange


class ProgressiveSize(Callback):
    """Trains on small images first: stages of equally many epochs, each with its own size."""

    def __init__(self, sizes: list[Pixels]):
        self.sizes = sizes

    def before_train(self) -> None:
        """Set the loader's size for this epoch."""
        self.learn.dls.train.pixels = size_of_epoch(self.sizes, self.learn.epoch, self.learn.n_epoch)


def size_of_epoch(sizes: Sequence[Pixels], epoch: int, epochs: int) -> Pixels:
    """The size of the images of one epoch (counted from 0)."""
    return sizes[epoch * len(sizes) // epochs]
