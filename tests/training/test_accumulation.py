"""Several batches whose gradients are accumulated train as one large batch does, wherever a batch is not normalised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from podium.config.keys import Recipe
from podium.training.batches.stores import FitData, PixelStore
from podium.training.learner import fit_network
from podium.training.progress import Listener, ProgressRecorder

RECIPE = Recipe(
    architecture="timm:test_vit",
    epochs=2,
    learning_rate=0.1,
    optimiser="sgd",
    batch_size=80,
    training_pixels=32,
    precision="float32",
)


def fitted(**keys) -> tuple[list[torch.Tensor], ProgressRecorder, list[int]]:
    """Parameters after a training of 160 images, its progress, and the sizes of the batches that layers got."""
    torch.set_num_threads(1)
    recipe, labels, sizes = replace(RECIPE, **keys), np.arange(160) % 4 // 3, []
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    data = FitData(PixelStore(images, torch.device("cpu")), labels, 2, np.arange(160), np.arange(0))
    progress = ProgressRecorder(Listener(), images=recipe.images_per_epoch(160) * recipe.epochs)

    def record(module, inputs):
        if module.training and isinstance(module, torch.nn.LayerNorm):
            sizes.append(len(inputs[0]))

    with torch.nn.modules.module.register_module_forward_pre_hook(record):
        trained = fit_network(recipe, data, seed=1, purpose="", root=Path(), progress=progress, stage="")
    return [value.detach() for value in trained.parameters()], progress, sizes


@pytest.mark.parametrize(
    "keys", [{"gradient_clip": 0.5}, {"mixup": 0.4, "ema_decay": 0.9}, {"class_weights": "balanced", "hard_share": 0.5}]
)
def test_accumulated_batches_give_the_gradient_of_one_large_batch(keys):
    whole, first, _ = fitted(**keys)
    parts, second, sizes = fitted(**keys, batch_size=20, accumulate=4)
    plain, *_ = fitted(**keys, batch_size=20)
    assert set(sizes) == {20}
    assert largest_difference(whole, parts) < 1e-5 < 1e-3 < largest_difference(whole, plain)
    assert [report.training_loss for report in first.epochs] == pytest.approx(
        [report.training_loss for report in second.epochs], abs=2e-5
    )


def test_no_part_has_a_single_image_and_the_scaled_gradients_of_float16_give_the_step_of_float32(monkeypatch):
    start, *_ = fitted(batch_size=160, epochs=1, learning_rate=1e-9)
    whole, *_ = fitted(batch_size=160, epochs=1)
    monkeypatch.setattr("podium.training.networks.architectures.pick_precision", lambda *_: torch.float16)
    parts, _, sizes = fitted(batch_size=2, accumulate=500, epochs=1)
    assert set(sizes) == {2}
    assert largest_difference(whole, parts) < 1e-3 < 1e-2 < largest_difference(whole, start)


def largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def test_checkpointing_computes_features_twice_and_trains_the_same_network():
    plain, _, sizes = fitted(epochs=1)
    saved, _, more = fitted(epochs=1, gradient_checkpointing=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, saved, strict=True))
    assert len(more) > 1.5 * len(sizes)
