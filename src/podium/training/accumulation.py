"""Gradients of a large batch in the memory of a small one."""

import torch
from fastai.callback.core import CancelBackwardException, CancelStepException
from fastai.learner import Learner


class AccumulatingLearner(Learner):
    """fastai's Learner, which computes the gradient of a training batch in `parts`, one after the other.

    The parts are as large as each other, or one image smaller. fastai's GradientAccumulation would count each part as a
    batch: the schedule and averages of parameters would not count steps, and the last parts of an epoch could be lost.
    """

    parts = 1

    def _do_one_batch(self) -> None:
        """As fastai's; the gradients are those of the mean over the batch, also where targets are shares."""
        if self.parts == 1 or not self.training:
            super()._do_one_batch()
            return
        (images,), (targets,) = self.xb, self.yb
        parts = min(self.parts, max(1, len(images) // 2))  # batch norm cannot be trained on one image
        predictions, losses = [], []
        for inputs, outputs in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
            self.pred = self.model(inputs)
            self.loss_grad = self.loss_func(self.pred, outputs) * (len(inputs) / len(images))
            predictions.append(self.pred.detach())
            losses.append(self.loss_grad.detach())
            self._with_events(self._backward, "backward", CancelBackwardException)
        self.pred, self.loss = torch.cat(predictions), torch.stack(losses).sum()
        self("after_loss")
        self._with_events(self._step, "step", CancelStepException)
        self.opt.zero_grad()
