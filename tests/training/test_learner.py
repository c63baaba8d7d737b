"""A fit repeats bit for bit, and each key of a recipe does what it says."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from podium.config.keys import FastNet, Recipe
from podium.errors import TrainingError
from podium.metrics import log_losses, softmax
from podium.training import learner as learner_module
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, PixelStore
from podium.training.inference import logits_of, predict_logits
from podium.training.learner import Learner, fit_network, prepare_network
from podium.training.lr_find import find_learning_rate
from podium.training.networks import architectures
from podium.training.optimisers import constant, list_rates, set_rates
from podium.training.progress import EpochReport, Listener, ProgressRecorder, write_history
from training_toys import FAST, TINY, data_of, save_weights


class EpochRecorder(Listener):
    def __init__(self):
        self.reports: list[EpochReport] = []
        self.notes: list[str] = []

    def note(self, text):
        self.notes.append(text)

    def epoch(self, report):
        self.reports.append(report)


def trained(recipe: Recipe, folder, *, seed: int = 1):
    torch.set_num_threads(1)
    data, listener = replace(data_of(), seed=seed), EpochRecorder()
    images = recipe.images_per_epoch(80) * (recipe.epochs + recipe.freeze_epochs)
    if recipe.learning_rate == "find":
        result = find_learning_rate(recipe, data, root=folder)
        recipe = replace(recipe, learning_rate=result.rate)
    progress = ProgressRecorder(listener, images=images)
    network = fit_network(recipe, data, root=folder, progress=progress)
    write_history(folder / "history.csv", [asdict(report) for report in progress.epochs])
    return network, logits_of(network, data.store, data.validation_rows), listener


def accuracy(logits: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == np.arange(80, 120) % 2).mean())


def test_two_trainings_of_one_seed_agree_bit_for_bit_and_another_seed_does_not(tmp_path):
    recipe = replace(TINY, dropout=0.2, mixup=0.2)
    _, first, _ = trained(recipe, tmp_path)
    torch.manual_seed(99)
    _, again, _ = trained(recipe, tmp_path)
    _, other, _ = trained(recipe, tmp_path, seed=2)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"optimiser": "sgd", "learning_rate": 0.1, "gradient_clip": 1.0},
        {"schedule": "cosine", "label_smoothing": 0.1},
        {"schedule": "flat-cosine", "test_time_augmentation": "flip"},
        {"schedule": "triangular", "test_time_augmentation": "flip-and-shift"},
        {"schedule": "constant", "ema_decay": 0.9},
        {"epochs": 8, "mixup": 0.2, "cutmix": 0.5, "progressive_pixels": (8, 12)},
        {"epochs": 12, "hard_share": 0.5},
        {"epochs": 12, "hard_share": 0.5, "mixup": 0.2},
        {"training_pixels": 24, "discriminative_ratio": 10.0},
        {"class_weights": "balanced", "focal_gamma": 1.0, "epochs": 12},
    ],
    ids=lambda keys: "-".join(keys) or "plain",
)
def test_each_key_trains_a_network_that_classifies_easy_images(tmp_path, keys):
    recipe = replace(TINY, **({"epochs": 6} | keys))
    _, logits, listener = trained(recipe, tmp_path)
    assert logits.shape == (40, 2) and logits.dtype == np.float32
    assert accuracy(logits) > 0.9
    assert [report.epoch for report in listener.reports] == list(range(1, recipe.epochs + 1))


def test_with_a_hard_share_the_loader_gets_the_losses_of_the_training(tmp_path, monkeypatch):
    recorded: list[torch.Tensor] = []
    monkeypatch.setattr(TrainingLoader, "record_losses", lambda loader, losses: recorded.append(losses))
    recipe = replace(TINY, hard_share=0.5, label_smoothing=0.1, epochs=2)
    _, _, listener = trained(recipe, tmp_path)
    assert [len(losses) for losses in recorded] == [20, 20] * 2  # 40 of 80 rows an epoch
    assert listener.notes[0].startswith("2 epochs of 40 images, cpu")
    means = [float(torch.cat(recorded[epoch : epoch + 2]).mean()) for epoch in (0, 2)]
    assert means == pytest.approx([report.training_loss for report in listener.reports], abs=1e-4)
    recorded.clear()
    trained(TINY, tmp_path)
    assert not recorded


def test_the_last_epochs_accuracy_and_loss_are_those_of_the_logits(tmp_path):
    for keys in ({}, {"ema_decay": 0.8}):
        _, logits, listener = trained(replace(TINY, **keys), tmp_path)
        last, labels = listener.reports[-1], data_of().labels[data_of().validation_rows]
        assert last.validation_accuracy == pytest.approx(accuracy(logits), abs=1e-5)
        assert last.validation_loss == pytest.approx(log_losses(softmax(logits), labels).mean(), abs=1e-4)


def test_every_epoch_is_in_the_history_and_the_time_left_falls_to_zero(tmp_path):
    _, _, listener = trained(TINY, tmp_path)
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[0].startswith("stage,epoch,epochs,training_loss,validation_accuracy")
    left = [report.seconds_left for report in listener.reports]
    assert left == sorted(left, reverse=True) and left[-1] == 0


def test_lr_find_does_not_change_the_random_streams_of_the_run(tmp_path):
    network, logits, _ = trained(replace(TINY, learning_rate="find"), tmp_path)
    _, same, _ = trained(replace(TINY, learning_rate=network.recipe.learning_rate), tmp_path)
    assert np.array_equal(logits, same)


def test_lr_find_with_muon_and_dropout_repeats(tmp_path):
    recipe = replace(FAST, learning_rate="find", dropout=0.2, epochs=1)
    first, logits, _ = trained(recipe, tmp_path)
    torch.manual_seed(99)
    again, same, _ = trained(recipe, tmp_path)
    assert first.recipe.learning_rate == again.recipe.learning_rate and np.array_equal(logits, same)


def test_a_loss_that_is_not_finite_stops_the_run_and_its_step_is_named(tmp_path, monkeypatch):
    original, steps = Learner.step, []

    def step(self, images, targets):  # 4 in an epoch
        steps.append(images)
        return original(self, images, targets) * (torch.nan if len(steps) == 6 else 1)

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(TrainingError, match=r"(?s)diverged.*nan at step 6, in epoch 2 of 3 \(train\)"):
        trained(TINY, tmp_path)
    assert len(steps) == 8


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_frozen_layers_keep_their_parameters_until_the_freeze_epochs_are_over(tmp_path, monkeypatch, optimiser):
    kept = {}
    original = Learner.train_body

    def spy(self, is_trained):
        if is_trained:
            kept["body"] = [p.detach().clone() for p in self.network.layer_groups()[0] if p.ndim > 1]
            kept["norms"] = [p.detach().clone() for p in self.network.layer_groups()[0] if p.ndim == 1]
            kept["head"] = [p.detach().clone() for p in self.network.layer_groups()[2]]
            assert self.optimiser.state
        original(self, is_trained)
        assert not self.optimiser.state, "as in fastai, the optimiser starts anew"

    monkeypatch.setattr(Learner, "train_body", spy)
    seed = replace(data_of(), seed=1).stream("network")
    start = learner_module.build_network(TINY, 2, root=tmp_path, seed=seed).layer_groups()
    fitted, _, listener = trained(replace(TINY, freeze_epochs=1, optimiser=optimiser), tmp_path)
    assert [report.stage for report in listener.reports] == ["freeze", "train", "train", "train"]
    body = [p for p in start[0] if p.ndim > 1]
    assert all(torch.equal(a, b) for a, b in zip(body, kept["body"], strict=True))
    norms = [p for p in start[0] if p.ndim == 1]
    assert not any(torch.equal(a, b) for a, b in zip(norms, kept["norms"], strict=True)), "as fastai's train_bn"
    assert not all(torch.equal(a, b) for a, b in zip(start[2], kept["head"], strict=True))
    final = [p for p in fitted.layer_groups()[0] if p.ndim > 1]
    assert not all(torch.equal(a, b) for a, b in zip(body, final, strict=True))


def test_early_layers_biases_and_muons_filters_have_their_own_rates():
    rates = list_rates(replace(TINY, discriminative_ratio=100, bias_ratio=2), 0.1, groups=3)
    assert rates == pytest.approx([0.001, 0.001, 0.002, 0.01, 0.01, 0.02, 0.1, 0.1, 0.2])
    rates = list_rates(replace(TINY, optimiser="muon", muon_rate=0.5, bias_ratio=2), 0.1, groups=2)
    assert rates == pytest.approx([0.5, 0.1, 0.2, 0.5, 0.1, 0.2])


def test_during_the_frozen_epochs_each_kind_of_parameters_has_its_own_rate(tmp_path, monkeypatch):
    schedules = []
    fit = Learner.fit

    def spy(self, epochs, rates, **options):
        schedules.append(rates[0])
        fit(self, epochs, rates, **options)

    monkeypatch.setattr(Learner, "fit", spy)
    keys = {"freeze_epochs": 1, "epochs": 1, "learning_rate": 0.1, "bias_ratio": 2.0, "discriminative_ratio": 100.0}
    trained(replace(TINY, **keys), tmp_path)
    trained(replace(TINY, optimiser="muon", muon_rate=0.5, **keys), tmp_path)
    assert schedules[0](0.99) == pytest.approx([0.1, 0.1, 0.2] * 3)
    assert schedules[2](0.99) == pytest.approx([0.5, 0.1, 0.2] * 3)


def test_a_vision_transformer_trains_and_repeats_with_growing_images_and_a_rate_for_each_layer(tmp_path):
    keys = {"training_pixels": 32, "progressive_pixels": (16,), "layer_decay": 0.8, "drop_path": 0.1, "ema_decay": 0.9}
    recipe = replace(TINY, architecture="timm:test_vit", learning_rate=0.003, epochs=4, **keys)
    _, first, _ = trained(recipe, tmp_path)
    _, again, _ = trained(recipe, tmp_path)
    assert np.array_equal(first, again) and accuracy(first) > 0.9


def test_the_filters_of_the_first_layer_of_a_fastnet_are_not_trained(tmp_path):
    short, _, _ = trained(replace(FAST, epochs=1), tmp_path)
    long, logits, _ = trained(FAST, tmp_path)
    first, second = short.body[0], long.body[0]
    assert first.filters.abs().sum() > 0 and torch.equal(first.filters, second.filters)
    assert not torch.equal(first.bias, second.bias) and accuracy(logits) > 0.9


@pytest.mark.parametrize("keys", [{"frozen_stages": 1}, {"frozen_norms": True}])
def test_frozen_batch_norms_keep_the_statistics_of_the_pretraining(tmp_path, keys):
    recipe = replace(TINY, pretrained=save_weights(tmp_path), **keys)
    weights = load_file(tmp_path / "weights.safetensors")
    body = trained(recipe, tmp_path)[0].body
    changed = [
        not torch.equal(layer.running_mean, weights[f"{name}.running_mean"])
        for name, layer in body.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
    ]
    assert changed == sorted(changed), "the first layers are the frozen ones"
    assert not changed[0]
    assert any(changed) == ("frozen_stages" in keys)


def test_an_epoch_is_validated_on_at_most_epoch_rows_rows(tmp_path, monkeypatch):
    class LabelRecorder(Listener):
        def validation(self, logits, labels):
            self.labels = labels

    monkeypatch.setattr(learner_module, "EPOCH_ROWS", 10)
    data, listener = replace(data_of(), labels=np.arange(120) // 4 % 2), LabelRecorder()
    learner = Learner(prepare_network(TINY, data, root=tmp_path), data)
    learner.validate(ProgressRecorder(listener, images=1))
    assert listener.labels.tolist() == [0, 1] * 5  # of every fourth row from 80 on


def test_bfloat16_keeps_the_parameters_in_float32(tmp_path):
    fitted, logits, _ = trained(replace(TINY, precision="bfloat16", epochs=1, training_pixels=64), tmp_path)
    assert fitted.precision == torch.bfloat16 and logits.dtype == np.float32
    assert {value.dtype for value in fitted.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_an_exception_leaves_autocast(tmp_path, monkeypatch, precision):
    def fail(*_):
        assert torch.is_autocast_enabled("cpu")
        raise InterruptedError

    monkeypatch.setattr(architectures, "pick_precision", lambda *_: precision)
    monkeypatch.setattr(torch.nn.Linear, "forward", fail)  # of the head
    with pytest.raises(InterruptedError):
        trained(TINY, tmp_path)
    assert not torch.is_autocast_enabled("cpu")


def test_float16_scales_the_loss_and_skips_steps_with_infinite_gradients(tmp_path, monkeypatch):
    scales = []
    update = Learner.update

    def spy(self):
        scales.append(self.scaler.get_scale())
        update(self)

    monkeypatch.setattr(architectures, "pick_precision", lambda *_: torch.float16)
    monkeypatch.setattr(Learner, "update", spy)
    fitted, logits, _ = trained(replace(TINY, epochs=6, gradient_clip=1.0), tmp_path)
    assert accuracy(logits) > 0.9 and logits.dtype == np.float32 and fitted.precision == torch.float16
    assert {value.dtype for value in fitted.parameters()} == {torch.float32}
    assert len(scales) == 6 * 4 and min(scales) >= 1024
    # A step whose gradients are not finite changes no parameter, and halves the scale.
    data = data_of()
    network = prepare_network(TINY, data, root=tmp_path)
    before = [value.clone() for value in network.parameters()]
    learner = Learner(network, data)
    set_rates(learner.optimiser, (constant(np.full(9, 0.1)), constant(0.9)), 0.0)
    for value in network.parameters():
        value.register_hook(lambda gradient: gradient * torch.inf)
    scale = learner.scaler.get_scale()
    for images, labels in learner.loader:
        learner.step(images, labels)
    assert learner.scaler.get_scale() == scale / 2**4
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_flip_averages_the_logits_of_an_image_and_its_mirror_image():
    class FirstColumn(torch.nn.Module):
        def forward(self, images):
            return images[:, :2, 0, 0]

    images = torch.arange(24.0).view(1, 3, 2, 4)
    logits = predict_logits(FirstColumn(), [images], views="flip")
    assert logits.tolist() == [[(0 + 3) / 2, (8 + 11) / 2]]


@pytest.mark.parametrize("architecture", ["fastnet", "timm:test_resnet", "timm:test_vit"])
def test_images_of_any_height_and_width_are_trained_and_predicted(tmp_path, architecture):
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 64, 3), dtype=np.uint8)
    data = FitData(PixelStore(images, torch.device("cpu")), np.arange(20) % 2, 2, np.arange(16), np.arange(16, 20))
    keys = {"stored_pixels": (32, 64), "progressive_pixels": ((16, 32),), "test_time_augmentation": "flip-and-shift"}
    recipe = replace(TINY, architecture=architecture, epochs=2, fastnet=FastNet(widths=(8,)), **keys)
    progress = ProgressRecorder(Listener(), images=32)
    trained = fit_network(recipe, data, root=tmp_path, progress=progress)
    assert logits_of(trained, data.store, np.arange(20)).shape == (20, 2)


def test_all_views_of_an_image_of_one_pixel_are_equal():
    class Colours(torch.nn.Module):
        def forward(self, images):
            return images[:, :2, 0, 0]

    images = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    logits = predict_logits(Colours(), [images], views="flip-and-shift")
    assert logits.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.1, 0.1 * (0.1 * 1 + 0.9 * 2) + 0.9 * 3),
        (0.9, 3 / 12 * (2 / 11 * 1 + 9 / 11 * 2) + 9 / 12 * 3),  # at most (1 + steps) / (10 + steps)
    ],
)
def test_the_average_of_parameters_and_running_statistics_soon_forgets_the_first_steps(tmp_path, decay, expected):
    data, recipe = data_of(), replace(TINY, ema_decay=decay)
    network = prepare_network(recipe, data, root=tmp_path)
    learner = Learner(network, data)
    learner.average = AveragedModel(network, use_buffers=True)
    norm, average = network.body.bn1, learner.average.module.body.bn1
    for value in (1.0, 2.0, 3.0):  # no parameter has a gradient, so that the optimiser does not change them
        norm.weight.data.fill_(value)
        norm.running_mean.fill_(value)
        learner.update()
    assert average.weight.tolist() == pytest.approx([expected] * len(norm.weight))
    assert average.running_mean.tolist() == pytest.approx([expected] * len(norm.weight))


# Several batches whose gradients are accumulated train as one large batch, if the layers normalise no batch.
VIT = Recipe(
    architecture="timm:test_vit",
    epochs=2,
    learning_rate=0.1,
    optimiser="sgd",
    batch_size=80,
    training_pixels=32,
    precision="float32",
)


def accumulated(**keys) -> tuple[list[torch.Tensor], ProgressRecorder, list[int]]:
    """Parameters after a training of 160 images, its progress, and the sizes of the batches that layers got."""
    torch.set_num_threads(1)
    recipe, labels, sizes = replace(VIT, **keys), np.arange(160) % 4 // 3, []
    images = np.random.default_rng(0).integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    data = FitData(PixelStore(images, torch.device("cpu")), labels, 2, np.arange(160), np.arange(0), seed=1)
    progress = ProgressRecorder(Listener(), images=recipe.images_per_epoch(160) * recipe.epochs)

    def record(module, inputs):
        if module.training and isinstance(module, torch.nn.LayerNorm):
            sizes.append(len(inputs[0]))

    with torch.nn.modules.module.register_module_forward_pre_hook(record):
        trained = fit_network(recipe, data, root=Path(), progress=progress)
    return [value.detach() for value in trained.parameters()], progress, sizes


@pytest.mark.parametrize(
    "keys", [{"gradient_clip": 0.5}, {"mixup": 0.4, "ema_decay": 0.9}, {"class_weights": "balanced", "hard_share": 0.5}]
)
def test_accumulated_batches_give_the_gradient_of_one_large_batch(keys):
    whole, first, _ = accumulated(**keys)
    parts, second, sizes = accumulated(**keys, batch_size=20, accumulate=4)
    plain, *_ = accumulated(**keys, batch_size=20)
    assert set(sizes) == {20}
    assert largest_difference(whole, parts) < 1e-5 < 1e-3 < largest_difference(whole, plain)
    assert [report.training_loss for report in first.epochs] == pytest.approx(
        [report.training_loss for report in second.epochs], abs=2e-5
    )


def test_no_part_has_a_single_image_and_the_scaled_gradients_of_float16_give_the_step_of_float32(monkeypatch):
    start, *_ = accumulated(batch_size=160, epochs=1, learning_rate=1e-9)
    whole, *_ = accumulated(batch_size=160, epochs=1)
    monkeypatch.setattr("podium.training.networks.architectures.pick_precision", lambda *_: torch.float16)
    parts, _, sizes = accumulated(batch_size=2, accumulate=500, epochs=1)
    assert set(sizes) == {2}
    assert largest_difference(whole, parts) < 1e-3 < 1e-2 < largest_difference(whole, start)


def largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def test_checkpointing_computes_features_twice_and_trains_the_same_network():
    plain, _, sizes = accumulated(epochs=1)
    saved, _, more = accumulated(epochs=1, gradient_checkpointing=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, saved, strict=True))
    assert len(more) > 1.5 * len(sizes)
