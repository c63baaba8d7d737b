"""What `podium prepare` writes, keeps and refuses."""

import dataclasses
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from podium.data import duplicates as duplicates_module
from podium.data import prepare as prepare_module
from podium.data.cache import find_images
from podium.data.duplicates import kept_duplicates
from podium.data.prepare import recipe_sizes
from podium.errors import DataError
from podium.lock import lock_text, read_lock
from podium.plan.stamp import file_sha256

RECIPE = 'architecture = "resnet34"\nepochs = 1\nlearning_rate = 0.1\n'


def with_data(toy, **settings):
    toy.competition(**settings)
    toy.zip(toy.data / "pets.zip", toy.folders())
    return toy.paths.lock_file


def change_data(toy):
    toy.zip(toy.data / "pets.zip", toy.folders() | {"test/1.png": toy.png(7777)})


def test_a_lock_is_written_with_ids_labels_and_folds(toy):
    file = with_data(toy)
    lock = toy.prepare()
    assert read_lock(file).train_ids.tolist() == lock.train_ids.tolist()
    assert np.bincount(lock.train_labels[lock.folds == 0]).tolist() == [2, 2]
    assert lock.test_ids.tolist() == ["1", "2", "3", "4"]


def test_a_second_prepare_writes_nothing(toy):
    file = with_data(toy)
    toy.prepare()
    before = file.stat().st_mtime_ns
    toy.prepare()
    assert file.stat().st_mtime_ns == before


def test_changed_validation_rewrites_the_folds_only(toy):
    with_data(toy)
    before = toy.prepare()
    toy.competition(validation="rows = 6")
    after = toy.prepare()
    assert (after.folds == 0).sum() == 6 and after.fingerprint == before.fingerprint


def test_recorded_folds_are_kept_when_the_library_would_assign_others(toy, monkeypatch):
    with_data(toy)
    before = toy.prepare()
    monkeypatch.setattr(prepare_module, "assign_folds", None)
    assert (toy.prepare().folds == before.folds).all()


def test_other_data_than_the_locks_are_refused_until_accepted(toy):
    file = with_data(toy)
    before = toy.prepare()
    content = file.read_bytes()
    change_data(toy)
    with pytest.raises(
        DataError, match=f"expected:.*{before.fingerprint}(.|\n)*prepare --competition pets --accept-data$"
    ):
        toy.prepare()
    assert file.read_bytes() == content
    assert toy.prepare(accept=True).fingerprint != before.fingerprint
    assert file.read_bytes() != content


def test_a_lock_has_the_digests_of_the_files_it_was_made_from_until_others_are_accepted(toy):
    file = with_data(toy)
    first = toy.prepare().files
    assert [*first] == ["pets.zip"] and read_lock(file).files == first
    toy.zip(toy.data / "pets.zip", toy.folders() | {"readme.txt": b"new"})
    assert toy.prepare().files == first
    second = toy.prepare(accept=True).files
    assert [*second] == ["pets.zip"] and second != first
    change_data(toy)
    with pytest.raises(DataError, match=r"- pets\.zip is another file"):
        toy.prepare()


def test_a_lock_without_digests_stays_as_it_is(toy):
    file = with_data(toy)
    content = lock_text(dataclasses.replace(toy.prepare(), files={}))
    file.write_text(content)
    toy.prepare()
    assert file.read_text() == content


def test_the_archives_and_tables_of_a_folder_have_digests(toy):
    toy.table_competition()
    toy.write(toy.data / "pets", toy.table())
    names = ["sampleSubmission.csv", "test.7z", "train.7z", "trainLabels.csv"]
    digests = toy.prepare().files
    assert sorted(digests) == [f"pets/{name}" for name in names]
    assert digests["pets/train.7z"] == file_sha256(toy.data / "pets" / "train.7z")


def test_the_command_that_accepts_data_names_the_place_they_were_given_in(toy):
    with_data(toy)
    toy.prepare()
    place = str(toy.zip(toy.data / "my pets.zip", toy.folders(images=7)))
    with pytest.raises(DataError, match=f"podium prepare --competition pets --accept-data --data '{place}'$"):
        toy.prepare(data=place)


