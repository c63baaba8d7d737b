"""Damage of decoded images on the disk is noticed while they are used."""

import io
import shutil
import threading

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from podium.data import checksums as checksums_module
from podium.data.cache import open_images
from podium.data.checksums import verify_in_background
from podium.errors import DataError

FIX = "make prepare COMPETITION=pets"


@pytest.fixture
def pets(toy, monkeypatch):
    """The competition with decoded images of 8 x 8 pixels, in blocks of 3 rows."""
    for module in ("checksums", "decode"):
        monkeypatch.setattr(f"podium.data.{module}.ROWS_PER_BLOCK", 3)
    monkeypatch.setattr(checksums_module, "BYTES_PER_READ", 100)
    toy.competition()
    (toy.paths.folder / "net.toml").write_text(
        'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\nstored_pixels = 8\n'
    )
    toy.write(toy.data / "pets", toy.folders(images=4, tests=4))
    toy.prepare()
    return toy


def open_pets(pets):
    return open_images(pets.paths, pets.workspace().lock, pixels=8, shape="crop")


def verify(pets):
    dataset = open_pets(pets)
    with verify_in_background(dataset.arrays, dataset.checksums) as verification:
        verification.result()


def test_undamaged_images_pass_and_have_a_checksum_for_every_block_of_rows(pets):
    verify(pets)
    assert len(open_pets(pets).checksums) == 3 + 2


@pytest.mark.parametrize(("part", "rows"), [("train", 8), ("test", 4)])
def test_one_changed_bit_in_any_row_is_noticed(pets, part, rows):
    (file,) = pets.paths.cache.rglob(f"{part}-8-crop.npy")
    for row in range(rows):
        images = open_memmap(file, mode="r+")
        images[row, 7, row % 8, 2] ^= 16
        images.flush()
        with pytest.raises(DataError, match=f"images are damaged(.|\n)*{part}-8-crop.npy") as caught:
            verify(pets)
        assert f"of block {row // 3} " in caught.value.expected
        images[row, 7, row % 8, 2] ^= 16
        images.flush()
    verify(pets)


def test_the_fix_of_damaged_images_decodes_them_again(pets):
    before = np.array(open_pets(pets).train_images)
    (file,) = pets.paths.cache.rglob("train-8-crop.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    pets.prepare()  # does not read the pixels
    with pytest.raises(DataError) as caught:
        verify(pets)
    assert caught.value.fix == f"rm {file} && {FIX}"
    file.unlink()
    pets.prepare()
    verify(pets)
    assert (open_pets(pets).train_images == before).all()


def test_an_error_of_the_disk_during_the_verification_is_reported(pets, monkeypatch):
    class FailingFile(io.FileIO):
        def read(self, size):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(checksums_module, "open", FailingFile, raising=False)
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*train-8-crop.npy(.|\n)*Input/output error"):
        verify(pets)


def test_a_run_may_go_on_after_its_images_were_deleted(pets):
    dataset = open_pets(pets)
    with verify_in_background(dataset.arrays, dataset.checksums) as verification:
        shutil.rmtree(pets.paths.cache)
        verification.result()


def test_the_verification_stops_when_the_run_ends(pets, monkeypatch):
    started = threading.Event()

    def wait_for_stop(stream, size, stop):
        started.set()
        assert stop.wait(timeout=60)
        return 0

    dataset = open_pets(pets)
    monkeypatch.setattr(checksums_module, "_read_checksum", wait_for_stop)
    with verify_in_background(dataset.arrays, dataset.checksums) as verification:
        started.wait()
        assert not verification.done()
    assert verification.result() is None
