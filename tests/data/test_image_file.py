"""Decoded images that are read from their file: the pixels, and what the disk is asked for."""

import os

import numpy as np
import pytest

from podium.data import image_file
from podium.data.image_file import ImageFile
from podium.errors import DataError

ROW_BYTES = 4 * 4 * 3


def file_of(folder, count: int = 40) -> tuple[np.ndarray, ImageFile]:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    np.save(folder / "images.npy", images)
    return images, ImageFile(np.load(folder / "images.npy", mmap_mode="r"))


@pytest.fixture
def advised(monkeypatch):
    """What the system is told about blocks of four rows, of which two fit into a window: (advice, block)."""
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(image_file, "WINDOW_BYTES", 8 * ROW_BYTES)
    monkeypatch.setattr(image_file, "AHEAD_BYTES", 0)
    names, calls = {os.POSIX_FADV_WILLNEED: "need", os.POSIX_FADV_DONTNEED: "drop"}, []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, offset, size, advice: calls.append((names[advice], (offset - 128) // size))
    )
    return calls


def read_all(file: ImageFile, parts: list[list[int]]) -> list[np.ndarray]:
    parts = [np.array(part) for part in parts]
    read, images = file.reader(parts), [np.zeros((len(part), 4, 4, 3), np.uint8) for part in parts]
    for number, part in enumerate(images):
        read(number, part)
    return images


def test_rows_slices_and_the_whole_are_those_of_the_array(tmp_path):
    images, file = file_of(tmp_path)
    assert (len(file), file.shape, file.nbytes) == (40, images.shape, images.nbytes)
    part, rows = file[7:30], np.array([[3, 0], [22, 3]])
    del file  # the slice keeps the file open
    assert np.array_equal(part[rows], images[7:30][rows]) and np.array_equal(part[5], images[12])
    assert np.array_equal(np.asarray(part), images[7:30]) and np.array_equal(part[20:99][[1]], images[[28]])
    assert len(part[50:]) == 0 and np.asarray(part[50:]).shape == (0, 4, 4, 3)


def test_blocks_are_asked_for_before_their_first_part_and_dropped_after_their_last(tmp_path, advised):
    images, file = file_of(tmp_path)
    parts = [[4, 6, 12], [5, 14, 15], [0, 1, 13]]  # block 1 is used by two parts, block 3 by all, block 0 by the last
    read = read_all(file, parts)
    assert all(np.array_equal(part, images[rows]) for part, rows in zip(read, parts, strict=True))
    assert advised == [("need", 1), ("need", 3), ("drop", 1), ("need", 0), ("drop", 0), ("drop", 3)]


def test_a_block_is_asked_for_as_many_bytes_ahead_as_there_is_time(tmp_path, advised, monkeypatch):
    monkeypatch.setattr(image_file, "AHEAD_BYTES", 4 * ROW_BYTES)
    _, file = file_of(tmp_path)
    read_all(file, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    assert advised == [("need", 0), ("need", 1), ("drop", 0), ("need", 2), ("drop", 1), ("drop", 2)]


def test_nothing_is_asked_for_in_a_random_order_or_where_few_rows_of_a_block_are_needed(tmp_path, advised):
    images, file = file_of(tmp_path)
    order = np.random.default_rng(1).permutation(40).reshape(10, 4)
    assert np.array_equal(np.concatenate(read_all(file, order.tolist())), images[order.ravel()])
    read_all(file, [[0, 8], [16], [24, 32]])
    assert advised == []


def test_a_file_that_ends_too_early_is_one_error(tmp_path):
    _, file = file_of(tmp_path)
    os.truncate(tmp_path / "images.npy", 1000)
    with pytest.raises(DataError, match=r"(?s)decoded images cannot be read.*images\.npy.*ends too early"):
        file[np.array([3, 39])]
