"""What the network would see: stored pixels and labels, through training's own loader."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from podium.config.keys import Augment, Recipe
from podium.data.cache import open_images
from podium.data.prepare import prepare
from podium.errors import TrainingError
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.plan.runs import list_runs
from podium.training.canvas import save_png
from podium.training.sheet import Sheet, augmentation_words, make_sheet, spread_rows
from podium.training.sheet_picture import draw_sheet
from podium.workspace import open_workspace

RECIPE = """
architecture = "timm:test_resnet"
epochs = 2
learning_rate = 0.01
batch_size = 64
stored_pixels = 16
"""
SETTINGS = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("house")
    home = folder / "competitions" / "digits"
    home.mkdir(parents=True)
    (home / "competition.toml").write_text(SETTINGS)
    (home / "tiny.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PODIUM_CACHE", raising=False)
        prepare(open_workspace("digits", folder))
        yield Project.at(folder)


def sheet_of(project: Project, *, seed: int = 1, **keys) -> Sheet:
    (run,) = list_runs(project, "digits")
    return make_sheet(project, "digits", replace(run, seed=seed, recipe=replace(run.recipe, **keys)))


def test_without_augmentation_the_network_sees_the_stored_pixels(project):
    sheet = sheet_of(project)
    assert len(sheet.draws) == 8 and sheet.words.startswith("no augmentation.")
    assert all(np.array_equal(images, sheet.stored) for images in sheet.draws)
    # A mean and a deviation of published weights change what the network sees, not what people are shown.
    pretrained = sheet_of(project, pretrained=True)
    assert all(np.array_equal(images, sheet.stored) for images in pretrained.draws)


def test_ids_labels_and_pixels_are_those_of_training_rows_of_every_class(project):
    sheet, lock = sheet_of(project), read_lock(project.lock_file("digits"))
    images = open_images(project.paths("digits"), lock, pixels=16, shape="crop").train_images
    rows = [lock.train_ids.tolist().index(one) for one in sheet.ids]
    assert sheet.labels == [lock.classes[label] for label in lock.train_labels[rows]] == list("0123456789")
    assert np.array_equal(sheet.stored, images[rows])
    assert (lock.folds[rows] < 0).all()


def test_alternating_flips_take_turns_and_small_sides_come_first(project):
    sheet = sheet_of(project, augment=Augment(flip="alternating"), progressive_pixels=(8, 12))
    assert [images.shape[1:] for images in sheet.draws] == [(side, side, 3) for side in (8, 8, 8, 12, 12, 12, 16, 16)]
    last, before = sheet.draws[-1], sheet.draws[-2]
    assert np.array_equal(last, before[:, :, ::-1]) and not np.array_equal(last, before)


def test_as_many_draws_as_there_are_sides(project):
    sheet = sheet_of(project, progressive_pixels=tuple(range(8, 17)))
    assert [images.shape[1] for images in sheet.draws] == [*range(8, 17), 16]


def test_mixed_images_are_told_with_the_shares_of_their_labels(project):
    sheet = sheet_of(project, mixup=1.0)
    seen = 0
    for images, mixtures in zip(sheet.draws, sheet.mixtures, strict=True):
        for place, mixture in enumerate(mixtures):
            assert sum(share for _, share in mixture) == pytest.approx(1, abs=0.01)
            # One digit a class: the names say which stored images an image is the mean of.
            mean = sum(share * sheet.stored[sheet.labels.index(name)].astype(float) for name, share in mixture)
            assert np.abs(images[place] - mean).max() < 3
            assert sheet.labels[place] in [name for name, _ in mixture]
            seen += len(mixture) == 2
    assert sheet.mixed and seen > 20


def test_a_sheet_repeats_and_leaves_every_stream_of_training_alone(project):
    keys = {"augment": Augment(flip="horizontal", shift_pixels=2, rotate_degrees=10), "cutmix": 1.0}
    torch.manual_seed(3)
    state, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, different = (sheet_of(project, seed=seed, **keys) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], other)
    assert all(np.array_equal(one, two) for one, two in zip(first.draws, again.draws, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first.draws, different.draws, strict=True))


def test_rows_are_spread_over_classes_and_inside_them():
    labels = np.arange(100) % 2
    assert spread_rows(labels, np.arange(100)).tolist() == [0, 24, 48, 74, 98, 1, 25, 49, 75, 99]
    many = np.arange(300) % 100
    rows = spread_rows(many, np.arange(300))
    assert many[rows].tolist() == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert spread_rows(np.array([0, 1, 1]), np.array([0, 2])).tolist() == [0, 2]


def test_every_key_of_the_augmentation_has_its_words():
    recipe = Recipe(architecture="resnet34", epochs=1, learning_rate=0.1, mixup=0.2, cutmix=1.0, training_pixels=24)
    everything = Augment(
        flip="horizontal",
        shift_pixels=4,
        rotate_degrees=10,
        zoom=1.1,
        cutout_pixels=8,
        brightness=0.1,
        contrast=0.2,
    )
    assert augmentation_words(replace(recipe, augment=everything, progressive_pixels=(16,))) == (
        "half of them mirrored; shifted by up to 4 stored px; turned by up to 10°; zoomed by up to 1.1; "
        "brightness ± 0.1; contrast ± 20%; a square of 8 px cut out; mixup 0.2; cutmix 1. "
        "Stored at 32 px, seen at 16, then 24 px."
    )


def test_a_recipe_without_a_network_is_told_by_its_file(project):
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: There is no such architecture.*tiny\.toml"):
        sheet_of(project, architecture="resnet43")


def by_hand(label: str) -> Sheet:
    """Two images of 4 and 300 pixels a side, called `label`."""
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    large = np.zeros((1, 300, 300, 3), dtype=np.uint8)
    mixtures = [[[(label, 0.75), ("other", 0.25)]]]
    return Sheet("toy", "tiny.s1", "no augmentation.", ["an/id"], [label], images, [large], mixtures, mixed=True)


@pytest.mark.parametrize("label", ["cat", r"$\frac{1$", "a_b^c", "W" * 80, "words " * 20, "x" * 200, "<b>bold</b>"])
def test_names_are_drawn_as_they_are_and_never_past_their_room(tmp_path, label):
    figure = draw_sheet(by_hand(label))
    save_png(tmp_path / "sheet.png", figure)
    with Image.open(tmp_path / "sheet.png") as image:
        width, height = image.size
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    if len(label) < 10:
        assert {label, f"0.75 {label}\n0.25 other"} <= {text.get_text() for text in texts}