def test_a_class_that_is_too_small_only_trains_and_is_named(toy):
    toy.competition()
    toy.zip(toy.data / "pets.zip", toy.folders() | {"train/bird/1.png": toy.png(1)})
    notes = []
    lock = toy.prepare(note=notes.append)
    assert notes == ["no validation row has the class 'bird': its 1 images only train"]
    assert lock.folds[lock.train_ids == "bird/1"].tolist() == [-1] and lock.unvalidated_classes == ("bird",)


def test_other_data_than_the_pinned_are_refused_even_if_accepted(toy):
    file = with_data(toy)
    pinned = toy.prepare().fingerprint
    toy.competition(data=f'fingerprint = "{pinned}"')
    toy.prepare()
    change_data(toy)
    with pytest.raises(DataError, match=f"not the data of 'pets'(.|\n)*{pinned}(.|\n)*use the expected images"):
        toy.prepare(accept=True)
    assert read_lock(file).fingerprint == pinned


def test_every_size_of_the_recipes_is_decoded_once(toy):
    file = with_data(toy)
    for name, keys in {
        "a": "",
        "b": "stored_pixels = 16",
        "c": 'stored_pixels = 16\nshape = "pad"',
        "d": "",
    }.items():
        (file.parent / f"{name}.toml").write_text(RECIPE + keys)
    assert recipe_sizes(toy.workspace()) == [(16, "crop", "pixels"), (16, "pad", "pixels"), (32, "crop", "pixels")]
    toy.prepare()
    arrays = [file.name for file in toy.paths.cache.rglob("images-*.npy")]
    assert sorted(arrays) == ["images-16-crop.npy", "images-16-pad.npy", "images-32-crop.npy"]


def test_height_and_width_of_a_recipe_are_decoded_beside_squares(toy):
    folder = with_data(toy).parent
    for name, pixels in {"a": "[16, 24]", "b": "16"}.items():
        (folder / f"{name}.toml").write_text(f"{RECIPE}stored_pixels = {pixels}")
    assert recipe_sizes(toy.workspace()) == [(16, "crop", "pixels"), ((16, 24), "crop", "pixels")]
    toy.prepare()
    (file,) = toy.paths.cache.rglob("images-16x24-crop.npy")
    assert np.load(file).shape[1:] == (16, 24, 3)


def test_without_recipes_the_default_size_is_decoded(toy):
    toy.competition()
    assert recipe_sizes(toy.workspace()) == [(32, "crop", "pixels")]


def test_prepare_without_the_original_images_uses_the_decoded_ones_and_says_so(toy):
    file = with_data(toy)
    before, content = toy.prepare(), file.read_bytes()
    (toy.data / "pets.zip").unlink()
    notes = []
    assert toy.prepare(note=notes.append).fingerprint == before.fingerprint
    assert len(notes) == 1 and "original images were not found" in notes[0]
    assert file.read_bytes() == content


def test_prepare_needs_the_original_images_for_a_size_that_is_not_decoded(toy):
    file = with_data(toy)
    toy.prepare()
    (toy.data / "pets.zip").unlink()
    (file.parent / "large.toml").write_text(RECIPE + "stored_pixels = 64")
    with pytest.raises(DataError, match="images of 'pets' were not found"):
        toy.prepare()


def test_nothing_is_downloaded_again_where_the_images_are_decoded(toy, monkeypatch):
    with_data(toy, data='download = "http://127.0.0.1:9/pets.zip"')
    toy.prepare()
    (toy.data / "pets.zip").unlink()
    toy.prepare()
    for array in toy.paths.cache.rglob("*.npy"):
        array.unlink()
    with pytest.raises(DataError, match="cannot be downloaded"):
        toy.prepare()


KILLED_WHILE_UNPACKING = """
import os, signal, sys, tarfile
from podium.data.prepare import prepare
from podium.workspace import open_workspace
tarfile.copyfileobj = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
prepare(open_workspace("pets", sys.argv[1]))
"""
KILLED_WHILE_DECODING = """
import os, signal, sys
from podium.data import decode
from podium.data.prepare import prepare
from podium.workspace import open_workspace
decode._run_in_blocks = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
prepare(open_workspace("pets", sys.argv[1]))
"""


