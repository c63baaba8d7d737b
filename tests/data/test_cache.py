"""Decoded images are opened without what decodes them; damage, on the disk or of the cache, is noticed."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from podium.data import image_file
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


@pytest.mark.parametrize("name", ["listing.lock", "images-32-crop.npy", "images-32-crop.json"])
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
    assert set(done.stdout.split()) == {f"podium.data.{name}" for name in ("cache", "image_file", "jpeg_file")}


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


FIX = "make prepare COMPETITION=pets"


@pytest.fixture
def blocks(toy, monkeypatch):
    """The competition with decoded images of 8 x 8 pixels, in blocks of 3 rows."""
    for module in ("cache", "decode"):
        monkeypatch.setattr(f"podium.data.{module}.ROWS_PER_BLOCK", 3)
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 100)
    toy.competition()
    (toy.paths.folder / "net.toml").write_text(
        'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\nstored_pixels = 8\n'
    )
    toy.write(toy.data / "pets", toy.folders(images=4, tests=4))
    toy.prepare()
    return toy


def open_pets(blocks):
    return open_images(blocks.paths, blocks.workspace().lock, pixels=8, shape="crop")


def test_undamaged_images_pass_and_have_a_checksum_for_every_block_of_rows(blocks):
    open_pets(blocks).verify()
    assert len(open_pets(blocks).checksums) == 4  # of 8 labelled and 4 test images


@pytest.mark.parametrize(("part", "rows"), [("train", 8), ("test", 4)])
def test_one_changed_bit_in_any_row_is_noticed(blocks, part, rows):
    (file,) = blocks.paths.cache.rglob("images-8-crop.npy")
    first = 0 if part == "train" else 8
    for row in range(rows):
        images, block = open_memmap(file, mode="r+"), (first + row) // 3
        images[first + row, 7, row % 8, 2] ^= 16
        images.flush()
        with pytest.raises(DataError, match=r"images are damaged(.|\n)*images-8-crop.npy") as caught:
            open_pets(blocks).verify()
        assert f"of block {block} " in caught.value.expected
        with pytest.raises(DataError, match="images are damaged"):
            open_pets(blocks).verify_rows(part, [row])
        open_pets(blocks).verify_rows(part, [other for other in range(rows) if (first + other) // 3 != block])
        images[first + row, 7, row % 8, 2] ^= 16
        images.flush()
    open_pets(blocks).verify()


def test_the_fix_of_damaged_images_decodes_them_again(blocks):
    before = np.array(open_pets(blocks).train_images)
    (file,) = blocks.paths.cache.rglob("images-8-crop.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    blocks.prepare()  # does not read the pixels
    with pytest.raises(DataError) as caught:
        open_pets(blocks).verify()
    assert caught.value.fix == f"rm {file} && {FIX}"
    file.unlink()
    blocks.prepare()
    open_pets(blocks).verify()
    assert (open_pets(blocks).train_images == before).all()


def test_an_error_of_the_disk_during_the_verification_is_reported(blocks, monkeypatch):
    def fail(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*images-8-crop.npy(.|\n)*Input/output error"):
        open_pets(blocks).verify()
