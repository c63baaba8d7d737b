"""Metadata of the images: read from tables by id, kept beside the lock, and never that of other images."""

import numpy as np
import pytest

from podium.data.metadata import read_metadata
from podium.errors import ConfigError, DataError

LABELS = "image,label,age,site,diagnosis\n" + "".join(
    f"{i}.png,{'cat' if i % 2 else 'dog'},{i * 10 if i % 4 else ''},{'arm' if i % 3 else 'leg'},x\n" for i in range(12)
)
TESTS = "site,age,image,note\nleg,5,900.png,a\narm,NA,901.png,b\n,7,902.png,c\n"
KEYS = 'metadata = ["labels.csv", "test.csv"]\n'
SETTINGS = """
title = "Pets"
[data]
source = "csv"
labels = "labels.csv"
id_column = "image"
{data}
[validation]
{validation}
"""


@pytest.fixture
def pets(toy):
    files = {f"train/{i}.png": toy.png(i) for i in range(12)} | {f"test/{i}.png": toy.png(i) for i in range(900, 903)}
    toy.write(toy.data / "pets", files | {"labels.csv": LABELS.encode(), "test.csv": TESTS.encode()})
    toy.competition(SETTINGS, data=KEYS)
    return toy


def test_the_columns_of_both_tables_are_kept_by_id_without_ids_and_labels(pets):
    notes = []
    lock = pets.prepare(note=notes.append)
    lines = pets.paths.metadata_file.read_text().splitlines()
    assert lines[0] == "id,age,site" and [line.split(",")[0] for line in lines[1:]] == [
        *lock.train_ids,
        *lock.test_ids,
    ]
    assert "no recipe uses the metadata; metadata_columns can be age, site" in notes
    train, test = read_metadata(pets.paths, lock, ["site", "age"])
    assert train.shape == (12, 2) and test.tolist()[0] == ["leg", 5.0] and test[2].tolist() == ["", 7.0]
    assert np.isnan(test[1, 1]) and np.isnan(train[lock.train_ids == "0.png", 1][0])
    assert train[lock.train_ids == "7.png"].tolist() == [["arm", 70.0]]
    assert read_metadata(pets.paths, lock, []) == (None, None)


def test_one_table_can_have_both_parts_and_class_folders_can_have_one(pets):
    toy, place = pets, pets.data / "pets"
    rows = "".join(f"{name}/{name}_{i},{i}\n" for name in toy.classes for i in range(6))
    toy.write(place, toy.folders() | {"table.csv": f"id,age\n{rows}1,91\n2.png,92\n3,93\n4,94\nother,0\n".encode()})
    for i in range(12):
        (place / "train" / f"{i}.png").unlink()
    for i in range(900, 903):
        (place / "test" / f"{i}.png").unlink()
    toy.competition(data='metadata = ["table.csv"]')
    lock = toy.prepare()
    train, test = read_metadata(toy.paths, lock, ["age"])
    assert test.ravel().tolist() == [91, 92, 93, 94]
    assert train.ravel().tolist() == [int(id_.rsplit("_")[-1]) for id_ in lock.train_ids]


def test_an_image_without_a_row_or_with_two_is_refused(pets):
    rows = TESTS.replace("902.png", "901.png") + "arm,1,77.png,other images are ignored\n"
    (pets.data / "pets" / "test.csv").write_text(rows)
    with pytest.raises(DataError, match="do not fit the images") as error:
        pets.prepare()
    twice, missing = error.value.faults
    assert "the id '901' occurs 2 times" in twice and missing.endswith("no row for the image '902'")
    (pets.data / "pets" / "test.csv").write_text("name,age\n")
    with pytest.raises(DataError, match="no rows"):
        pets.prepare()


def test_other_metadata_are_refused_until_they_are_accepted_and_no_image_is_decoded_again(pets, monkeypatch):
    pets.prepare()
    (pets.data / "pets" / "test.csv").write_text(TESTS.replace("leg,5", "leg,6"))
    monkeypatch.setattr("podium.data.decode.scan", lambda *_: pytest.fail("the images are listed again"))
    with pytest.raises(DataError, match="not those that the runs were trained on"):
        pets.prepare()
    lock = pets.prepare(accept=True)
    assert read_metadata(pets.paths, lock, ["age"])[1][0, 0] == 6
    pets.competition(SETTINGS)
    pets.prepare()
    assert not pets.paths.metadata_file.exists()


def test_a_recipe_whose_columns_are_not_there_is_refused_by_prepare(pets):
    recipe = 'architecture = "timm:test_resnet"\npretrained = true\nstored_pixels = 8\nmetadata_columns = ["ages"]\n'
    (pets.paths.folder / "one.toml").write_text(recipe)
    with pytest.raises(DataError, match=r"(?s)images do not have.*expected: +metadata_columns of age, site.*ages"):
        pets.prepare()
    pets.competition(SETTINGS)
    with pytest.raises(DataError, match=r"(?s)images do not have.*metadata\.csv: missing.*fix: .*metadata = \["):
        pets.prepare()


def test_metadata_of_other_images_is_refused(pets):
    lock = pets.prepare()
    lines = pets.paths.metadata_file.read_text().splitlines()
    pets.paths.metadata_file.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    with pytest.raises(DataError, match=r"not about the images of data\.lock"):
        read_metadata(pets.paths, lock, ["age"])


def test_without_the_original_files_the_kept_metadata_are_used(pets):
    lock = pets.prepare()
    (pets.data / "pets").rename(pets.data / "away")
    pets.prepare()
    assert read_metadata(pets.paths, lock, ["age"])[1][0, 0] == 5


def test_numbers_that_are_not_finite_make_a_column_of_texts(pets):
    (pets.data / "pets" / "test.csv").write_text(TESTS.replace("leg,5", "leg,1e999"))
    lock = pets.prepare()
    assert read_metadata(pets.paths, lock, ["age"])[1][0, 0] == "1e999"


def test_groups_of_class_folders_can_be_in_a_table(toy):
    rows = "".join(f"{name}_{i}.png,g{i // 2}{name}\n" for name in toy.classes for i in range(6))
    toy.write(toy.data / "pets", toy.folders() | {"train.csv": f"id,owner\n{rows}".encode()})
    toy.competition(data='group_column = "owner"')
    lock = toy.prepare()
    assert lock.groups[lock.train_ids == "dog/dog_5"] == "g2dog" and len(set(lock.groups)) == 6
    (toy.data / "pets" / "train.csv").write_text(f"id,owner\n{rows.replace('dog_5.png', 'dog_7.png')}")
    with pytest.raises(DataError) as error:
        toy.prepare()
    assert error.value.faults[0].endswith("no row for the image 'dog/dog_5'")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ('labels = "other.csv"', 'expected source = "csv", or group_column, found "folders"'),
        ('id_column = "image"', 'id_column = "image": expected source = "csv", group_column or metadata'),
        ('metadata = ["a.csv", "b.csv", "c.csv"]', "expected one table, or two"),
    ],
)
def test_keys_of_tables_without_effect_are_refused(toy, data, told):
    with pytest.raises(ConfigError) as error:
        toy.competition(data=data)
    assert told in error.value.faults[0]
