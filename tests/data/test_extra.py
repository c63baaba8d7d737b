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


def test_extra_images_that_do_not_fit_are_refused(toy):
    files = extra_images(toy, labels=("cat", "dgo"))
    own = toy.folders()["train/dog/dog_1.png"]
    with_extra(toy, files | {"cat/notes.pdf": b"x", "loose.png": toy.png(1)})
    with pytest.raises(DataError) as error:
        toy.prepare()
    for text in (
        "'dgo' is not a class of the labelled images; these are cat, dog",
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


TABLES = {
    "class": ("label", ["cat", "dog"], ""),
    "multi-label": ("cat,dog", ["1,0", "1,1"], 'target = "multi-label"'),
    "names in a cell": (
        "tags",
        ["cat", "cat dog"],
        'target = "multi-label"\nlabel_column = "tags"\nlabel_separator = " "',
    ),
    "ordinal": ("label", ["1", "2"], 'target = "ordinal"'),
    "number": ("label", ["0.5", "1.5"], 'target = "number"'),
}
OF_TARGET = {
    "class": 'metric = "accuracy"',
    "multi-label": 'metric = "auc"',
    "names in a cell": 'metric = "auc"',
    "ordinal": 'metric = "qwk"',
    "number": 'metric = "rmse"',
}


def with_table(toy, case, extra, *, validation="rows = 4", more="", group=False):
    """A competition of twelve images with a table, and `extra`: files of the external data beside it."""
    columns, cells, data = TABLES[case]
    kind = {"auc": "probabilities", "rmse": "number"}.get(OF_TARGET[case].split('"')[1], "labels")
    settings = f'title = "pets"\n{OF_TARGET[case]}\n[data]\nsource = "csv"\narchive = "pets"\nextra = ["more"]\n'
    settings += f'{data}\n{more}\n[validation]\n{validation}\n[submission]\nkind = "{kind}"\n'
    toy.competition(settings.replace("{", "{{").replace("}", "}}"))
    rows = [f"{i},{cells[i % 2]}" + f",p{i}" * group for i in range(12)]
    table = f"id,{columns}" + ",patient" * group + "\n" + "\n".join(rows) + "\n"
    files = {f"train/{i}.png": toy.png(i) for i in range(12)} | {f"test/{i}.png": toy.png(50 + i) for i in range(3)}
    toy.write(toy.data / "pets", files | {"train.csv": table.encode()})
    toy.write(toy.data / "more", extra)


def external_table(toy, columns, cells):
    """Files of external data: a table of its own, and images in a folder."""
    table = f"id,{columns}\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells))
    return {"train.csv": table.encode()} | {f"images/{i}.png": toy.png(300 + i) for i in range(len(cells))}


@pytest.mark.parametrize("validation", ["rows = 4", 'kind = "k-fold"\nfolds = 3'])
@pytest.mark.parametrize("case", TABLES)
def test_external_images_of_every_target_have_a_table_train_in_every_fold_and_are_never_scored(toy, case, validation):
    columns, cells, _ = TABLES[case]
    with_table(toy, case, external_table(toy, columns, [cells[1], cells[0], cells[1]]), validation=validation)
    lock = toy.prepare()
    assert lock.train_ids[lock.is_extra].tolist() == [f"extra:more/{i}" for i in range(3)]
    assert (lock.folds[lock.is_extra] == -1).all()
    assert (lock.folds[~lock.is_extra] >= 0).sum() == (4 if validation == "rows = 4" else 12)
    row = dict(zip(lock.train_ids.tolist(), lock.train_labels.tolist(), strict=True))
    assert [row[f"extra:more/{i}"] for i in range(3)] == [row["1"], row["0"], row["1"]] and row["0"] != row["1"]
    pixels = open_images(toy.paths, lock, pixels=32, shape="crop").train_images[lock.is_extra]
    for place, image in enumerate(pixels):
        assert np.array_equal(image, decode(toy.png(300 + place), 32, shape="crop"))


def test_grades_can_be_folders_of_external_images(toy):
    with_table(
        toy, "ordinal", {f"{grade}/{i}.png": toy.png(300 + 10 * grade + i) for grade in (1, 2) for i in range(2)}
    )
    lock = toy.prepare()
    assert lock.train_labels[lock.is_extra].tolist() == [0, 0, 1, 1] and lock.classes == ("1", "2")


def test_external_images_need_not_have_every_grade(toy):
    table = {"train.csv": b"id,label\n" + b"".join(b"%d,%d\n" % (i, i % 5) for i in range(12))}
    with_table(toy, "ordinal", external_table(toy, "label", ["0", "1", "4"]), validation="rows = 5")
    toy.write(toy.data / "pets", table)
    lock = toy.prepare()
    assert lock.classes == tuple("01234") and lock.train_labels[lock.is_extra].tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("case", "columns", "cells", "fault"),
    [
        ("class", "label", ["cat", "cow"], "more: 'cow' is not a class of the labelled images; these are"),
        ("multi-label", "cat,cow", ["1,0"], "train.csv: no column 'dog'; it has 'id', 'cat', 'cow'"),
        ("multi-label", "dog,cat", ["1,2"], "'0' has '2' in 'cat'"),
        ("names in a cell", "tags", ["cat cow"], "more: 'cow' is not a class"),
        ("ordinal", "label", ["1", "7"], "more: '7' is not a class of the labelled images; these are 1, 2"),
        ("number", "label", ["1", "old"], "'1' has 'old'"),
    ],
)
def test_external_labels_that_do_not_fit_are_refused(toy, case, columns, cells, fault):
    with_table(toy, case, external_table(toy, columns, cells))
    with pytest.raises(DataError) as error:
        toy.prepare()
    assert fault in str(error.value)


@pytest.mark.parametrize("case", ["multi-label", "number"])
def test_external_images_without_a_table_are_refused_where_folders_are_no_labels(toy, case):
    with_table(toy, case, {f"cat/{i}.png": toy.png(300 + i) for i in range(2)})
    with pytest.raises(DataError, match=r"more/train\.csv: missing"):
        toy.prepare()


def test_the_columns_of_external_labels_may_have_another_order(toy):
    with_table(toy, "multi-label", external_table(toy, "dog,cat,weight", ["1,0,7", "0,1,9"]))
    lock = toy.prepare()
    assert lock.classes == ("cat", "dog") and lock.train_labels[lock.is_extra].tolist() == [[0, 1], [1, 0]]


def test_labelled_images_of_a_group_with_external_images_only_train(toy):
    extra = external_table(toy, "label,patient", ["cat,p3", "dog,p40"])
    with_table(
        toy, "class", extra, more='group_column = "patient"', validation='kind = "k-fold"\nfolds = 3', group=True
    )
    lock = toy.prepare()
    assert lock.train_ids[lock.folds < 0].tolist() == ["3", "extra:more/0", "extra:more/1"]


def test_an_id_of_the_competition_that_looks_extra_is_refused_and_so_are_extra_digits(toy):
    toy.competition()
    files = toy.folders() | {"train/extra:x/1.png": toy.png(1), "train/extra:x/2.png": toy.png(2)}
    toy.write(toy.data / "pets", files)
    with pytest.raises(DataError, match=r"'extra:x/1': an id that begins with 'extra:'"):
        toy.prepare(data=str(toy.data / "pets"))
    with pytest.raises(ConfigError, match=r'extra = .* expected another source than "digits"'):
        toy.competition('title = "d"\n[data]\nsource = "digits"\nextra = ["x"]\n[validation]\nrows = 4\n')
