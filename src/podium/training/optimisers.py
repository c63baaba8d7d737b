"""What makes steps of gradients: torch's own optimisers, fused, many times faster than fastai's on a CPU."""

from collections.abc import Callable

import torch
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from podium.config import Recipe

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
