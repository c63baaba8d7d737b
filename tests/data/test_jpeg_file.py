"""Images that are stored as JPEGs: the rows, damage, and a disk that has space for nothing else."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from podium.data import decode as decode_module
from podium.data.cache import open_images
from podium.data.jpeg_file import JpegFile, decode_jpeg, encode_jpeg
from podium.errors import DataError

RECIPE = 'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\nstored_pixels = 8\n'
FILE = "images-8-crop-jpeg.npy"


def open_pets(toy, stored_format="jpeg"):
    return open_images(toy.paths, toy.workspace().lock, pixels=8, shape="crop", stored_format=stored_format)


@pytest.fixture
def pets(toy, monkeypatch):
    """Eight labelled and four test images, stored as pixels and as JPEGs, in blocks of three."""
    for module in ("decode", "cache"):
        monkeypatch.setattr(f"podium.data.{module}.ROWS_PER_BLOCK", 3)
    toy.competition()
    (toy.paths.folder / "net.toml").write_text(RECIPE)
    (toy.paths.folder / "small.toml").write_text(RECIPE + 'stored_format = "jpeg"\n')
    toy.write(toy.data / "pets", toy.folders(images=4, tests=4))
    toy.prepare()
    return toy


def flip(file, place):
    """Change a byte of the file."""
    content = bytearray(file.read_bytes())
    content[place] ^= 64
    file.write_bytes(content)


def test_each_row_is_what_a_jpeg_of_its_pixels_gives_also_of_a_slice(pets):
    expected = np.stack([decode_jpeg(encode_jpeg(image)) for image in open_pets(pets, "pixels").images])
    dataset = open_pets(pets)
    dataset.verify()
    assert isinstance(dataset.images, JpegFile) and len(dataset.checksums) == 4
    assert dataset.images.shape == (12, 8, 8, 3) and dataset.images.nbytes == expected.nbytes
    assert np.array_equal(np.asarray(dataset.images), expected) and np.array_equal(dataset.images[5], expected[5])
    assert np.array_equal(np.stack(list(dataset.test_images)), expected[8:])
    rows = np.array([2, 0, 2])
    assert np.array_equal(dataset.test_images[rows], expected[8:][rows])
    assert np.array_equal(np.asarray(dataset.test_images[1:3]), expected[9:11])


def test_prepare_keeps_the_jpegs_that_are_there(pets, monkeypatch):
    monkeypatch.setattr(decode_module, "scan", None)
    pets.prepare()


def test_a_changed_byte_of_a_jpeg_is_noticed_and_processes_make_the_same_file_again(pets, monkeypatch):
    (file,) = pets.paths.cache.rglob(FILE)
    before, offsets = file.read_bytes(), open_pets(pets).images.offsets
    for row in (0, 7, 11):
        flip(file, int(offsets[row + 1]) - 3)
        with pytest.raises(DataError, match=f"images are damaged(.|\n)*{FILE}") as caught:
            open_pets(pets).verify()
        assert f"of block {row // 3} " in caught.value.expected and f"rm {file} && make prepare" in caught.value.fix
        flip(file, int(offsets[row + 1]) - 3)
    file.unlink()
    monkeypatch.setattr(decode_module, "FEW_ROWS", 0)
    pets.prepare()
    assert file.read_bytes() == before


def test_a_file_that_ends_too_early_or_begins_with_no_jpeg_is_made_again(pets):
    (file,) = pets.paths.cache.rglob(FILE)
    content = file.read_bytes()
    for missing in (1, 8, 3000, len(content)):
        file.write_bytes(content[: len(content) - missing])
        with pytest.raises(DataError, match="not decoded yet"):
            open_pets(pets)
    file.write_bytes(content)
    flip(file, 128)  # the first JPEG begins here
    with pytest.raises(DataError, match="not decoded yet"):
        open_pets(pets)
    pets.prepare()
    assert file.read_bytes() == content


def test_other_offsets_are_noticed(pets):
    (file,) = pets.paths.cache.rglob(FILE)
    flip(file, -3 * 8)  # where the second JPEG of the last block begins
    with pytest.raises(DataError, match="images are damaged"):
        open_pets(pets).verify()


def test_where_pixels_do_not_fit_on_the_disk_the_message_names_jpegs_and_these_fit(pets, monkeypatch):
    for file in pets.paths.cache.rglob("images-*"):
        file.unlink()
    pixels = 12 * 8 * 8 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=(1 << 29) + pixels // 2))
    with pytest.raises(DataError, match=r'do not fit on the disk(.|\n)*PODIUM_CACHE(.|\n)*stored_format = "jpeg"'):
        pets.prepare()
    (pets.paths.folder / "net.toml").unlink()
    pets.prepare()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 29))
    open_pets(pets).verify()
    next(pets.paths.cache.rglob(FILE)).unlink()
    with pytest.raises(DataError, match="do not fit on the disk") as caught:
        pets.prepare()
    assert "stored_format" not in caught.value.fix