@pytest.mark.parametrize("code", [KILLED_WHILE_UNPACKING, KILLED_WHILE_DECODING])
def test_what_a_killed_prepare_has_left_is_removed_by_the_next(toy, code):
    toy.competition()
    archive = toy.data / "pets.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(toy.write(toy.paths.root / "images", toy.folders()), ".")
    for second in (1, 2):
        os.utime(archive, (second, second))  # another version: nobody unpacks or decodes the first one again
        done = subprocess.run([sys.executable, "-c", code, toy.paths.root], check=False, capture_output=True)
        assert done.returncode == -9, done.stderr
        assert list(toy.paths.cache.rglob("*.tmp"))
    os.utime(archive, (3, 3))
    toy.prepare()
    left = [path for path in toy.paths.cache.rglob("*") if path.suffix == ".tmp" or path.name.startswith(".")]
    assert not left


def test_held_out_images_that_are_training_images_too_are_warned_of(toy):
    toy.competition(validation='kind = "folder"\nfolder = "val"')
    new = {f"val/{name}/new.png": toy.png(700 + len(name)) for name in toy.classes}
    toy.zip(toy.data / "pets.zip", toy.folders() | new | {"val/cat/old.png": toy.folders()["train/cat/cat_0.png"]})
    notes = []
    toy.prepare(note=notes.append)
    (note,) = notes
    assert note == (
        "1 of 3 validation images have a near-duplicate on the other side of the split, so scores may be too good: "
        "val/cat/old (cat/cat_0)"
    )


@pytest.mark.parametrize(("link", "target"), [("test/labelled", "../train"), ("test/9.png", "../train/cat/cat_0.png")])
def test_test_images_that_are_training_images_too_are_warned_of(toy, link, target):
    toy.competition()
    (toy.write(toy.data / "pets", toy.folders()) / link).symlink_to(target)
    notes = []
    toy.prepare(note=notes.append)
    (note,) = notes
    tests = "12 of 16" if link == "test/labelled" else "1 of 5"
    assert note.startswith(f"{tests} test images have a near-duplicate among the labelled images")


