"""Images are decoded once, rows stay with their ids, and every fault is reported before training."""

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from podium.data import decode as decode_module
from podium.data.decode import decode_images
from podium.data.locate import find_source, quiet
from podium.data.scan import scan
from podium.errors import DataError

HASH_ORDER = 'test_ids = "hash-order"'


def pixels_of(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def open_pets(toy, data=None, *, pixels=8, shape="crop", progress=quiet):
    workspace = toy.workspace()
    source = find_source(workspace.competition, workspace.paths, data=data)
    return decode_images(workspace.competition, source, workspace.paths, pixels=pixels, shape=shape, progress=progress)


def check_rows(toy, dataset):
    """Every row holds the pixels of the file that its id names."""
    files = toy.folders()
    for id_, image, label in zip(dataset.lock.train_ids, dataset.train_images, dataset.lock.train_labels, strict=True):
        assert (image == pixels_of(files[f"train/{id_}.png"])).all()
        assert id_.startswith(dataset.lock.classes[label])
    for id_, image in zip(dataset.lock.test_ids, dataset.test_images, strict=True):
        assert (image == pixels_of(files[f"test/{id_}.png"])).all()


def test_rows_are_the_files_that_their_ids_name(toy):
    toy.competition()
    toy.zip(toy.data / "pets.zip", toy.folders())
    dataset = open_pets(toy)
    check_rows(toy, dataset)
    assert dataset.train_images.dtype == np.uint8 and dataset.lock.train_labels.dtype == np.int64
    assert isinstance(dataset.train_images, np.memmap) and not dataset.train_images.flags.writeable
    assert dataset.lock.groups is None


def test_processes_decode_what_one_process_decodes(toy, monkeypatch):
    monkeypatch.setattr(decode_module, "FEW_ROWS", 0)
    for module in ("decode", "cache"):
        monkeypatch.setattr(f"podium.data.{module}.ROWS_PER_BLOCK", 3)
    toy.competition()
    toy.zip(toy.data / "pets.zip", toy.folders())
    check_rows(toy, open_pets(toy))


def test_zip_and_repository_have_one_fingerprint_and_the_same_ids(toy):
    toy.competition(data=HASH_ORDER)
    ours = open_pets(toy, str(toy.zip(toy.data / "a/pets.zip", toy.folders())))
    theirs = open_pets(toy, str(toy.zip(toy.data / "b/pets.zip", toy.repository())))
    folder = open_pets(toy, str(toy.write(toy.data / "c", toy.repository())))
    for other in (theirs, folder):
        assert other.lock.fingerprint == ours.lock.fingerprint
        assert other.lock.train_ids.tolist() == ours.lock.train_ids.tolist()
        assert other.lock.test_ids.tolist() == ours.lock.test_ids.tolist()
        assert (other.test_images == ours.test_images).all()


@pytest.mark.parametrize("change", ["bytes of train", "bytes of test", "label", "id", "test id"])
def test_the_fingerprint_changes_with(toy, change):
    toy.competition()
    files = toy.folders()
    before = open_pets(toy, str(toy.zip(toy.data / "a.zip", files)))
    moves = {
        "label": ("train/cat/cat_0.png", "train/dog/cat_0.png"),
        "id": ("train/cat/cat_0.png", "train/cat/x.png"),
    }
    moves["test id"] = ("test/1.png", "test/9.png")
    if change in moves:
        old, new = moves[change]
        files[new] = files.pop(old)
    else:
        files["train/cat/cat_0.png" if "train" in change else "test/1.png"] = toy.png(77)
    assert open_pets(toy, str(toy.zip(toy.data / "b.zip", files))).lock.fingerprint != before.lock.fingerprint


def test_the_second_open_reads_no_image(toy, monkeypatch):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    first = open_pets(toy)
    monkeypatch.setattr(decode_module, "scan", None)
    second = open_pets(toy)
    assert (second.train_images == first.train_images).all() and second.lock.fingerprint == first.lock.fingerprint


@pytest.mark.parametrize("layout", ["folder", "zip"])
def test_changed_files_are_decoded_again(toy, layout):
    toy.competition()
    files = toy.folders()
    write = toy.write if layout == "folder" else toy.zip
    place = toy.data / ("pets" if layout == "folder" else "pets.zip")
    write(place, files)
    before = open_pets(toy)
    changed = write(place, files | {"test/1.png": toy.png(77)})
    os.utime(changed / "test/1.png" if layout == "folder" else changed, ns=(1, 1))
    after = open_pets(toy)
    assert (after.test_images[0] == pixels_of(toy.png(77))).all()
    assert after.lock.fingerprint != before.lock.fingerprint


def test_each_size_and_shape_is_an_array_of_its_own(toy):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    sizes = [(8, "crop"), (16, "crop"), (16, "pad")]
    opened = [open_pets(toy, pixels=pixels, shape=shape) for pixels, shape in sizes]
    assert [dataset.train_images.shape for dataset in opened] == [(12, 8, 8, 3), (12, 16, 16, 3), (12, 16, 16, 3)]
    assert len({dataset.lock.fingerprint for dataset in opened}) == 1


def test_two_that_open_at_once_decode_once(toy, monkeypatch):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    scans, scan = [], decode_module.scan
    monkeypatch.setattr(decode_module, "scan", lambda *arguments: scans.append(1) or scan(*arguments))
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_pets(toy), range(4)))
    assert len(scans) == 1
    for dataset in opened:
        check_rows(toy, dataset)


