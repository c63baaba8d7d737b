"""The resident loader: every row once per epoch, in whole batches, with its own random stream."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from podium.config.keys import Augment, Recipe
from podium.data import image_file
from podium.targets.target import Target
from podium.training import inference
from podium.training.batches.augment import resize
from podium.training.batches.loader import TrainingLoader
from podium.training.batches.stores import FitData, Normalisation, PixelStore, measure_normalisation
from podium.training.inference import evaluation_batch, evaluation_batches

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
CPU = torch.device("cpu")


def numbered(count: int, side: int = 4) -> np.ndarray:
    """Images whose every pixel is the row's number."""
    return np.repeat(np.arange(count, dtype=np.uint8), side * side * 3).reshape(count, side, side, 3)


def training(count: int, *, seed: int = 1, **keys) -> TrainingLoader:
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, training_pixels=8, **keys)
    return loader_of(recipe, numbered(count), np.arange(count) % 2, seed=seed)


def loader_of(recipe: Recipe, images: np.ndarray, labels: np.ndarray, *, seed: int = 1) -> TrainingLoader:
    rows = np.arange(len(images))
    data = FitData(PixelStore(images, CPU), labels, len(np.unique(labels)), rows, rows[:0], seed=seed)
    return TrainingLoader(recipe, data, normalisation=PLAIN)


def network_of(*, normalisation: Normalisation = PLAIN, **keys) -> SimpleNamespace:
    """What the images that a network predicts depend on."""
    return SimpleNamespace(recipe=Recipe(architecture="fastnet", **keys), normalisation=normalisation)


def rows_of(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_an_epoch_has_every_row_once_with_its_label_in_batches_of_nearly_one_size():
    loader = training(23, batch_size=5)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert {len(images) for images, _ in batches} == {4, 5}
    rows = [row for images, _ in batches for row in rows_of(images)]
    labels = [label for _, part in batches for label in part.tolist()]
    assert sorted(rows) == list(range(23)) and rows != list(range(23))
    assert labels == [row % 2 for row in rows]


@pytest.mark.parametrize(("count", "sizes"), [(1, {1}), (2, {2}), (3, {3}), (7, {2, 3})])
def test_no_training_batch_has_a_single_image_where_there_are_more(count, sizes):
    loader = training(count, batch_size=2)
    batches = [len(images) for images, _ in loader]
    assert set(batches) == sizes and sum(batches) == count and len(batches) == len(loader)


def hard_epoch(loader: TrainingLoader, losses: list[float]) -> list[int]:
    """The rows of one epoch; each then gets its loss."""
    rows = []
    for images, labels in loader:
        batch_rows = rows_of(images)
        assert labels.tolist() == [row % 2 for row in batch_rows]
        loader.record_losses(torch.tensor([losses[row] for row in batch_rows]))
        rows += batch_rows
    return rows


def test_a_hard_share_learns_from_what_it_never_saw_then_from_what_had_the_largest_loss():
    loader = training(20, batch_size=20, hard_share=0.5)
    losses = [float(row) for row in range(20)]
    first, second = hard_epoch(loader, losses), hard_epoch(loader, losses)
    assert sorted(first + second) == list(range(20)) and len(loader) == 1
    assert sorted(hard_epoch(loader, [0.0] * 20)) == list(range(10, 20))
    # The selected rows have small losses now; the skipped rows kept theirs.
    assert set(hard_epoch(loader, losses)) > set(range(1, 10))


def test_a_hard_share_is_taken_of_each_stretch_of_the_order_and_is_as_many_rows_as_it_says():
    loader = training(50, batch_size=6, hard_share=0.7)
    sizes = [len(images) for images, _ in loader]
    assert sum(sizes) == 35 and len(sizes) == len(loader) == 6 and set(sizes) == {5, 6}
    (easy, _), *_ = training(20, batch_size=2, hard_share=0.1)
    assert len(easy) == 2


def test_a_skipped_image_is_mirrored_the_next_time_it_is_selected():
    images = np.zeros((8, 4, 4, 3), dtype=np.uint8)
    images[:, :, 0] = np.arange(8)[:, None, None] + 1  # the left column has the number, the rest is black
    recipe = Recipe(architecture="fastnet", epochs=1, learning_rate=0.1, hard_share=0.5, training_pixels=4)
    recipe = replace(recipe, augment=Augment(flip="alternating"))
    loader = loader_of(recipe, images, np.arange(8))
    shown: dict[int, list[bool]] = {row: [] for row in range(8)}
    for _ in range(8):
        for batch, labels in loader:
            for row, left in zip(labels.tolist(), rows_of(batch), strict=True):
                shown[row].append(left == 0)
            loader.record_losses(torch.zeros(len(labels)))
    assert sum(map(len, shown.values())) == 8 * 4
    assert all(turn != next_turn for turns in shown.values() for turn, next_turn in pairwise(turns))


def test_balanced_sampling_shows_each_class_equally_often_and_a_frequent_row_at_most_once():
    labels = np.array([0] * 30 + [1] * 7 + [3] * 3)  # no row of class 2
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, batch_size=8, sampling="balanced")
    epochs = []
    for loader in (loader_of(recipe, numbered(40, side=32), labels), loader_of(recipe, numbered(40, side=32), labels)):
        batches = [(rows_of(images), targets.tolist()) for _ in range(2) for images, targets in loader]
        assert [len(rows) for rows, _ in batches] == [8] * 10
        assert all(label == labels[row] for rows, targets in batches for row, label in zip(rows, targets, strict=True))
        epochs.append([[row for rows, _ in part for row in rows] for part in (batches[:5], batches[5:])])
    assert epochs[0] == epochs[1] and epochs[0][0] != epochs[0][1]
    for rows in epochs[0]:
        times = np.bincount(rows, minlength=40)
        assert sorted(np.bincount(labels[rows])[[0, 1, 3]]) == [13, 13, 14]
        assert times[:30].max() == 1 and set(times[30:37]) <= {1, 2} and set(times[37:]) <= {4, 5}
        assert labels[rows].tolist() != sorted(labels[rows])


