"""Augmentation: where pixels move, and that random numbers come from the given generator only."""

import pytest
import torch
import torch.nn.functional as F

from podium.config.keys import Augment
from podium.training.batches.augment import (
    Draws,
    apply_in_parts,
    change_light,
    cut_out,
    mixing_transform,
    pixel_transform,
    random_crop,
    rotate_and_zoom,
    shifted_positions,
    torchvision_draws,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_shift_or_flip_every_pixel_stays():
    positions = shifted_positions(2, 3, augment=Augment(), draws=Draws(generator()))
    assert torch.equal(positions, torch.arange(9).view(1, 3, 3).expand(2, 3, 3))


def test_a_shift_is_the_same_for_a_whole_image_and_mirrors_the_edge():
    line = torch.arange(5)
    expected = {
        tuple(position if 0 <= position < 5 else (-position if position < 0 else 8 - position) for position in shifted)
        for shifted in (list((line + shift).tolist()) for shift in (-2, -1, 0, 1, 2))
    }
    positions = shifted_positions(200, 5, augment=Augment(shift_pixels=2), draws=Draws(generator()))
    rows = {tuple(row.tolist()) for row in positions[:, :, 0] // 5}
    columns = {tuple(column.tolist()) for column in positions[:, 0, :] % 5}
    assert rows == columns == expected


def test_a_flip_mirrors_about_half_of_the_images():
    positions = shifted_positions(400, 4, augment=Augment(flip="horizontal"), draws=Draws(generator()))
    flipped = (positions[:, 0, 0] == 3).sum().item()
    assert torch.equal(positions[:, 0].unique(dim=0), torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]]))
    assert 150 < flipped < 250


def test_rotation_without_an_angle_and_zoom_changes_nothing():
    images = torch.rand(3, 3, 8, 8, generator=generator())
    turned = rotate_and_zoom(images, augment=Augment(), draws=Draws(generator()))
    assert torch.allclose(turned, images, atol=1e-6)


def test_rotation_keeps_the_middle_of_a_symmetric_image():
    images = torch.zeros(4, 3, 9, 9)
    images[:, :, 4, 4] = 1
    turned = rotate_and_zoom(images, augment=Augment(rotate_degrees=30), draws=Draws(generator()))
    assert torch.allclose(turned[:, :, 4, 4], torch.ones(4, 3), atol=1e-4)
    assert not torch.allclose(turned, images)


