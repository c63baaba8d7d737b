"""Splits are stratified, whole, repeatable, and refuse what cannot be split."""

import numpy as np
import pytest

from podium.config.keys import Validation
from podium.data.folds import ALWAYS_TRAINS, assign_folds, check_training_rows
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


@pytest.mark.parametrize("validation", [holdout(4), k_fold(4)])
def test_a_class_with_too_few_rows_for_a_split_only_trains(validation):
    few = 1 if validation.kind == "holdout" else 3
    labels = np.array([0] * 12 + [1] * 12 + [2] * few)
    folds = assign_folds(labels, None, validation)
    assert (folds[labels == 2] == ALWAYS_TRAINS).all()
    assert (folds[:24] == assign_folds(labels[:24], None, validation)).all()  # the others are split as without it


def test_a_class_in_one_group_only_trains_and_so_does_every_row_of_its_group():
    labels = np.array([0, 1] * 20 + [2, 2])
    groups = np.array([f"g{row // 4}" for row in range(40)] + ["g0", "g0"])
    folds = assign_folds(labels, groups, k_fold(3))
    assert (folds[groups == "g0"] == ALWAYS_TRAINS).all() and (folds[groups != "g0"] >= 0).all()


def test_one_class_that_can_be_split_is_too_few():
    with pytest.raises(DataError, match=r"Too few classes(.|\n)*found: *1"):
        assign_folds(np.array([0] * 9 + [1]), None, holdout(3))


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(DataError, match=r"Too few groups(.|\n)*5 or more(.|\n)*found: *2"):
        assign_folds(np.arange(20) % 2, np.repeat(["a", "b"], 10), k_fold(5))


def test_a_class_whose_groups_are_all_in_one_fold_is_refused():
    labels = np.array([0] * 20 + [1] * 2)
    groups = np.array([f"g{row}" for row in range(20)] + ["h", "i"])
    with pytest.raises(DataError, match=r"in one fold(.|\n)*fold 0: class 'cat'"):
        check_training_rows(labels, np.where(groups < "h", 1, 0), ["dog", "cat"])
