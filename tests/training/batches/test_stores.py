"""Stores of images: what a gather gives, from one part of the data or from two."""

import numpy as np
import torch

from podium.data.image_file import ImageFile
from podium.training.batches.stores import ExtendedStore, FitData, PixelStore, measure_normalisation

CPU = torch.device("cpu")


def numbered(count: int, side: int = 4) -> np.ndarray:
    """Images whose every pixel is the row's number."""
    return np.repeat(np.arange(count, dtype=np.uint8), side * side * 3).reshape(count, side, side, 3)


def file_of(folder, count: int) -> ImageFile:
    np.save(folder / "images.npy", numbered(count))
    return ImageFile(np.load(folder / "images.npy", mmap_mode="r"))


def gather(store, rows, positions=None):
    return next(store.batches([rows])).gather(positions)


def test_a_gather_moves_pixels_to_the_positions_given():
    images = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    mirrored = torch.tensor([[[1, 0], [3, 2]]] * 2)
    gathered = gather(PixelStore(images, CPU), torch.tensor([1, 0]), mirrored)
    assert np.array_equal(gathered.numpy(), images[[1, 0], :, ::-1])


def test_images_of_a_file_are_read_in_batches_and_are_those_of_the_mapped_file(tmp_path):
    images, positions = file_of(tmp_path, 40)[5:37], torch.arange(16).view(1, 4, 4).flip(2).expand(3, 4, 4)
    mapped, store = PixelStore(np.asarray(images), CPU), PixelStore(images, CPU)
    assert store.images is None and len(store) == len(mapped) == 32
    parts = [torch.tensor(rows) for rows in ([5, 0, 31], [7, 7, 1], [2, 3, 4], [9, 8, 7], [1, 2, 30])]
    for batch, expected in zip(store.batches(parts), mapped.batches(parts), strict=True):
        assert torch.equal(batch.gather(positions), expected.gather(positions))
        assert torch.equal(batch[torch.tensor([2, 0])].gather(), expected[torch.tensor([2, 0])].gather())
    assert list(store.batches([])) == []
    extended = ExtendedStore(store, PixelStore(images[20:], CPU), np.array([8, 2]))
    assert gather(extended, torch.tensor([33, 1, 32]))[:, 0, 0, 0].tolist() == [5 + 20 + 2, 5 + 1, 5 + 20 + 8]


def test_an_extended_store_has_the_rows_of_another_after_its_own():
    images, others = numbered(6), numbered(9)
    extended = ExtendedStore(PixelStore(images, CPU), PixelStore(others, CPU), np.array([8, 2]))
    whole = PixelStore(np.concatenate([images, others[[8, 2]]]), CPU)
    positions = torch.arange(16).view(1, 4, 4).flip(2).expand(4, 4, 4)
    rows = torch.tensor([6, 5, 7, 0])
    assert len(extended) == len(whole) == 8
    for place in (None, positions):
        assert torch.equal(gather(extended, rows, place), gather(whole, rows, place))
    data = FitData(extended, np.zeros(8, int), 2, np.arange(8), np.arange(0))
    assert data.normalisation == measure_normalisation(images, np.arange(6))


def test_the_cache_cannot_be_written_through_a_batch():
    images = numbered(4)
    images.flags.writeable = False
    batch = gather(PixelStore(images, CPU), torch.tensor([0, 1]))
    batch.zero_()
    assert np.array_equal(images, numbered(4))
