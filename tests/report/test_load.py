"""What the report reads: a damaged file is left out, an error of the system is not."""

import numpy as np
import pytest

from podium.files import read_json
from podium.report.load import CURVE_COLUMNS, _read_csv, _read_probabilities
from toy_runs import lock_for, random_run


def test_probabilities_of_other_rows_or_classes_are_left_out(tmp_path):
    lock, file = lock_for(random_run("a.s1")), tmp_path / "a.probabilities.npz"
    probabilities = np.full((len(lock.test_ids), 3), 1 / 3)
    arrays = {"ids": lock.test_ids, "classes": np.array(lock.classes), "probabilities": probabilities}
    np.savez_compressed(file, **arrays)
    np.testing.assert_array_equal(_read_probabilities(file, lock), probabilities)
    for name in ("ids", "classes"):
        np.savez_compressed(file, **arrays | {name: arrays[name][::-1]})
        assert _read_probabilities(file, lock) is None


@pytest.mark.parametrize("text", ["", "learning_rate\n1\n", "learning_rate,loss\n1,two\n", 'learning_rate,loss\n1,"2'])
def test_a_damaged_csv_has_no_rows(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    for file in (tmp_path / "a.csv", tmp_path / "none.csv"):
        table = _read_csv(file, CURVE_COLUMNS)
        assert list(table) == ["learning_rate", "loss"] and len(table) == 0


def test_an_error_of_the_system_is_raised(tmp_path):
    for read in (read_json, lambda folder: _read_csv(folder, CURVE_COLUMNS)):
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
