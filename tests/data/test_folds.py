"""Splits are stratified, whole, repeatable, and refuse what cannot be split."""

import numpy as np
import pytest

from podium.config.keys import Validation
from podium.data.folds import ALWAYS_TRAINS, assign_folds
from podium.errors import DataError

BALANCED = np.repeat(np.arange(4), 25)


def holdout(rows, seed=0):
    return Validation(rows=rows, seed=seed)


def k_fold(folds, seed=0):
    return Validation(kind="k-fold", folds=folds, seed=seed)


def test_a_holdout_of_balanced_classes_is_balanced():
    folds = assign_folds(BALANCED, None, holdout(20))
    assert np.bincount(BALANCED[folds == 0]).tolist() == [5, 5, 5, 5]
    assert (folds == ALWAYS_TRAINS).sum() == 80


def test_a_holdout_has_exactly_its_rows_where_classes_are_not_balanced():
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    folds = assign_folds(labels, None, holdout(10))
    assert np.bincount(labels[folds == 0]).tolist() == [7, 2, 1]


def test_k_folds_judge_every_row_once():
    folds = assign_folds(BALANCED, None, k_fold(5))
    assert sorted(np.unique(folds)) == [0, 1, 2, 3, 4]
    assert all(np.bincount(BALANCED[folds == fold]).tolist() == [5] * 4 for fold in range(5))


@pytest.mark.parametrize("validation", [holdout, k_fold])
def test_the_seed_decides_the_split(validation):
    first, again, other = (assign_folds(BALANCED, None, validation(10, seed)) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("validation", [holdout(20), k_fold(4)])
def test_a_group_is_never_split(validation):
    groups = np.array([f"g{i // 2 % 25}" for i in range(100)])
    labels = np.arange(100) % 2
    folds = assign_folds(labels, groups, validation)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
    assert 10 <= (folds == 0).sum() <= 30


@pytest.mark.parametrize("rows", [3, 97, 100, 1000])
def test_a_holdout_that_does_not_fit_is_refused(rows):
    with pytest.raises(DataError, match=f"rows from 4 to 96(.|\n)*rows = {rows} of 100"):
        assign_folds(BALANCED, None, holdout(rows))


def test_a_class_with_one_row_is_refused():
    with pytest.raises(DataError, match=r"too few(.|\n)*2 or more(.|\n)*class 1: 1 row"):
        assign_folds(np.array([0] * 9 + [1]), None, holdout(3))


def test_a_class_with_fewer_rows_than_folds_is_refused():
    with pytest.raises(DataError, match=r"5 or more(.|\n)*class 1: 4 row"):
        assign_folds(np.repeat([0, 1], [20, 4]), None, k_fold(5))


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(DataError, match=r"Too few groups(.|\n)*5 or more(.|\n)*found: *2"):
        assign_folds(np.arange(20) % 2, np.repeat(["a", "b"], 10), k_fold(5))


def test_a_class_that_lies_in_one_group_is_refused():
    labels, groups = np.repeat([0, 1], 10), np.repeat(["a", "b"], 10)
    with pytest.raises(DataError, match=r"in one fold(.|\n)*fold 0: class 'cat'"):
        assign_folds(labels, groups, k_fold(2), classes=("cat", "dog"))
