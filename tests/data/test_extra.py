"""[data] extra: external images that train in every fold and are never scored."""

import numpy as np
import pytest

from podium.config.keys import Validation
from podium.data.cache import open_images
from podium.data.images import decode
from podium.errors import ConfigError, DataError
from podium.lock import read_lock
from podium.tune.inner import inner_split


def extra_images(toy, *, labels=("cat", "dog"), first=3000, folder=""):
    return {f"{folder}{label}/{i}.png": toy.png(first + 10 * k + i) for k, label in enumerate(labels) for i in range(3)}


def with_extra(toy, files, *, name="more.zip", **settings):
    toy.competition(data=f'extra = ["{name}"]', **settings)
    toy.zip(toy.data / "pets.zip", toy.folders())
    toy.zip(toy.data / "more.zip", files)


@pytest.mark.parametrize("validation", ["rows = 4", 'kind = "k-fold"\nfolds = 3'])
def test_extra_images_train_in_every_fold_and_are_in_the_lock(toy, validation):
    with_extra(toy, extra_images(toy), validation=validation)
    lock = toy.prepare()
    extra = [f"extra:more.zip/{label}/{i}" for label in ("cat", "dog") for i in range(3)]
    assert lock.train_ids[lock.is_extra].tolist() == extra and len(lock.train_ids) == 18
    assert (lock.folds[lock.is_extra] == -1).all() and lock.train_labels[lock.is_extra].tolist() == [0, 0, 0, 1, 1, 1]
    assert (lock.folds[~lock.is_extra] >= 0).sum() == (4 if validation == "rows = 4" else 12)
    assert read_lock(toy.paths.lock_file).fold_sha256 == lock.fold_sha256
    pixels = open_images(toy.paths, lock, pixels=32, shape="crop").train_images
    files = toy.folders() | {f"train/extra:more.zip/{name}": content for name, content in extra_images(toy).items()}
    for image, id_ in zip(pixels, lock.train_ids.tolist(), strict=True):
        assert np.array_equal(image, decode(files[f"train/{id_}.png"], 32, shape="crop"))


def test_folds_stay_the_same_with_extra_images_and_the_runs_are_stale(toy):
    toy.competition()
    toy.zip(toy.data / "pets.zip", toy.folders())
    plain = toy.prepare()
    with_extra(toy, extra_images(toy))
    with pytest.raises(DataError, match="not those that its runs were trained on"):
        toy.prepare()
    lock = toy.prepare(accept=True)
    assert lock.folds[~lock.is_extra].tolist() == plain.folds.tolist()
    assert lock.fingerprint != plain.fingerprint


def test_a_search_does_not_score_on_extra_images(toy):
    toy.competition(data='extra = ["more.zip"]')
    toy.zip(toy.data / "pets.zip", toy.folders(images=12))
    toy.zip(toy.data / "more.zip", extra_images(toy))
    lock = toy.prepare()
    inner = inner_split(lock, Validation(rows=4))
    assert (inner.folds[lock.is_extra] == -1).all() and (inner.folds >= 0).sum() == 20


@pytest.mark.parametrize("layout", ["folder beside the archive", "in the archive", "folder of the data"])
def test_extra_images_lie_in_the_competitions_data_or_beside_them(toy, layout):
    toy.competition(data='extra = ["more"]')
    inside = extra_images(toy, folder="more/") if layout == "in the archive" else {}
    toy.zip(toy.data / "pets.zip", toy.folders() | inside)
    if layout == "folder beside the archive":
        toy.write(toy.data / "more", extra_images(toy))
    if layout == "folder of the data":
        (toy.data / "pets.zip").unlink()
        toy.write(toy.data / "pets", toy.folders() | extra_images(toy, folder="more/"))
        lock = toy.prepare(data=str(toy.data / "pets"))
    else:
        lock = toy.prepare()
    assert lock.is_extra.sum() == 6 and lock.train_ids[lock.is_extra][0] == "extra:more/cat/0"


def test_changed_extra_images_are_noticed(toy):
    with_extra(toy, extra_images(toy))
    toy.prepare()
    toy.zip(toy.data / "more.zip", extra_images(toy, first=4000))
    with pytest.raises(DataError, match="not those that its runs were trained on"):
        toy.prepare()


def test_only_the_names_that_are_printed_are_compared_with_all_classes(toy, monkeypatch):
    monkeypatch.setattr(DataError, "most_faults_shown", 1)
    with_extra(toy, extra_images(toy, labels=("bat", "dgo")))
    with pytest.raises(DataError) as error:
        toy.prepare()
    assert [fault.endswith("these are ") for fault in error.value.faults] == [False, True]


def test_extra_images_that_do_not_fit_are_refused(toy):
    files = extra_images(toy, labels=("cat", "dgo"))
    own = toy.folders()["train/dog/dog_1.png"]
    with_extra(toy, files | {"cat/notes.pdf": b"x", "loose.png": toy.png(1)})
    with pytest.raises(DataError) as error:
        toy.prepare()
    for text in (
        "dgo: not a class of the labelled images; these are dog",
        "notes.pdf: not an image",
        "loose.png: this",
    ):
        assert text in str(error.value)
    toy.zip(toy.data / "more.zip", {"cat/same.png": own, "dog/test.png": toy.folders()["test/2.png"]})
    with pytest.raises(
        DataError, match=r"same.png: the same file as 'dog/dog_1' (?s:.*)test.png: the same file as '2'"
    ):
        toy.prepare()
    with_extra(toy, files, name="moer.zip")
    with pytest.raises(DataError, match=r"'moer\.zip' is missing"):
        toy.prepare()


def test_an_id_of_the_competition_that_looks_extra_is_refused_and_so_are_extra_digits(toy):
    toy.competition()
    files = toy.folders() | {"train/extra:x/1.png": toy.png(1), "train/extra:x/2.png": toy.png(2)}
    toy.write(toy.data / "pets", files)
    with pytest.raises(DataError, match=r"'extra:x/1': an id that begins with 'extra:'"):
        toy.prepare(data=str(toy.data / "pets"))
    with pytest.raises(ConfigError, match=r'extra = .* expected another source than "digits"'):
        toy.competition('title = "d"\n[data]\nsource = "digits"\nextra = ["x"]\n[validation]\nrows = 4\n')
