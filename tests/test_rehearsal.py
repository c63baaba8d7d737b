"""A rehearsal: every step on few images."""

from digits_toys import digits_workspace
from podium import rehearsal as rehearsal_module
from podium.config.keys import Submission
from podium.rehearsal import rehearse
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
