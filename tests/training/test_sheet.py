"""The sheet shows the images and labels that the training loader gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from digits_toys import damage_images, digits_workspace
from podium.config.keys import Augment, Recipe
from podium.data.cache import open_images
from podium.errors import DataError, TrainingError
from podium.training.drawing import save_png
from podium.training.sheet import Sheet, describe_augmentation, draw_sheet, make_sheet, spread_rows
from podium.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PODIUM_CACHE", raising=False)
        yield digits_workspace(tmp_path_factory.mktemp("sheet"))


def sheet_of(workspace: Workspace, *, seed: int = 1, **keys) -> Sheet:
    (run,) = workspace.runs
    return make_sheet(workspace, replace(run, seed=seed, recipe=replace(run.recipe, **keys)))


def test_without_augmentation_the_draws_are_the_stored_pixels(workspace):
    sheet = sheet_of(workspace)
    assert len(sheet.draws) == 8 and sheet.description.startswith("no augmentation.")
    assert all(np.array_equal(images, sheet.stored) for images in sheet.draws)
    # Also with the normalisation of pretrained weights.
    pretrained = sheet_of(workspace, pretrained=True)
    assert all(np.array_equal(images, sheet.stored) for images in pretrained.draws)


def test_damaged_images_are_not_drawn(tmp_path):
    damaged = digits_workspace(tmp_path)
    damage_images(damaged)
    with pytest.raises(DataError, match=r"images are damaged(.|\n)*images-16-crop.npy && make prepare"):
        sheet_of(damaged)


def test_ids_labels_and_pixels_are_those_of_training_rows_of_every_class(workspace):
    sheet, lock = sheet_of(workspace), workspace.lock
    images = open_images(workspace.paths, lock, pixels=16, shape="crop").train_images
    rows = [lock.train_ids.tolist().index(image_id) for image_id in sheet.ids]
    assert sheet.labels == [lock.classes[label] for label in lock.train_labels[rows]] == list("0123456789")
    assert np.array_equal(sheet.stored, images[rows])
    assert (lock.folds[rows] < 0).all()


def test_alternating_flips_alternate_and_small_sides_come_first(workspace):
    sheet = sheet_of(workspace, augment=Augment(flip="alternating"), progressive_pixels=(8, 12))
    assert [images.shape[1:] for images in sheet.draws] == [(side, side, 3) for side in (8, 8, 8, 12, 12, 12, 16, 16)]
    last, before = sheet.draws[-1], sheet.draws[-2]
    assert np.array_equal(last, before[:, :, ::-1]) and not np.array_equal(last, before)


@pytest.mark.parametrize("keys", [{"hard_share": 0.5}, {"sampling": "balanced"}])
def test_every_draw_has_every_row_even_if_training_has_not(workspace, keys):
    assert {len(images) for images in sheet_of(workspace, **keys).draws} == {10}


def test_there_is_at_least_one_draw_per_side(workspace):
    sheet = sheet_of(workspace, progressive_pixels=tuple(range(8, 17)))
    assert [images.shape[1] for images in sheet.draws] == [*range(8, 17), 16]


def test_a_sheet_repeats_and_uses_no_global_random_stream(workspace):
    keys = {"augment": Augment(flip="horizontal", shift_pixels=2, rotate_degrees=10), "cutmix": 1.0}
    torch.manual_seed(3)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, different = (sheet_of(workspace, seed=seed, **keys) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], other)
    assert np.array_equal(first.draws, again.draws) and not np.array_equal(first.draws, different.draws)


def test_rows_are_spread_over_the_classes_and_within_them():
    labels = np.arange(100) % 2
    assert spread_rows(labels, np.arange(100)).tolist() == [0, 24, 48, 74, 98, 1, 25, 49, 75, 99]
    many = np.arange(300) % 100
    rows = spread_rows(many, np.arange(300))
    assert many[rows].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert spread_rows(np.array([0, 1, 1]), np.array([0, 2])).tolist() == [0, 2]


def test_the_description_has_the_keys_that_change_images_and_the_sizes():
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, mixup=0.2, training_pixels=24)
    augment = Augment(flip="horizontal", shift_pixels=4, crop=0.35, trivial_augment=True)
    assert describe_augmentation(replace(recipe, augment=augment, progressive_pixels=(16,))) == (
        'flip = "horizontal", shift_pixels = 4, crop = 0.35, trivial_augment = true, mixup = 0.2. '
        "Stored at 32 px, trained at 16, then 24 px."
    )
    wide = replace(recipe, mixup=0.0, stored_pixels=(24, 48), training_pixels=(12, 24))
    assert describe_augmentation(wide) == "no augmentation. Stored at 24x48 px, trained at 12x24 px."


def test_the_error_for_an_unknown_architecture_names_the_recipe_file(workspace):
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: There is no such architecture.*tiny\.toml"):
        sheet_of(workspace, architecture="resnet43")


def two_images(label: str) -> Sheet:
    """Two images of 4 and 300 pixels a side, called `label`."""
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    large = np.zeros((1, 300, 300, 3), dtype=np.uint8)
    return Sheet("toy: training images", "no augmentation.", ["an/id" * 20], [label], images, [large])


@pytest.mark.parametrize("label", ["cat", r"$\frac{1$", "a_b^c", "W" * 80, "words " * 20, "x" * 200, "<b>bold</b>"])
def test_names_are_drawn_without_markup_and_inside_the_picture(tmp_path, label):
    figure = draw_sheet(two_images(label))
    save_png(tmp_path / "sheet.png", figure)
    with Image.open(tmp_path / "sheet.png") as image:
        width, height = image.size
    hidden = {text for axes in figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    texts = [text for text in figure.findobj(Text) if text.get_text() and text not in hidden]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    if len(label) < 10:
        drawn = "\n".join(text.get_text() for text in texts)
        assert f"{label}\n…" in drawn
