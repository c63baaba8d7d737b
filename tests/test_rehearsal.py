"""A rehearsal: every step on few images; and a run that is trained again."""

from dataclasses import replace

import numpy as np
import pytest

from digits_toys import digits_workspace
from podium import rehearsal as rehearsal_module
from podium.config.keys import Submission
from podium.errors import PredictionsError
from podium.predictions.artefact import load_predictions
from podium.rehearsal import balanced_rows, compare_predictions, rehearse, repeat_run
from podium.submission import check_submission
from podium.training.progress import Listener
from podium.training.run import train_run
from toy_runs import make_project, random_run


class Quiet(Listener):
    def __init__(self, name):
        self.name = name


def test_a_rehearsal_on_few_rows_writes_a_valid_csv_with_every_test_row(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal_module, "REHEARSAL_ROWS", 200)
    workspace = digits_workspace(tmp_path, validation="rows = 600")
    written = rehearse(workspace, listener_of=Quiet)
    assert len(written.result.aligned.oof_ids) == 100
    assert written.csv_file.is_relative_to(tmp_path / ".rehearsal")
    assert check_submission(written.csv_file, lock=workspace.lock, settings=Submission()) == []
    assert not (tmp_path / "oof").exists() and not (tmp_path / "submissions").exists()


def test_a_rehearsal_of_large_images_has_fewer_of_them(tmp_path, monkeypatch):
    workspace = digits_workspace(tmp_path, validation="rows = 600")
    monkeypatch.setattr(rehearsal_module, "REHEARSAL_PIXELS", 120 * 16 * 16)  # a digit has 16 x 16
    monkeypatch.setattr(rehearsal_module, "FEWEST_ROWS", 40)
    assert len(rehearse(workspace, listener_of=Quiet).result.aligned.oof_ids) == 60


def test_balanced_rows_are_equally_many_of_each_class_in_each_fold():
    labels, folds = np.arange(40) % 4, np.repeat([-1, 0], 20)
    part = balanced_rows(labels, folds, rows=16)
    counts = np.unique(np.stack([labels[part], folds[part]]), axis=1, return_counts=True)[1]
    assert counts.tolist() == [2] * 8
    assert balanced_rows(np.zeros(10, int), np.zeros(10, int), rows=4).tolist() == [0, 3, 6, 9]  # not the first ones


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with one trained run."""
    workspace = digits_workspace(tmp_path_factory.mktemp("trained"))
    train_run(workspace, workspace.runs[0])
    return workspace


def test_a_run_that_is_trained_again_is_the_same_bit_for_bit_and_its_files_stay(trained):
    folders = [trained.paths.predictions_folder, trained.paths.parameters_folder, trained.paths.reports]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for folder in folders for file in folder.rglob("*.*")}
    level, detail = repeat_run(trained, trained.runs[0], listener=Listener())
    assert level == "bit for bit" and "0 of 797 labels differ" in detail
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for folder in folders for file in folder.rglob("*.*")}
    assert before == after and len(before) == 3
    assert (trained.paths.root / ".rehearsal/verify/oof/digits/tiny.s1.npz").is_file()


def test_predictions_of_another_seed_are_not_the_same_bit_for_bit(trained):
    (run,) = trained.runs
    file = trained.paths.predictions_file(run.run)
    content = file.read_bytes()
    train_run(trained, replace(run, seed=2))  # and everything else says that it is this run
    level, detail = repeat_run(trained, run, listener=Listener())
    file.write_bytes(content)
    assert level not in ("bit for bit", "same labels") and " 0 of 797 labels differ" not in detail


def test_a_rehearsed_run_is_trained_twice_and_needs_no_predictions(trained, tmp_path):
    workspace = digits_workspace(tmp_path)
    assert repeat_run(workspace, workspace.runs[0], listener=Listener(), rehearsed=True)[0] == "bit for bit"
    assert not (tmp_path / "oof").exists()
    with pytest.raises(PredictionsError, match="There are no predictions here"):
        repeat_run(workspace, workspace.runs[0], listener=Listener())


def one_error_more(logits):
    """Logits whose first row has the lowest class at the top."""
    logits = logits.copy()
    logits[0] = -logits[0]
    return logits


LEVELS = {
    "bit for bit": (lambda logits: logits, "0 of 70 labels differ"),
    "same labels": (lambda logits: logits * np.float32(1.001), "0 of 70 labels differ"),
    "same score within its interval": (one_error_more, "2 of 70 labels differ"),
    "another score": (lambda logits: -logits, "of 70 labels differ"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_the_strictest_level_that_holds_is_given(level, tmp_path):
    change, detail = LEVELS[level]
    workspace = make_project(tmp_path, [random_run("a.s1", noise=0.5)])
    first = load_predictions(workspace.paths.predictions_file("a.s1"))
    logits = {name: change(getattr(first, name)) for name in ("oof_logits", "test_logits")}
    found, text = compare_predictions(first, replace(first, **logits), workspace)
    assert (found, text.endswith(detail)) == (level, True), text


def test_predictions_that_were_rounded_to_float16_are_compared_with_rounded_ones(tmp_path):
    run = random_run("a.s1")
    workspace = make_project(tmp_path, [replace(run, oof_logits=run.oof_logits * np.float32(1e5))])
    exact = load_predictions(workspace.paths.predictions_file(run.run))
    parts = {name: getattr(exact, name).clip(-65504, 65504) for name in ("oof_logits", "test_logits")}
    first = replace(exact, **{name: logits.astype(np.float16) for name, logits in parts.items()})
    assert compare_predictions(first, exact, workspace)[0] == "bit for bit"
