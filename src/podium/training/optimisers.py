"""What makes steps of gradients: torch's own optimisers, fused, many times faster than fastai's on a CPU."""

from collections.abc import Callable

import numpy as np
import torch
from fastai.callback.schedule import SchedCos, SchedLin, combine_scheds, combined_cos
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from podium.config.keys import Recipe

# Kinds of parameters of each layer group, in the order of `split_parameters`.
KINDS = 3
# Newton-Schulz steps of airbench's Muon; more do not change what is learned.
ORTHOGONAL_STEPS = 3


def split_parameters(network: nn.Module) -> list[list[nn.Parameter]]:
    """What learns in each layer group, in three lists: filters, matrices, then biases and norms."""
    lists = []
    for parameters in network.layer_groups():
        learning = [p for p in parameters if p.requires_grad]
        lists.append([p for p in learning if p.ndim > 2])
        lists.append([p for p in learning if p.ndim == 2])
        lists.append([p for p in learning if p.ndim < 2])
    return lists


def optimiser_maker(recipe: Recipe) -> Callable:
    """What fastai calls with the lists of parameters to make the optimiser."""

    def make(lists: list[list[nn.Parameter]], lr: float) -> OptimWrapper:
        decays = [recipe.weight_decay, recipe.weight_decay, 0.0] * (len(lists) // KINDS)
        groups = [{"params": one, "weight_decay": decay} for one, decay in zip(lists, decays, strict=True)]
        if recipe.optimiser == "adamw":
            made = torch.optim.AdamW(groups, lr=lr, betas=(recipe.momentum, 0.99), eps=1e-5, fused=True)
        else:
            kind = torch.optim.SGD if recipe.optimiser == "sgd" else MuonAndSgd
            made = kind(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)
        return OptimWrapper(opt=made)

    return make


class MuonAndSgd(torch.optim.SGD):
    """torch's Muon for the filters, SGD for everything else, as one optimiser.

    torch's takes matrices alone: it is given each filter bank as (width, the rest), which shares its memory.
    As in airbench a bank is scaled to norm sqrt(width) before each step, which the batch norm after it
    undoes, so that the learning rate is a rate of turning.
    """

    def __init__(self, groups: list[dict], **settings: object):
        super().__init__(groups, **settings)
        self.banks = [[p for p in group["params"] if p.ndim > 2] for group in self.param_groups]
        self.matrices = [[nn.Parameter(_as_matrix(p.detach())) for p in bank] for bank in self.banks]
        self.muon = torch.optim.Muon(
            [{"params": matrices} for matrices in self.matrices],
            weight_decay=0.0,
            ns_steps=ORTHOGONAL_STEPS,
            nesterov=True,
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of both."""
        for group, inner, bank, matrices in zip(
            self.param_groups, self.muon.param_groups, self.banks, self.matrices, strict=True
        ):
            inner["lr"], inner["momentum"] = group["lr"], group["momentum"]
            for filters, matrix in zip(bank, matrices, strict=True):
                matrix.grad = None
                if filters.grad is None:  # frozen: not even scaled
                    continue
                matrix.grad = _as_matrix(filters.grad)
                filters.grad = None  # SGD leaves it alone
                matrix.mul_(len(matrix) ** 0.5 / matrix.norm())
        self.muon.step()
        super().step(closure)


def _as_matrix(filters: Tensor) -> Tensor:
    """(width, channels, height, width) with channels last in memory -> (width, the rest), the same memory."""
    return filters.permute(0, 2, 3, 1).flatten(1)


# fastai's own: how much lower the rate starts and ends, and what fine-tuning does after the head alone learned.
START_DIVISOR, END_DIVISOR, AFTER_FREEZE_DIVISOR = 25, 1e5, 2


def _list_rates(recipe: Recipe, rate: float, *, groups: int) -> np.ndarray:
    """Peak learning rate of each list of parameters; the groups' rise geometrically from the images to the head."""
    return _by_kind(recipe, np.geomspace(rate / recipe.discriminative_ratio, rate, groups))


def _by_kind(recipe: Recipe, rates: np.ndarray) -> np.ndarray:
    """Learning rate of each list of parameters, from those of the groups: filters, matrices, biases and norms."""
    filters = np.full(len(rates), recipe.muon_rate) if recipe.optimiser == "muon" else rates
    return np.stack([filters, rates, rates * recipe.bias_ratio], axis=1).ravel()


def _course(recipe: Recipe, rates: np.ndarray) -> dict[str, Callable]:
    """Fastai schedules by name of the hyperparameter, each a function of the share of steps done."""
    warm_up, low, lowest = recipe.warm_up, rates / START_DIVISOR, rates / END_DIVISOR
    if recipe.schedule == "one-cycle":  # arXiv:1708.07120, as fastai runs it: momentum moves against the rate
        high, fast = recipe.momentum, max(recipe.momentum - 0.1, 0.0)
        return {
            "lr": combined_cos(warm_up, low, rates, lowest),
            "mom": combined_cos(warm_up, high, fast, high),
        }
    if recipe.schedule == "triangular":
        return {"lr": combine_scheds([warm_up, 1 - warm_up], [SchedLin(low, rates), SchedLin(rates, lowest)])}
    if recipe.schedule == "flat-cosine":
        return {"lr": combined_cos(0.75, rates, rates, lowest)}
    if recipe.schedule == "cosine":
        return {"lr": SchedCos(rates, lowest)}
    return {"lr": SchedLin(rates, rates)}