def test_height_and_width_are_shifted_flipped_and_rotated_each_as_in_a_square():
    square = torch.rand(6, 3, 32, 32, generator=generator())
    square = F.avg_pool2d(square, 5, stride=1, padding=2)
    wide = square[:, :, 8:24]
    keys = {"augment": Augment(rotate_degrees=20, zoom=1.2)}
    turned, part = (rotate_and_zoom(images, **keys, draws=Draws(generator(3))) for images in (square, wide))
    assert torch.allclose(part[:, :, 5:11, 8:24], turned[:, :, 13:19, 8:24], atol=1e-4)
    keys = {"augment": Augment(flip="horizontal", shift_pixels=3)}
    moved = shifted_positions(50, (16, 32), **keys, draws=Draws(generator(3)))
    same = shifted_positions(50, 32, **keys, draws=Draws(generator(3)))
    assert moved.shape == (50, 16, 32) and torch.equal(moved % 32, same[:, :16] % 32)
    assert torch.equal(moved[:, 3:-3] // 32, same[:, 3:13] // 32) and moved.max() == 16 * 32 - 1


def cropped(images, pixels, *, crop, seed=0):
    return random_crop(images, pixels, augment=Augment(crop=crop), draws=Draws(generator(seed)))


@pytest.mark.parametrize("pixels", [7, 16, 24, (7, 24)])
def test_a_crop_of_the_whole_image_is_a_plain_resize(pixels):
    images = torch.rand(3, 3, 16, 12, generator=generator())
    expected = F.interpolate(images, size=pixels, mode="bilinear", antialias=True)
    assert torch.allclose(cropped(images, pixels, crop=1.0), expected, atol=1e-5)


def test_a_crop_repeats_with_its_stream_and_differs_from_image_to_image():
    images = torch.rand(1, 3, 16, 16, generator=generator()).expand(4, 3, 16, 16)
    first = cropped(images, 8, crop=0.3)
    assert torch.equal(first, cropped(images, 8, crop=0.3)) and not torch.equal(
        first, cropped(images, 8, crop=0.3, seed=1)
    )
    assert not torch.allclose(first[0], first[1], atol=1e-3)


def boxes(crop):
    """Centre, height and width of 2,000 random boxes, as shares of the side, read from an image of its coordinates."""
    line = (torch.arange(16) + 0.5) / 16
    images = torch.stack([line[:, None].expand(16, 16), line[None, :].expand(16, 16), torch.zeros(16, 16)])
    parts = cropped(images.expand(2000, 3, 16, 16), 32, crop=crop)
    down, right = parts[:, 0, :, 0], parts[:, 1, 0, :]
    # Where an image is enlarged, the coordinates of all but its edges are interpolated exactly.
    lengths = [(values[:, 20] - values[:, 11]) / 9 * 32 for values in (down, right)]
    centres = [(values[:, 15] + values[:, 16]) / 2 for values in (down, right)]
    return torch.stack(centres), torch.stack(lengths)


def test_crops_have_the_areas_and_shapes_that_are_asked_for_and_lie_inside_the_image():
    centres, (height, width) = boxes(0.3)
    area, ratio = height * width, height / width
    assert 0.299 < area.min() < 0.31 and 0.99 < area.max() < 1.001 and 0.63 < area.mean() < 0.67
    assert 0.749 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.334
    starts, ends = centres - torch.stack([height, width]) / 2, centres + torch.stack([height, width]) / 2
    assert -1e-3 < starts.min() < 0.01 and 0.99 < ends.max() < 1.001


def test_light_changes_stay_between_black_and_white():
    images = torch.rand(50, 3, 4, 4, generator=generator())
    changed = change_light(images, augment=Augment(brightness=0.9, contrast=0.9), draws=Draws(generator()))
    assert changed.min() >= 0 and changed.max() <= 1 and not torch.equal(changed, images)


def test_cutout_blanks_one_square_at_most_of_its_side():
    cut = cut_out(torch.ones(100, 3, 8, 8), augment=Augment(cutout_pixels=4), draws=Draws(generator()))
    blank = (cut == 0).sum(dim=(1, 2, 3)) / 3
    assert blank.max() == 16 and blank.min() >= 4  # a centre in a corner leaves a quarter of it


def test_mixing_keeps_every_target_a_distribution_and_matches_its_share_of_pixels():
    images, labels = torch.arange(10.0)[:, None, None, None].expand(10, 3, 8, 8), torch.arange(10)
    mixed_batches = 0
    for mixup, cutmix in ((0.5, 0.0), (0.0, 1.0), (0.5, 1.0)):
        mix = mixing_transform(mixup, cutmix, classes=10)
        with torchvision_draws(generator(3)):
            batches = [mix(images, labels) for _ in range(8)]
        for mixed, shares in batches:
            assert torch.allclose(shares.sum(dim=1), torch.ones(10))
            assert torch.allclose(mixed.mean(dim=(1, 2, 3)), shares @ torch.arange(10.0), atol=1e-5)
            mixed_batches += bool((shares > 0.01).sum() == 20)
        are_pasted = [len(mixed[5].unique()) == 2 for mixed, _ in batches]  # cutmix keeps pixels, mixup changes them
        assert any(are_pasted) == bool(cutmix) and not (mixup and all(are_pasted))
    assert mixed_batches > 12 and mixing_transform(0.0, 0.0, classes=10) is None


def test_torchvisions_transforms_repeat_from_their_stream_and_are_drawn_for_each_image_of_a_small_batch():
    images = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8, generator=generator()).expand(40, 3, 16, 16)
    state = torch.get_rng_state()
    for keys in ({"rand_augment": 9}, {"trivial_augment": True}, {"saturation": 0.5}, {"hue": 0.5}):
        transform, draws = pixel_transform(Augment(**keys), (0.5, 0.5, 0.5)), generator(5)
        first, second = (apply_in_parts(transform, images, generator=draws) for _ in range(2))
        assert torch.equal(first, apply_in_parts(transform, images, generator=generator(5)))
        assert not torch.equal(first, second) and first.dtype == torch.uint8 and first.shape == images.shape
        assert len(first.unique(dim=0)) > 10, keys
        assert torch.equal(first[0], first[1]), "forty images have 32 draws: the first eight are for two images"
    assert torch.equal(state, torch.get_rng_state())
    assert pixel_transform(Augment(brightness=0.5, erase=0.5), (0.5, 0.5, 0.5)) is None


def test_what_randaugment_moves_into_the_image_is_the_mean_colour():
    (policy,) = pixel_transform(Augment(rand_augment=30), (0.2, 0.4, 0.6)).transforms
    images = torch.full((1, 3, 9, 9), 255, dtype=torch.uint8)
    moved = policy._apply_image_or_video_transform(
        images, "TranslateX", 3.0, interpolation=policy.interpolation, fill=policy._fill
    )
    assert moved[0, :, 4, 0].tolist() == [51, 102, 153] and moved[0, :, 4, 8].tolist() == [255] * 3


def test_augmentation_repeats_from_its_seed_and_leaves_the_global_stream_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    augment = Augment(flip="horizontal", shift_pixels=2)
    first = shifted_positions(20, 8, augment=augment, draws=Draws(generator(5)))
    assert torch.equal(first, shifted_positions(20, 8, augment=augment, draws=Draws(generator(5))))
    assert not torch.equal(first, shifted_positions(20, 8, augment=augment, draws=Draws(generator(6))))
    assert torch.equal(before, torch.get_rng_state())
