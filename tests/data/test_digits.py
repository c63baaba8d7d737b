"""The bundled competition is the same everywhere."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from podium.data.cache import open_images
from podium.data.digits import digits_answers
from podium.data.locate import find_source
from podium.data.prepare import prepare
from podium.data.scan import scan
from podium.lock import read_lock
from podium.workspace import open_workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield open_workspace("digits", ROOT)


@pytest.fixture(scope="module")
def digits(workspace):
    prepare(workspace)
    return open_images(workspace.paths, workspace.lock, pixels=32, shape="crop")


@pytest.fixture(scope="module")
def listing(workspace):
    return scan(workspace.competition, find_source(workspace.competition, workspace.paths, data=None))


def test_digits_are_1297_labelled_and_500_withheld(listing):
    assert (len(listing.rows), len(listing.test_images)) == (1297, 500)
    assert not {row.id for row in listing.rows} & set(listing.test_images)
    assert listing.classes == tuple("0123456789")
    assert not listing.faults


def test_the_withheld_digits_are_stratified():
    counts = np.bincount([int(name) for name in digits_answers().values()])
    assert (abs(counts - np.bincount(load_digits().target) * 500 / 1797) < 1).all()


def test_the_answers_are_those_of_the_withheld_digits(listing):
    target = load_digits().target
    answers = digits_answers()
    assert list(answers) == list(listing.test_images)
    assert all(name == str(target[int(id_.removeprefix("digit-"))]) for id_, name in answers.items())


def test_pixels_follow_the_original_greys(digits):
    original = load_digits().images[int(str(digits.lock.train_ids[0]).removeprefix("digit-"))]
    image = digits.train_images[0]
    assert image.shape == (32, 32, 3) and (image[..., 0] == image[..., 2]).all()
    means = image[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
    assert np.corrcoef(means.ravel(), original.ravel())[0, 1] > 0.97


def test_the_committed_lock_is_of_these_digits(digits):
    lock = read_lock(ROOT / "competitions/digits/data.lock")
    assert lock.fingerprint == digits.lock.fingerprint
    assert lock.train_ids.tolist() == digits.lock.train_ids.tolist()
    assert (lock.folds == 0).sum() == 297
