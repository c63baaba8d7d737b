"""What labels and a sample may be, on texts whose answer is known by hand."""

import pytest

from podium.data.tables import Table
from podium.scaffold.readings import Texts


def texts_of(labels, *columns, cells=()):
    rows = [(str(line), *row) for line, row in enumerate(cells)]
    table = dict(zip(("id", *columns), zip(*rows, strict=True), strict=True)) if rows else {}
    return Texts(labels, Table(None, ("id", *columns), range(len(rows)), table))


GRADES, AGES, SPECIES = ["0", "1", "2"], [str(age) for age in range(20, 40)], ["oak", "elm", "fir"]


@pytest.mark.parametrize(
    ("labels", "cells", "targets"),
    [
        (SPECIES, ["oak"], ["class"]),
        (["0", "1"], ["0.5"], ["class"]),
        (GRADES, ["0"], ["class", "ordinal", "number"]),
        (GRADES, ["1.2"], ["number"]),
        (AGES, ["30"], ["class", "number"]),
        (AGES, ["29.5"], ["number"]),
        (["0.5", "1", "1.5"], ["1"], ["class", "number"]),
        ([f"{age}.5" for age in AGES], ["30"], ["number"]),
        ([*AGES, "nan"], ["29.5"], ["number"]),
        (["oak", "elm", "oak elm"], ["oak"], ["multi-label"]),
        (
            ["red oak", "red elm", "white oak", "white elm", "pale elm", "pale oak", "red fir"],
            ["red oak"],
            ["multi-label", "class"],
        ),
        (["golden retriever", "poodle", "border collie"], ["poodle"], ["class"]),
    ],
)
def test_what_labels_may_be(labels, cells, targets):
    assert texts_of(labels, "label", cells=[[cell] for cell in cells]).targets()[0] == targets


def test_columns_of_the_sample_decide_between_names_and_several_names():
    labels = ["red oak", "red elm", "white oak", "white elm", "pale elm", "pale oak", "red fir"]
    names = ["red", "white", "pale", "oak", "elm", "fir"]
    for columns, target in ((labels, "class"), (names, "multi-label")):
        texts = texts_of(labels, *columns, cells=[["0"] * len(columns)])
        assert texts.targets()[0] == [target] and texts.kinds(target) == ["probabilities"]
    assert texts_of(GRADES, *GRADES).targets()[0] == ["class"]


@pytest.mark.parametrize(
    ("labels", "cells", "kinds"),
    [
        (["0", "1"], ["0"], ["labels", "probability"]),
        (["0", "1"], ["0", "1"], ["labels"]),
        (["0", "1"], ["0.5"], ["probability"]),
        (["0", "1"], ["1.5"], ["labels"]),
        (["cat", "dog"], ["1"], ["labels", "probability"]),
        (["cat", "dog"], ["cat"], ["labels"]),
        (SPECIES, ["0.5"], ["labels"]),
        (SPECIES, ["oak elm"], ["ranking"]),
        (SPECIES, ["oak elm", "fir"], ["ranking"]),
        (SPECIES, ["no class"], ["labels"]),
    ],
)
def test_what_one_column_of_a_sample_may_be(labels, cells, kinds):
    assert texts_of(labels, "label", cells=[[cell] for cell in cells]).kinds("class") == kinds


@pytest.mark.parametrize("separator", ["|", ";", ",", " "])
def test_names_are_split_at_each_separator(separator):
    labels = ["oak", "elm", separator.join(["oak", "elm"])]
    texts = texts_of(labels, "label", cells=[[labels[-1]]])
    assert (texts.separator, texts.names) == (separator, {"oak", "elm"})
    assert texts.submission("multi-label", "labels")[0].separator == separator.strip()
