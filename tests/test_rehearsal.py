"""The whole way on few images."""

from podium import rehearsal as rehearsal_module
from podium.config.keys import Submission
from podium.lock import read_lock
from podium.rehearsal import rehearse
from podium.submission import check_submission
from podium.training.progress import Listener
from training.test_run import digits_project


class Quiet(Listener):
    def __init__(self, run):
        self.run = run


def test_a_part_of_the_validation_rows_is_enough_for_a_csv_with_every_test_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal_module, "REHEARSED_ROWS", 200)
    project = digits_project(tmp_path, validation="rows = 600")
    done = rehearse(project, "digits", listener_of=Quiet)
    assert done.written.result.validation_rows == 100
    assert done.written.csv_file.is_relative_to(tmp_path / ".rehearsal")
    lock = read_lock(project.lock_file("digits"))
    assert check_submission(done.written.csv_file, lock=lock, settings=Submission()) == []
    assert not (tmp_path / "oof").exists() and not (tmp_path / "submissions").exists()
