"""The inner rows: never a validation row, every class in each part, groups whole."""

import numpy as np
import pytest

from podium.config.keys import Validation
from podium.errors import DataError
from podium.lock import Lock
from podium.tune.inner import PARTS, describe_rows, inner_split


def lock_of(folds, *, groups=None) -> Lock:
    rows = len(folds)
    ids = np.arange(rows).astype(str)
    return Lock("", ("cat", "dog"), ids, np.arange(rows) % 2, np.array(folds), ids[:3], groups=groups)


def test_validation_rows_are_in_no_part_and_every_other_row_is_in_one():
    validation = Validation(rows=20)
    inner = inner_split(lock_of([-1] * 40 + [0] * 20), validation)
    scored = [np.flatnonzero(inner.folds == part) for part in range(PARTS)]
    assert sorted(np.concatenate(scored).tolist()) == list(range(40)) and set(inner.folds[40:].tolist()) == {-1}
    for rows in scored:
        assert len(rows) == 8 and (rows % 2).sum() == 4
    assert describe_rows(inner, validation) == (
        "scored on 8 inner rows, trained on 32 others; no validation row is used, so validation scores stay honest"
    )


def test_the_seed_of_the_validation_is_the_seed_of_the_split():
    lock = lock_of([-1] * 40 + [0] * 20)
    parts = [inner_split(lock, Validation(rows=20, seed=seed)).folds.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]


def test_of_k_folds_the_first_is_left_out_and_only_its_score_is_called_honest():
    validation = Validation(kind="k-fold", folds=4)
    inner = inner_split(lock_of([0, 1, 2, 3] * 12), validation)
    assert not (set(np.flatnonzero(inner.folds >= 0).tolist()) & set(range(0, 48, 4)))
    assert "no row of fold 1 of 4 is used, so only the score on that fold" in describe_rows(inner, validation)


def test_rows_of_one_group_stay_in_one_part():
    groups = np.repeat(np.arange(15).astype(str), 4)
    inner = inner_split(lock_of([-1] * 40 + [0] * 20, groups=groups), Validation(rows=20))
    for group in np.unique(groups[:40]):
        assert len(set(inner.folds[groups == group].tolist())) == 1


def test_classes_with_too_few_rows_cannot_be_searched():
    with pytest.raises(DataError, match=r"(?s)Too few rows for a search.*5 rows"):
        inner_split(lock_of([-1] * 8 + [0] * 20), Validation(rows=20))
