"""The inner split: never a validation row, every class, groups whole."""

import numpy as np
import pytest

from podium.config.keys import Validation
from podium.errors import DataError
from podium.lock import Lock
from podium.tune.inner import PARTS, inner_split


def lock_of(folds, *, groups=None) -> Lock:
    rows = len(folds)
    ids = np.arange(rows).astype(str)
    return Lock("", ("cat", "dog"), ids, np.arange(rows) % 2, np.array(folds), ids[:1], groups=groups)


def test_validation_rows_are_in_no_part_and_every_other_row_is_in_one():
    split = inner_split(lock_of([-1] * 40 + [0] * 20), Validation(rows=20))
    assert split.rows.tolist() == list(range(40))
    for part in range(PARTS):
        training, judged = split.training_and_judged(part)
        assert sorted([*training, *judged]) == list(range(40)) and len(judged) == 8
        assert (judged % 2).sum() == 4  # as many of each class
    assert "8 inner rows, trained on 32 others; the validation rows are not looked at" in split.words


def test_the_seed_of_the_validation_is_the_seed_of_the_split():
    lock = lock_of([-1] * 40 + [0] * 20)
    parts = [inner_split(lock, Validation(rows=20, seed=seed)).parts.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_of_k_folds_the_first_is_left_out_and_what_is_not_honest_any_more_is_said():
    split = inner_split(lock_of([0, 1, 2, 3] * 12), Validation(kind="k-fold", folds=4))
    assert not (set(split.rows.tolist()) & set(range(0, 48, 4)))
    assert "all outside fold 1 of 4: only fold 1 stays wholly honest" in split.words


def test_rows_of_one_group_stay_in_one_part():
    groups = np.repeat(np.arange(15).astype(str), 4)
    split = inner_split(lock_of([-1] * 40 + [0] * 20, groups=groups), Validation(rows=20))
    for group in np.unique(groups[:40]):
        assert len(set(split.parts[groups[split.rows] == group])) == 1


def test_too_few_rows_are_told_by_class():
    with pytest.raises(DataError, match=r"(?s)Too few rows to search on.*5 rows.*class 'cat': 4 row"):
        inner_split(lock_of([-1] * 8 + [0] * 20), Validation(rows=20))
