"""A rehearsal: every step on few images."""

import numpy as np

from digits_toys import digits_workspace
from podium import rehearsal as rehearsal_module
from podium.config.keys import Submission
from podium.rehearsal import balanced_rows, rehearse
from podium.submission import check_submission
from podium.training.progress import Listener


class Quiet(Listener):
    def __init__(self, name):
        self.name = name


def test_a_rehearsal_on_few_rows_writes_a_valid_csv_with_every_test_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal_module, "REHEARSAL_ROWS", 200)
    workspace = digits_workspace(tmp_path, validation="rows = 600")
    written = rehearse(workspace, listener_of=Quiet)
    assert written.result.validation_rows == 100
    assert written.csv_file.is_relative_to(tmp_path / ".rehearsal")
    assert check_submission(written.csv_file, lock=workspace.lock, settings=Submission()) == []
    assert not (tmp_path / "oof").exists() and not (tmp_path / "submissions").exists()


def test_balanced_rows_are_equally_many_of_each_class_in_each_fold():
    labels, folds = np.arange(40) % 4, np.repeat([-1, 0], 20)
    part = balanced_rows(labels, folds, rows=16)
    counts = np.unique(np.stack([labels[part], folds[part]]), axis=1, return_counts=True)[1]
    assert counts.tolist() == [2] * 8
    assert balanced_rows(np.zeros(10, int), np.zeros(10, int), rows=4).tolist() == [0, 3, 6, 9]  # not the first ones
