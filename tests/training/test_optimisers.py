"""Optimisers: what decays, and that Muon moves filters as torch's does and all else as SGD does."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from podium.config.keys import Recipe
from podium.training.networks.architectures import build_network
from podium.training.optimisers import (
    KINDS,
    MuonAndSgd,
    list_rates,
    make_optimiser,
    schedule,
    set_rates,
    split_parameters,
)

RECIPE = Recipe(architecture="timm:test_resnet", epochs=1, learning_rate=0.1, stored_pixels=16)


def convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 6, 3).to(memory_format=torch.channels_last)


def with_gradients(part: nn.Module) -> nn.Module:
    part(torch.ones(1, 3, 4, 4)).square().sum().backward()
    return part


def groups(part: nn.Conv2d) -> list[dict]:
    return [{"params": [part.weight], "lr": 0.2}, {"params": [part.bias], "lr": 0.3}]


def test_biases_and_norms_do_not_decay(tmp_path):
    made = make_optimiser(RECIPE, build_network(RECIPE, 2, root=tmp_path, seed=1))
    decays = {group["weight_decay"]: {p.ndim > 1 for p in group["params"]} for group in made.param_groups}
    assert decays == {RECIPE.weight_decay: {True}, 0.0: {False}}


def test_what_timm_excludes_from_the_decay_does_not_decay(tmp_path):
    recipe = replace(RECIPE, architecture="timm:test_vit", stored_pixels=64)
    network = build_network(recipe, 2, root=tmp_path, seed=1)
    made = make_optimiser(recipe, network)
    still = {id(p) for group in made.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    decaying = [name for name, p in network.body.named_parameters() if id(p) not in still]
    assert decaying and not any(name.endswith(("pos_embed", "cls_token", "bias")) for name in decaying)
    assert all(p.ndim in (2, 4) for p in network.parameters() if id(p) not in still)


def test_every_parameter_that_learns_is_in_one_list(tmp_path):
    network = build_network(Recipe(architecture="fastnet", epochs=1, learning_rate=0.1), 2, root=tmp_path, seed=1)
    listed = [p for parameters in split_parameters(network) for p in parameters]
    assert {id(p) for p in listed} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(listed) == len({id(p) for p in listed})


def test_a_filter_bank_turns_by_an_orthogonal_step_from_norm_root_width():
    part = with_gradients(convolution())
    start = part.weight.detach().clone()
    MuonAndSgd(groups(part), momentum=0.9, nesterov=True).step()
    scaled = start * 6**0.5 / start.norm()
    turn = (scaled - part.weight.detach()).permute(0, 2, 3, 1).flatten(1) / 0.2
    # Newton-Schulz in bfloat16 brings singular values near 1, those of a rank-one gradient's first alone.
    singular = torch.linalg.svdvals(turn)
    assert 0.5 < singular[0] < 1.5 and part.weight.is_contiguous(memory_format=torch.channels_last)


def test_all_else_moves_as_by_sgd():
    part, other = with_gradients(convolution()), with_gradients(convolution())
    MuonAndSgd(groups(part), momentum=0.9, nesterov=True).step()
    torch.optim.SGD([{"params": [other.bias], "lr": 0.3}], momentum=0.9, nesterov=True).step()
    assert torch.allclose(part.bias, other.bias)


def test_a_rate_that_is_changed_between_steps_is_the_rate_of_the_next():
    part = with_gradients(convolution())
    made = MuonAndSgd(groups(part), momentum=0.9, nesterov=True)
    made.step()
    before = part.weight.detach().clone()
    made.param_groups[0]["lr"] = 0.0
    with_gradients(part)
    made.step()
    assert torch.allclose(part.weight * before.norm() / part.weight.norm(), before, atol=1e-6)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_each_optimiser_of_a_recipe_can_be_made(kind, tmp_path):
    network = build_network(RECIPE, 2, root=tmp_path, seed=1)
    made = make_optimiser(replace(RECIPE, optimiser=kind), network)
    assert [group["params"] for group in made.param_groups] == split_parameters(network)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_in_one_cycle_the_momentum_falls_while_the_rate_of_each_group_rises(kind, tmp_path):
    recipe = replace(RECIPE, optimiser=kind, momentum=0.95, discriminative_ratio=9.0)
    made = make_optimiser(recipe, build_network(recipe, 2, root=tmp_path, seed=1))
    groups = len(made.param_groups) // KINDS
    peaks = list_rates(recipe, recipe.learning_rate, groups=groups)
    for share, factor, momentum in ((0.0, 1 / 25, 0.95), (0.25, 1.0, 0.85), (1.0, 1e-5, 0.95)):
        set_rates(made, schedule(recipe, groups=groups), share)
        assert [group["lr"] for group in made.param_groups] == pytest.approx(peaks * factor)
        momenta = [group["betas"][0] if kind == "adamw" else group["momentum"] for group in made.param_groups]
        assert momenta == pytest.approx([momentum] * len(peaks))