def test_faults_of_images_and_of_the_listing_come_together(toy):
    files = toy.folders()
    files["train/cat/cat_0.png"] = files["train/cat/cat_0.png"][:-20]
    files["test/1.png"] = b"no image"
    files["train/stray.png"] = toy.png(1)
    toy.competition()
    toy.zip(toy.data / "pets.zip", files)
    with pytest.raises(DataError, match=r"3 fault\(s\)") as caught:
        open_pets(toy)
    faults = "\n".join(caught.value.faults)
    assert "stray.png: this image is not in a class folder" in faults
    assert "pets.zip/train/cat/cat_0.png: not a whole image" in faults and "pets.zip/test/1.png: not a whole" in faults
    left = [file for file in toy.paths.cache.rglob("*") if file.is_file() and file.name != "lock"]
    assert {file.relative_to(toy.paths.cache).parts[0] for file in left} == {"unpacked"}


@pytest.mark.parametrize("name", ["listing.lock", "images-8-crop.npy", "images-8-crop.json"])
@pytest.mark.parametrize("length", [0, 40, -20])
def test_a_damaged_cache_is_decoded_again(toy, name, length):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    open_pets(toy)
    (file,) = toy.paths.cache.rglob(name)
    file.write_bytes(file.read_bytes()[:length])
    check_rows(toy, open_pets(toy))


def test_decoded_images_are_on_disk_before_they_get_their_name(toy, monkeypatch):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    fsync, replace_file, calls = os.fsync, os.replace, []
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.fstat(file).st_ino) or fsync(file))
    monkeypatch.setattr(
        os, "replace", lambda file, target: calls.append(os.stat(file).st_ino) or replace_file(file, target)
    )
    open_pets(toy)
    (file,) = toy.paths.cache.rglob("images-8-crop.npy")
    assert calls.count(file.stat().st_ino) == 2  # flushed, then replaced


@pytest.mark.parametrize(("old", "new"), [(b"|u1", b"|i1"), (b"'descr': '", b"'descr': (")])  # a wrong, and no header
def test_arrays_that_are_not_pixels_are_decoded_again(toy, old, new):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    open_pets(toy)
    (file,) = toy.paths.cache.rglob("images-8-crop.npy")
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    check_rows(toy, open_pets(toy))


def test_a_cache_that_cannot_be_written_is_named(toy, monkeypatch):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    monkeypatch.setenv("PODIUM_CACHE", str(toy.data / "pets/test/1.png"))
    with pytest.raises(
        DataError, match=r"cache cannot be written(.|\n)*1\.png(.|\n)*Not a directory(.|\n)*PODIUM_CACHE"
    ):
        open_pets(toy)


def test_a_name_that_is_no_utf8_is_a_fault_that_can_be_printed(toy):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders() | {os.fsdecode(b"train/cat/caf\xe9.png"): toy.png(1)})
    with pytest.raises(DataError, match="is not UTF-8") as caught:
        open_pets(toy)
    assert str(caught.value).encode().count(b"caf\\udce9") == 1


def test_a_competition_without_any_image_lists_its_faults(toy):
    toy.competition()
    toy.write(toy.data / "pets", {"train/cat/a.txt": b"", "test/b.txt": b""})
    with pytest.raises(DataError, match=r"(.|\n)*a class without images(.|\n)*test: no images"):
        open_pets(toy)


def test_a_disk_that_is_too_small_is_reported_before_decoding(toy, monkeypatch):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(DataError, match=r"do not fit on the disk(.|\n)*PODIUM_CACHE"):
        open_pets(toy)


def test_progress_counts_to_the_last_image(toy):
    toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    calls = []
    open_pets(toy, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("decode images", 16, 16)


def test_kaggles_layout_is_decoded_with_its_groups(toy):
    files = toy.table()
    files["trainLabels.csv"] = b"id,label,who\n" + b"".join(
        f"{i},{'cat' if i % 2 else 'dog'},w{i % 3}\n".encode() for i in range(1, 13)
    )
    toy.table_competition(data='group_column = "who"')
    toy.zip(toy.data / "pets.zip", files)
    dataset = open_pets(toy)
    assert dataset.lock.test_ids.tolist() == ["3", "2", "1"]
    assert (dataset.test_images[0] == pixels_of(toy.png(503))).all()
    for id_, image, group in zip(dataset.lock.train_ids, dataset.train_images, dataset.lock.groups, strict=True):
        assert (image == pixels_of(toy.png(int(id_)))).all() and group == f"w{int(id_) % 3}"


def test_a_listing_is_what_the_dataset_holds(toy):
    competition = toy.competition()
    toy.write(toy.data / "pets", toy.folders())
    listing = scan(competition, find_source(competition, toy.workspace().paths, data=None))
    dataset = open_pets(toy)
    lock = dataset.lock
    assert [row.id for row in listing.rows] == lock.train_ids.tolist()
    assert [row.label for row in listing.rows] == [lock.classes[label] for label in lock.train_labels]
    assert list(listing.test_images) == lock.test_ids.tolist()
