"""Optimisers and schedules: torch's fused optimisers, many times faster than fastai's on a CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fastai.callback.schedule import SchedCos, SchedLin, combine_scheds, combined_cos
from torch import Tensor, nn

from podium.config.keys import Recipe

# `split_parameters` makes so many lists of each layer group.
KINDS = 3
# Newton-Schulz steps of airbench's Muon; more do not change the result.
ORTHOGONAL_STEPS = 3
# fastai's: the first rate and the last are the peak rate divided by these; after the frozen epochs the peak is halved.
START_DIVISOR, END_DIVISOR, AFTER_FREEZE_DIVISOR = 25, 1e5, 2

Schedule = tuple[Callable[[float], np.ndarray], Callable[[float], float]]
"""Functions of the share of the steps that are done: the learning rate of each list of parameters, and the momentum."""


def split_parameters(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that are trained, in three lists per layer group: filters, matrices, biases and norms.

    The last also has those that timm excludes from the decay: position embeddings and class tokens.
    """
    excluded = getattr(network.body, "no_weight_decay", set)()
    excluded = {id(p) for name, p in network.body.named_parameters() if name in excluded}
    lists = []
    for group in network.layer_groups():
        kinds = [[], [], []]
        for p in filter(lambda p: p.requires_grad, group):
            kinds[2 if p.ndim < 2 or id(p) in excluded else int(p.ndim != 4)].append(p)
        lists += kinds
    return lists


def make_optimiser(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser, with a group for each list of `split_parameters`; biases and norms do not decay."""
    lists, rate = split_parameters(network), 0.0  # set before each step
    decays = [recipe.weight_decay, recipe.weight_decay, 0.0] * (len(lists) // KINDS)
    groups = [{"params": params, "weight_decay": decay} for params, decay in zip(lists, decays, strict=True)]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(recipe.momentum, 0.99), eps=1e-5, fused=True)
    kind = torch.optim.SGD if recipe.optimiser == "sgd" else MuonAndSgd
    return kind(groups, lr=rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, schedule: Schedule, share: float) -> None:
    """Set the learning rates and the momentum for the step after a `share` of the steps."""
    rates, momentum = (value(share) for value in schedule)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = float(rate)
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


class MuonAndSgd(torch.optim.SGD):
    """torch's Muon for the filters and SGD for all other parameters, as one optimiser.

    torch's Muon takes matrices only: it gets each filter bank as a matrix (width, the rest) that shares its memory.
    As in airbench, a bank is scaled to norm sqrt(width) before each step. The batch norm after it undoes the scaling,
    so that the learning rate is an angle per step.
    """

    def __init__(self, groups: list[dict], **settings: object):
        super().__init__(groups, **settings)
        self.banks = [  # of each group: filters, and the matrix that shares their memory
            [(p, nn.Parameter(_as_matrix(p.detach()))) for p in group["params"] if p.ndim == 4]
            for group in self.param_groups
        ]
        matrices = [{"params": [matrix for _, matrix in bank]} for bank in self.banks]
        self.muon = torch.optim.Muon(matrices, weight_decay=0.0, ns_steps=ORTHOGONAL_STEPS, nesterov=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of SGD, with that of Muon."""
        return super().state_dict() | {"muon": self.muon.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.muon.load_state_dict(state_dict["muon"])
        super().load_state_dict(state_dict)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters."""
        for group, muon_group, bank in zip(self.param_groups, self.muon.param_groups, self.banks, strict=True):
            muon_group["lr"], muon_group["momentum"] = group["lr"], group["momentum"]
            for filters, matrix in bank:
                matrix.grad = None
                if filters.grad is None:  # frozen: not scaled either
                    continue
                matrix.grad = _as_matrix(filters.grad)
                filters.grad = None  # SGD skips parameters without a gradient
                matrix.mul_(len(matrix) ** 0.5 / matrix.norm())
        self.muon.step()
        super().step(closure)


def _as_matrix(filters: Tensor) -> Tensor:
    """(width, channels, height, width) with channels last in memory -> (width, the rest), the same memory."""
    return filters.permute(0, 2, 3, 1).flatten(1)


def list_rates(recipe: Recipe, rate: float, *, groups: int) -> np.ndarray:
    """Peak learning rate of each list of parameters; those of the groups rise geometrically from input to head."""
    ratio = recipe.layer_decay ** (1 - groups) if recipe.layer_decay < 1 else recipe.discriminative_ratio
    return _rates_by_kind(recipe, np.geomspace(rate / ratio, rate, groups))


def _rates_by_kind(recipe: Recipe, rates: np.ndarray) -> np.ndarray:
    """Learning rates of the layer groups -> those of their lists of filters, matrices, biases and norms."""
    filters = np.full(len(rates), recipe.muon_rate) if recipe.optimiser == "muon" else rates
    return np.stack([filters, rates, rates * recipe.bias_ratio], axis=1).ravel()


def constant(value: float) -> Callable[[float], float]:
    """The schedule of a value that does not change."""
    return SchedLin(value, value)


def frozen_schedule(recipe: Recipe, *, groups: int) -> Schedule:
    """The schedule for the epochs in which only the head is trained."""
    rates = _rates_by_kind(recipe, np.full(groups, recipe.learning_rate))
    return combined_cos(0.99, rates / START_DIVISOR, rates, rates / END_DIVISOR), constant(recipe.momentum)


def schedule(recipe: Recipe, *, groups: int) -> Schedule:
    """The recipe's schedule for the epochs in which all layers are trained, by fastai's functions."""
    peak = recipe.learning_rate / AFTER_FREEZE_DIVISOR if recipe.freeze_epochs else recipe.learning_rate
    rates = list_rates(recipe, peak, groups=groups)
    warm_up, start, end = recipe.warm_up, rates / START_DIVISOR, rates / END_DIVISOR
    momentum = constant(recipe.momentum)
    if recipe.schedule == "one-cycle":  # arXiv:1708.07120, with fastai's values: momentum falls while the rate rises
        high, low = recipe.momentum, max(recipe.momentum - 0.1, 0.0)
        return combined_cos(warm_up, start, rates, end), combined_cos(warm_up, high, low, high)
    if recipe.schedule == "triangular":
        return combine_scheds([warm_up, 1 - warm_up], [SchedLin(start, rates), SchedLin(rates, end)]), momentum
    if recipe.schedule == "flat-cosine":
        return combined_cos(0.75, rates, rates, end), momentum
    return SchedCos(rates, end) if recipe.schedule == "cosine" else constant(rates), momentum