def test_balanced_sampling_of_ordered_classes_shows_each_grade_equally_often():
    labels, target = np.array([0] * 30 + [1] * 7 + [2] * 3), Target("ordinal", 3)
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, batch_size=8, sampling="balanced")
    rows = np.arange(40)
    data = FitData(PixelStore(numbered(40, side=32), CPU), labels, 1, rows, rows[:0], target)
    loader = TrainingLoader(recipe, data, normalisation=PLAIN)
    shown = [row for images, _ in loader for row in rows_of(images)]
    assert sorted(np.bincount(labels[shown])) == [13, 13, 14]


def test_epochs_differ_and_seeds_differ_and_one_seed_repeats():
    def orders(seed: int) -> list[list[int]]:
        loader = training(40, batch_size=40, seed=seed)
        return [rows_of(images) for _ in range(2) for images, _ in loader]

    assert orders(1) == orders(1)
    assert orders(1)[0] != orders(1)[1] and orders(1) != orders(2)


def test_shuffled_blocks_show_each_row_once_and_use_few_blocks_at_a_time(monkeypatch):
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 5 * 4 * 4 * 3)  # five rows
    monkeypatch.setattr(image_file, "WINDOW_BYTES", 20 * 4 * 4 * 3)
    loader = training(200, batch_size=10, shuffle="blocks")
    epochs = [np.array([row for images, _ in loader for row in rows_of(images)]) for _ in range(2)]
    for rows in epochs:
        assert sorted(rows) == list(range(200))
        steps = np.argsort(rows).reshape(40, 5)  # when each row of each block is shown
        assert np.ptp(steps, axis=1).max() < 2 * 20, "the rows of a block are shown within two windows"
        assert np.ptp(steps, axis=1).mean() > 5 and abs(np.corrcoef(np.arange(200), rows)[0, 1]) < 0.4
    assert not np.array_equal(*epochs)
    assert np.array_equal(epochs[0], [row for images, _ in training(200, shuffle="blocks") for row in rows_of(images)])


def test_a_crop_has_the_size_of_the_stage_and_shows_a_part_of_the_image():
    images = np.tile(np.arange(0, 128, 8, dtype=np.uint8)[:, None, None], (20, 1, 16, 3))  # brighter at the bottom
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, training_pixels=8)
    spreads = []
    for crop in (1.0, 0.2):
        loader = loader_of(replace(recipe, augment=Augment(crop=crop)), images, np.arange(20) % 2)
        loader.pixels = 6
        batch = torch.cat([images for images, _ in loader])
        assert batch.shape == (20, 3, 6, 6)
        spreads.append(batch[:, 0, -1, 0] - batch[:, 0, 0, 0])
    whole, part = spreads
    assert len(whole.unique()) == 1 and len(part.unique()) > 10 and part.max() < whole[0]


def test_switching_augmentation_on_does_not_change_the_order():
    plain = training(30, batch_size=10)
    augmented = training(30, batch_size=10, augment=Augment(flip="horizontal", shift_pixels=1))
    assert [rows_of(images) for images, _ in plain] == [rows_of(images) for images, _ in augmented]


def test_torchvisions_transforms_change_stored_pixels_and_no_other_stream():
    keys = {"rand_augment": 20, "saturation": 0.9, "hue": 0.5, "erase": 1.0}
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, training_pixels=8, batch_size=10)

    def epochs(**keys) -> torch.Tensor:
        loader = loader_of(replace(recipe, augment=Augment(shift_pixels=1, **keys)), images, np.arange(30) % 2)
        return torch.cat([images for _ in range(2) for images, _ in loader])

    plain, changed, again = epochs(), epochs(**keys), epochs(**keys)
    assert torch.equal(changed, again) and changed.shape == plain.shape
    assert not torch.isclose(changed, plain).flatten(1).all(dim=1).any()
    erased = epochs(erase=1.0)
    assert ((erased == 0).flatten(1).sum(1) >= 3).all() and torch.equal(erased[erased != 0], plain[erased != 0])


def test_mixed_batches_have_shares_of_classes_as_targets():
    (_, targets), *_ = list(training(16, batch_size=16, mixup=0.4))
    assert targets.shape == (16, 2) and torch.allclose(targets.sum(dim=1), torch.ones(16))