def as_bmp(content):
    """The same pixels in other bytes."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(content)).save(stream, "BMP")
    return stream.getvalue()


def with_copies(toy, **settings):
    """Prepare six images of each class, each with a copy; returns the lock and the notes."""
    toy.competition(**settings)
    files = toy.folders()
    labelled = {name: content for name, content in files.items() if name.startswith("train")}
    copies = {name.replace(".png", "-copy.bmp"): as_bmp(content) for name, content in labelled.items()}
    toy.zip(toy.data / "pets.zip", files | copies)
    notes = []
    return toy.prepare(note=notes.append), notes


@pytest.mark.parametrize("kind", ["rows = 8", 'kind = "k-fold"\nfolds = 3'])
def test_near_duplicates_stay_on_one_side_with_groups_of_duplicates(toy, kind):
    lock, notes = with_copies(toy, validation=kind)
    assert lock.groups is None and "have a near-duplicate on the other side of the split" in notes[0]
    lock, notes = with_copies(toy, validation=f'{kind}\ngroups = "duplicates"')
    folds = dict(zip(lock.train_ids.tolist(), lock.folds.tolist(), strict=True))
    originals = [id_ for id_ in folds if not id_.endswith("-copy")]
    assert len(originals) == 12 and all(folds[id_] == folds[f"{id_}-copy"] for id_ in originals) and notes == []
    rows = lock.train_labels[lock.folds == 0]
    assert len(rows) == 8 and np.bincount(rows).tolist() == [4, 4]  # stratification stays
    assert read_lock(toy.paths.lock_file).groups.tolist() == lock.groups.tolist()


def test_near_duplicates_are_searched_for_once(toy, monkeypatch):
    with_copies(toy)
    dataset, searches = find_images(toy.paths, read_lock(toy.paths.lock_file)), []

    def search(images, features=None, *, progress):
        searches.append(features)
        return np.arange(len(images))[::-1]

    monkeypatch.setattr(duplicates_module, "near_duplicates", search)
    groups = kept_duplicates(dataset)
    assert searches == [] and len(np.unique(groups)) == len(groups) - 12
    features = np.eye(len(groups))
    assert kept_duplicates(dataset, features).tolist() == kept_duplicates(dataset, features).tolist()
    assert kept_duplicates(dataset, features + 1)[0] == len(groups) - 1
    assert [array.sum() for array in searches] == [len(groups), len(groups) + len(groups) ** 2]
    for content in (b"", b"damaged", (toy.paths.folder / "competition.toml").read_bytes()):
        for file in toy.paths.cache.rglob("duplicates/*"):
            file.write_bytes(content)
        assert kept_duplicates(dataset)[0] == len(groups) - 1
    assert len(searches) == 5


def test_groups_of_the_data_are_joined_with_near_duplicates(toy):
    table = toy.table()
    labels = [f"{i},{toy.classes[i % 2]},{'g5' if i == 11 else f'g{i}'}" for i in range(1, 13)]
    images = {f"train/{i}.png": toy.png(1 if i in (3, 5) else i) for i in range(1, 13)}
    table |= {"train.7z": toy.seven_zip(images), "trainLabels.csv": "\n".join(["id,label,who", *labels]).encode()}
    toy.table_competition(data='group_column = "who"', validation='kind = "k-fold"\nfolds = 2\ngroups = "duplicates"')
    toy.zip(toy.data / "pets.zip", table)
    lock = toy.prepare()
    groups = dict(zip(lock.train_ids.tolist(), lock.groups.tolist(), strict=True))
    assert {groups[i] for i in ("1", "3", "5", "11")} == {"1"} and len(set(groups.values())) == 9


def test_labelled_images_with_an_external_near_duplicate_only_train(toy):
    validation = 'kind = "k-fold"\nfolds = 3\ngroups = "duplicates"'
    toy.competition(data='extra = ["more"]', validation=validation)
    files = toy.folders()
    toy.zip(toy.data / "pets.zip", files | {"more/cat/1.bmp": as_bmp(files["train/cat/cat_0.png"])})
    lock = toy.prepare()
    assert lock.train_ids[lock.folds < 0].tolist() == ["cat/cat_0", "extra:more/cat/1"]


def test_groups_of_duplicates_are_kept_with_the_folds_of_the_lock(toy, monkeypatch):
    validation = 'rows = 8\ngroups = "duplicates"'
    before, _ = with_copies(toy, validation=validation)
    monkeypatch.setattr(prepare_module, "kept_duplicates", None)
    (toy.paths.folder / "a.toml").write_text(RECIPE + "stored_pixels = 16")
    content = toy.paths.lock_file.read_bytes()
    assert toy.prepare().groups.tolist() == before.groups.tolist()
    (toy.data / "pets.zip").unlink()
    assert toy.prepare().groups.tolist() == before.groups.tolist()
    assert toy.paths.lock_file.read_bytes() == content


def test_a_class_that_only_the_validation_folder_has_is_refused(toy):
    toy.competition(validation='kind = "folder"\nfolder = "val"')
    toy.zip(toy.data / "pets.zip", toy.folders() | {"val/cow/1.png": toy.png(700)})
    with pytest.raises(DataError, match="fold 0: class 'cow'"):
        toy.prepare()


def test_equal_files_thin_images_and_large_batches_are_warned_of(toy):
    file = with_data(toy)
    (file.parent / "a.toml").write_text(RECIPE + "batch_size = 16")
    strange = {f"train/cat/gone{i}.png": toy.png(1) for i in range(5)} | {"train/dog/line.png": toy.png(2, side=2)}
    toy.zip(toy.data / "pets.zip", toy.folders() | strange)
    notes = []
    toy.prepare(note=notes.append)
    copies, thin, same, batch = notes
    assert " validation images have a near-duplicate" in same
    assert thin.startswith("1 images have a side of 2 pixels or less: ") and thin.endswith(" dog/line (2 x 2)")
    assert copies.startswith("6 images have the same bytes as 4 others or more; placeholders of missing images? ")
    assert batch == "a: batch_size = 16, and 14 training images: one step per epoch"
    notes.clear()
    toy.zip(toy.data / "pets.zip", toy.folders(images=12))
    toy.prepare(note=notes.append, accept=True)
    assert notes == []


def test_long_images_and_placeholders_are_warned_of(toy):
    with_data(toy)
    files = {}
    for name, size in [("imageNotFound.gif", (8, 8)), ("strip.png", (64, 3))]:
        Image.new("RGB", size, (90, 7, 0)).save(stream := io.BytesIO(), name[-3:])
        files[f"train/cat/{name}"] = stream.getvalue()
    toy.zip(toy.data / "pets.zip", toy.folders() | files)
    notes = []
    toy.prepare(note=notes.append)
    named = [note for note in notes if "near-duplicate" not in note]
    assert sorted(named) == [
        "1 images are more than 20 times as long as wide: cat/strip (64 x 3)",
        "1 images have a name of placeholders of missing images: cat/imageNotFound",
    ]
