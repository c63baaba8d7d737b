"""fastai callbacks: precision, recorded losses, averaged parameters, and growing images."""

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Autocast(Callback):
    """Computes the network in a lower precision; loss and parameters stay float32.

    fastai's MixedPrecision supports CUDA only, and does nothing on a CPU.
    """

    order = 10

    def __init__(self, device: torch.device, precision: torch.dtype):
        self.device_type, self.precision = device.type, precision

    def before_batch(self) -> None:
        """Enter autocast."""
        self.context = torch.autocast(self.device_type, self.precision)
        self.context.__enter__()

    def after_pred(self) -> None:
        """Leave autocast before the loss."""
        self.context.__exit__(None, None, None)
        self.learn.pred = self.learn.pred.float()


class LossRecorder(Callback):
    """Passes the loss of each image to the training loader, which selects the images with the largest loss."""

    def after_loss(self) -> None:
        """Record the losses of one batch, (n,)."""
        if self.learn.training:
            prediction, targets = self.learn.pred.detach(), self.learn.yb[0]
            smoothing = self.learn.loss_func.label_smoothing
            losses = cross_entropy(prediction, targets, label_smoothing=smoothing, reduction="none")
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

    def before_validate(self) -> None:
        """Put the average into the network."""
        self._swap()

    def after_validate(self) -> None:
        """Put the trained parameters back."""
        self._swap()

    def after_fit(self) -> None:
        """Keep the average."""
        self._swap()

    def _swap(self) -> None:
        """Exchange the network's state and the average's."""
        network, average = self.learn.model.state_dict(), self.average.module.state_dict()
        with torch.no_grad():
            for name, value in network.items():
                copy = value.clone()
                value.copy_(average[name])
                average[name].copy_(copy)


class ProgressiveSize(Callback):
    """Trains on small images first: stages of equally many epochs, each with its own side in pixels."""

    def __init__(self, sides: list[int]):
        self.sides = sides

    def before_train(self) -> None:
        """Set the loader's side for this epoch."""
        self.learn.dls.train.pixels = side_of_epoch(self.sides, self.learn.epoch, self.learn.n_epoch)


def side_of_epoch(sides: Sequence[int], epoch: int, epochs: int) -> int:
    """The side in pixels of the images of one epoch (counted from 0)."""
    return sides[epoch * len(sides) // epochs]
