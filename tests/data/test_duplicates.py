"""Near-duplicates are found whatever was done to the copy, and different images are not taken for copies."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.sparse.csgraph import connected_components

from podium.data import duplicates
from podium.data.duplicates import duplicate_lines, joined, mixed_groups, near_duplicates
from podium.lock import Lock


def photo(number, side=64):
    """A smooth image with some noise, as photos are; no other number gives a similar one."""
    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(coarse, int) + draw.integers(-8, 9, (side, side, 3))).clip(0, 255).astype("u1"))


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream)


COPIES = {
    "resized": lambda image: image.resize((40, 40)),
    "recompressed": jpeg,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "cropped": lambda image: image.crop((0, 0, 61, 61)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored and recompressed": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def stored(images, size=(64, 64)):
    """Images as the cache has them, (n, height, width, 3) uint8."""
    return np.stack([np.asarray(image.convert("RGB").resize(size)) for image in images])


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (16, 16), (40, 24)])
@pytest.mark.parametrize("change", list(COPIES))
def test_a_copy_is_in_the_group_of_its_original(change, size):
    images = stored([photo(0), photo(1), COPIES[change](photo(0)), photo(2)], size)
    assert near_duplicates(images).tolist() == [0, 1, 0, 3]


def test_different_images_are_alone():
    assert near_duplicates(stored(map(photo, range(50)))).tolist() == list(range(50))


def with_angles(*angles):
    """Features without mean, in a plane, whose correlation is the cosine of the difference of their angles."""
    return np.cos(np.array(angles))[:, None] * [1, -1, 0, 0] + np.sin(np.array(angles))[:, None] * [0, 0, 1, -1]


def test_a_chain_of_similar_images_is_one_group():
    features = with_angles(0, 0.4, 0.8, 3)  # cos 0.4 = 0.92, cos 0.8 = 0.70
    assert near_duplicates(stored(map(photo, range(4))), features).tolist() == [0, 0, 0, 3]


def test_features_find_what_pixels_do_not():
    images = stored([photo(0), photo(1), jpeg(photo(0)), photo(2)])
    assert near_duplicates(images, with_angles(0, 0.1, 2, 4)).tolist() == [0, 0, 0, 3]


def test_images_of_one_colour_are_duplicates_only_if_they_are_equal():
    greys = np.array([10, 200, 10, 201, 200], np.uint8)
    images = np.broadcast_to(greys[:, None, None, None], (5, 32, 32, 3)).copy()
    assert near_duplicates(images).tolist() == [0, 1, 0, 3, 1]


def test_every_similar_pair_is_found_whatever_the_tiles(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS_PER_TILE", 7)
    draw = np.random.default_rng(0)
    features = draw.normal(size=(20, 12))[draw.integers(20, size=60)] + draw.normal(size=(60, 12)) / 3
    count, expected = connected_components(np.corrcoef(features) >= duplicates.LEAST_OF_FEATURES)
    images = draw.integers(0, 256, (60, 8, 8, 3), np.uint8)
    found = near_duplicates(images, features)
    assert 20 < count < 50 and np.unique(found, return_inverse=True)[1].tolist() == expected.tolist()
    assert (found <= np.arange(60)).all() and (found[found] == found).all()


def test_in_large_data_images_with_a_similar_component_are_compared(monkeypatch):
    monkeypatch.setattr(duplicates, "ROWS_PER_TILE", 8)
    monkeypatch.setattr(duplicates, "MOST_ROWS", 25)  # of 64 images, each is compared with those 9 places away or less
    images = list(map(photo, range(60))) + [COPIES[name](photo(3)) for name in ("darker", "mirrored", "recompressed")]
    found = near_duplicates(stored([*images, photo(4)]))
    assert found.tolist() == [*range(60), 3, 3, 3, 4]


def test_in_data_where_most_images_are_similar_the_most_similar_are_found(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_CANDIDATES", 40)
    draw = np.random.default_rng(0)
    common = draw.normal(size=16)
    features = common + draw.normal(size=(40, 16)) / 4
    features[30] = features[3]
    images = draw.integers(0, 256, (40, 8, 8, 3), np.uint8)
    monkeypatch.setattr(duplicates, "LEAST_OF_FEATURES", 0.5)
    found = near_duplicates(images, features)
    assert found[30] == found[3] and len(np.unique(found)) > 10


def test_joined_groups_have_the_position_of_their_first_member():
    groups = np.array(["b", "a", "b", "c", "d"])
    assert joined(groups).tolist() == [0, 1, 0, 3, 4]
    assert joined(groups, [2], [3]).tolist() == [0, 1, 0, 0, 4]
    assert joined(groups, [1, 0], [4, 4]).tolist() == [0, 0, 0, 3, 0]


def test_mixed_groups_have_members_in_several_parts():
    groups, part = np.array([0, 1, 0, 3, 1, 0]), np.array([1, 1, 2, 2, 1, 1])
    assert [rows.tolist() for rows in mixed_groups(groups, part)] == [[0, 2, 5]]


def lock_of(folds):
    ids = np.array([f"v{row}" for row in range(len(folds))])
    return Lock("data", ("a", "b"), ids, np.zeros(len(ids), int), np.array(folds), np.array(["t1", "t2"]))


def test_lines_count_the_scored_images_and_name_examples():
    lock = lock_of([0, 0, 0, -1, -1])
    assert duplicate_lines(lock, np.arange(7)) == []
    assert duplicate_lines(lock, np.array([0, 0, 2, 3, 4, 5, 5])) == []  # inside validation, inside test
    validation, test = duplicate_lines(lock, np.array([0, 0, 2, 0, 4, 4, 6]))
    assert validation == (
        "2 of 3 validation images have a near-duplicate on the other side of the split, so scores may be too good: "
        "v0 (v3)"
    )
    assert test.startswith("1 of 2 test images have a near-duplicate among the labelled images") and test.endswith(
        ": t1 (v4)"
    )


def test_every_row_of_k_folds_counts_as_scored():
    (line,) = duplicate_lines(lock_of([0, 1, 1, 0]), np.array([0, 0, 2, 2, 4, 5]))
    assert line.startswith("4 of 4 validation images")
