"""Decoded images are opened without what decodes them, and an unreadable cache is not taken for a missing one."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from podium.data.cache import find_images, open_images
from podium.errors import DataError

RECIPE = 'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\nstored_pixels = 64\n'


@pytest.fixture
def pets(toy):
    """The competition with decoded images."""
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    toy.prepare()
    return toy


@pytest.mark.parametrize("name", ["listing.lock", "train-32-crop.npy", "test-32-crop.npy", "checksums-32-crop.json"])
def test_a_cache_that_cannot_be_read_is_not_taken_for_missing(pets, name):
    lock = pets.workspace().lock
    (file,) = pets.paths.cache.rglob(name)
    file.unlink()
    file.symlink_to(file.name)  # to itself: the operating system refuses to open it
    for open_again in (pets.prepare, lambda: open_images(pets.paths, lock, pixels=32, shape="crop")):
        with pytest.raises(DataError, match=rf"cannot be read(.|\n)*{name}(.|\n)*symbolic links"):
            open_again()


def test_a_cache_folder_that_cannot_be_listed_is_not_taken_for_empty(pets, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    lock = pets.workspace().lock
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*Permission denied"):
        find_images(pets.paths, lock)


def test_opening_decoded_images_imports_nothing_that_decodes():
    names = "[name for name in sys.modules if 'podium.data.' in name or 'PIL' in name]"
    command = [sys.executable, "-c", f"import sys, podium.data.cache; print(*{names})"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) == {"podium.data.cache", "podium.data.checksums"}


def test_the_lock_opens_the_images_without_their_source(pets):
    lock = pets.workspace().lock
    shutil.rmtree(pets.data)
    dataset = open_images(pets.workspace().paths, lock, pixels=32, shape="crop")
    assert dataset.train_images.shape == (12, 32, 32, 3) and dataset.lock is lock


@pytest.mark.parametrize("size", [{"pixels": 16, "shape": "crop"}, {"pixels": 32, "shape": "pad"}])
def test_images_that_are_not_decoded_are_refused_with_the_command_that_decodes_them(pets, size):
    lock = pets.workspace().lock
    with pytest.raises(DataError, match=r"not decoded yet(.|\n)*make prepare COMPETITION=pets"):
        open_images(pets.workspace().paths, lock, **size)


def test_images_of_another_fingerprint_are_not_opened(pets):
    lock = pets.workspace().lock
    with pytest.raises(DataError, match="not decoded yet"):
        open_images(pets.workspace().paths, replace(lock, fingerprint="0" * 64), pixels=32, shape="crop")


def test_images_in_another_order_of_the_test_ids_are_not_opened(pets):
    lock = pets.workspace().lock
    reversed_lock = replace(lock, test_ids=lock.test_ids[::-1])
    with pytest.raises(DataError, match="not decoded yet"):
        open_images(pets.workspace().paths, reversed_lock, pixels=32, shape="crop")


def test_a_report_opens_the_largest_decoded_images_or_none(pets):
    lock, paths = pets.workspace().lock, pets.paths
    (pets.paths.folder / "net.toml").write_text(RECIPE)
    pets.prepare()
    assert find_images(paths, lock).train_images.shape[1] == 64
    assert find_images(paths, replace(lock, fingerprint="0" * 64)) is None
