"""What happens around fastai's steps: precision, averaging, image sizes, and telling how it goes."""

from collections.abc import Sequence

import torch
from fastai.callback.core import Callback
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Autocast(Callback):
    """Computes the network in a smaller precision; the loss and the parameters stay float32.

    fastai's own mixed precision looks at CUDA alone and leaves a CPU at float32 without a word.
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


class RememberLosses(Callback):
    """Tells the training loader how hard each image was, so that it can let the easy ones rest."""

    def after_loss(self) -> None:
        """Tell the losses of one batch, (n,)."""
        if self.learn.training:
            loss = self.learn.loss_func
            each = cross_entropy(
                self.learn.pred.detach(), self.learn.yb[0], label_smoothing=loss.label_smoothing, reduction="none"
            )
            self.learn.dls.train.remember(each)


class ParameterAverage(Callback):
    """Averages parameters and running statistics over steps; validates with, and ends with, the average.

    The decay starts small, (1 + steps) / (10 + steps), so that the average forgets the beginning.
    """

    order = 70

    def __init__(self, decay: float):
        self.decay = decay

    def before_fit(self) -> None:
        """Start the average from the network as it is."""
        self.average = AveragedModel(self.learn.model, use_buffers=True)

    def after_step(self) -> None:
        """Move the average towards the network."""
        steps = int(self.average.n_averaged)
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
        self.average.update_parameters(self.learn.model)

    def before_validate(self) -> None:
        """Validate the average."""
        self._exchange()

    def after_validate(self) -> None:
        """Go on training the network."""
        self._exchange()

    def after_fit(self) -> None:
        """The average is what was trained."""
        self._exchange()

    def _exchange(self) -> None:
        ours, theirs = self.learn.model.state_dict(), self.average.module.state_dict()
        with torch.no_grad():
            for name, value in ours.items():
                kept = value.clone()
                value.copy_(theirs[name])
                theirs[name].copy_(kept)


class ProgressiveSize(Callback):
    """Trains on small images first: equal stages of epochs, each with its own side, the full one last."""

    def __init__(self, sides: list[int]):
        self.sides = sides

    def before_train(self) -> None:
        """Set the loader's side for this epoch."""
        self.learn.dls.train.pixels = side_of_epoch(self.sides, self.learn.epoch, self.learn.n_epoch)


def side_of_epoch(sides: Sequence[int], epoch: int, epochs: int) -> int:
    """The side in pixels of the images of one epoch (from 0): equal stages, in order."""
    return sides[epoch * len(sides) // epochs]