def test_evaluation_gives_the_rows_asked_for_in_their_order_normalised_and_resized(monkeypatch):
    monkeypatch.setattr(inference, "EVALUATION_BATCH", 2)
    network = network_of(training_pixels=8, normalisation=Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    parts = list(evaluation_batches(network, PixelStore(numbered(9), CPU), np.array([7, 2, 5])))
    assert [len(part) for part in parts] == [2, 1]
    images = torch.cat(parts)
    assert images.shape == (3, 3, 8, 8) and images.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(images[:, 0, 0, 0], (torch.tensor([7, 2, 5]) / 255 - 0.5) / 0.25, atol=1e-6)


def test_a_cpu_predicts_fewer_images_at_once_the_larger_they_are():
    sizes = {pixels: evaluation_batch(pixels, CPU) for pixels in (32, 64, 128, 224, 1024)}
    assert sizes == {32: 256, 64: 128, 128: 32, 224: 10, 1024: 1}
    assert evaluation_batch(224, torch.device("cuda")) == 256
    store = PixelStore(numbered(9), CPU)
    batches = evaluation_batches(network_of(training_pixels=512), store, np.arange(9))
    assert [len(images) for images in batches] == [2, 2, 2, 2, 1]


def test_normalisation_is_mean_and_deviation_of_the_rows_given_alone():
    images = np.zeros((4, 2, 2, 3), dtype=np.uint8)
    images[1], images[3] = 255, 77
    measured = measure_normalisation(images, np.array([0, 1]))
    assert measured.mean == pytest.approx((0.5, 0.5, 0.5))
    assert measured.deviation == pytest.approx((0.5, 0.5, 0.5))


def test_resizing_to_the_same_side_is_the_same_tensor():
    images = torch.rand(1, 3, 8, 8)
    assert resize(images, 8) is images and resize(images, 4).shape == (1, 3, 4, 4)


def test_bicubic_interpolation_is_that_of_training_validation_and_prediction():
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    batches = {}
    for interpolation in ("bilinear", "bicubic"):
        recipe = Recipe(architecture="fastnet", training_pixels=8, interpolation=interpolation)
        loader = loader_of(recipe, images, np.zeros(8))
        network = network_of(training_pixels=8, interpolation=interpolation)
        evaluated = next(evaluation_batches(network, loader.store, np.arange(8)))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        assert torch.allclose(evaluated, F.interpolate(pixels, size=8, mode=interpolation), atol=1e-5)
        batches[interpolation] = next(iter(loader))[0]
    assert (batches["bilinear"] - batches["bicubic"]).abs().max() > 0.05


def test_a_resize_averages_the_side_that_it_reduces():
    stripes = (torch.arange(64) % 8 == 0).float().expand(1, 3, 8, 64)  # of which a bilinear sample sees none
    for pixels in ((8, 8), (16, 8)):
        reduced = resize(stripes, pixels)
        assert reduced.shape[2:] == pixels and (reduced - 1 / 8).abs()[..., 1:-1].max() < 0.01
    assert torch.equal(resize(stripes, (8, 64)), stripes)


def test_images_of_any_height_and_width_are_augmented_and_resized_to_the_size_of_the_stage():
    images = np.tile(
        np.arange(0, 240, 10, dtype=np.uint8)[None, None, :, None], (12, 16, 1, 3)
    )  # brighter to the right
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, stored_pixels=(16, 24), batch_size=6)
    everything = {"shift_pixels": 2, "rotate_degrees": 5, "zoom": 1.1, "crop": 0.5, "brightness": 0.1, "hue": 0.1}
    for augment in (Augment(), Augment(flip="horizontal", rand_augment=3, cutout_pixels=4, erase=0.5, **everything)):
        loader = loader_of(replace(recipe, augment=augment, mixup=0.2, cutmix=0.2), images, np.arange(12) % 2)
        assert next(iter(loader))[0].shape == (6, 3, 16, 24)
        loader.pixels = (8, 12)
        assert next(iter(loader))[0].shape == (6, 3, 8, 12)
    (plain, _), *_ = loader_of(recipe, images, np.arange(12) % 2)
    assert torch.allclose(plain[0, 0] * 255, torch.arange(0.0, 240, 10).expand(16, 24), atol=1e-3)


def test_alternating_flips_show_each_image_and_its_mirror_in_two_epochs():
    images = np.zeros((30, 4, 4, 3), dtype=np.uint8)
    images[:, :, 0] = np.arange(30)[:, None, None] + 1  # the left column has the number, the rest is black
    recipe = Recipe(architecture="fastnet", epochs=1, learning_rate=0.1, augment=Augment(flip="alternating"))
    loader = loader_of(replace(recipe, training_pixels=4), images, np.zeros(30))
    left = [{row - 1 for batch, _ in loader for row in rows_of(batch) if row} for _ in range(3)]
    assert left[0] == left[2] and not left[0] & left[1]
    assert left[0] | left[1] == set(range(30)) and 5 < len(left[0]) < 25
