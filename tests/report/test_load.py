"""What the report reads: a damaged file is left out, an error of the system is not."""

import numpy as np
import pytest

from podium.files import read_json
from podium.report.load import _read_csv, _read_probabilities
from toy_runs import lock_for, random_run


def test_damaged_probabilities_are_left_out_and_an_error_of_the_system_is_raised(tmp_path):
    lock, file = lock_for(random_run("a.s1")), tmp_path / "a.probabilities.npz"
    assert _read_probabilities(file, lock) is None
    probabilities = np.full((len(lock.test_ids), 3), 1 / 3)
    np.savez_compressed(file, ids=lock.test_ids, classes=np.array(lock.classes), probabilities=probabilities)
    np.testing.assert_array_equal(_read_probabilities(file, lock), probabilities)
    file.write_bytes(file.read_bytes()[:-50])
    assert _read_probabilities(file, lock) is None
    file.unlink()
    file.mkdir()
    for read in (lambda: _read_probabilities(file, lock), lambda: read_json(file), lambda: _read_csv(file)):
        with pytest.raises(IsADirectoryError):
            read()
