"""Trackers write what the history says, and do not change the results."""

import csv
import errno
import json
import struct
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from digits_toys import digits_workspace
from podium.config.competition import read_competition
from podium.errors import ConfigError, TrainingError
from podium.predictions.artefact import load_predictions
from podium.training.progress import Listener
from podium.training.run import train_run
from podium.training.trackers import Trackers
from podium.workspace import open_workspace


@pytest.fixture(autouse=True)
def own_wandb():
    """W&B reads its environment once a process."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def tracked(workspace, *names):
    """The workspace with these trackers in competition.toml, which do not change the stamp of its run."""
    file = workspace.paths.settings_file
    file.write_text(f"trackers = {json.dumps(names)}\n{file.read_text()}")
    with_trackers = open_workspace("digits", workspace.paths.root)
    assert [run.stamp for run in with_trackers.runs] == [run.stamp for run in workspace.runs]
    return with_trackers


def train(workspace, **keys):
    (run,) = workspace.runs
    predictions = train_run(workspace, replace(run, recipe=replace(run.recipe, **keys)))
    with workspace.paths.history_file(run.run).open() as file:
        return predictions, list(csv.DictReader(file))


def curve(folder, name):
    """(step, value) of a curve in TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def records(content):
    """The records of a W&B file, a LevelDB log: blocks of 32 KiB with parts of CRC, length, kind, data."""
    place, whole = 7, b""  # W&B's own header
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole record, or its last part
            yield whole
            whole = b""


def test_tensorboard_has_the_accuracies_of_the_history_and_changes_no_bit_of_the_logits(tmp_path, capsys):
    workspace = digits_workspace(tmp_path)
    plain, _ = train(workspace)
    workspace = tracked(workspace, "tensorboard")
    tracked_predictions, history = train(workspace)
    assert np.array_equal(plain.oof_logits, tracked_predictions.oof_logits) and np.array_equal(
        plain.test_logits, tracked_predictions.test_logits
    )
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1" / "train"
    accuracies = curve(folder, "validation_accuracy")
    assert [value for _, value in accuracies] == pytest.approx(
        [float(row["validation_accuracy"]) for row in history], abs=1e-5
    )
    steps = [step for step, _ in curve(folder, "train_loss")]
    assert steps == list(range(1, 2 * 16 + 1))  # 2 epochs of 1,000 rows by 64, validation not counted
    rates = [value for _, value in curve(folder, "lr_0")]
    assert max(rates) == pytest.approx(0.01, rel=0.01) and rates[-1] < 1e-4
    assert capsys.readouterr().out == ""


def test_a_disk_that_is_full_for_tensorboard_does_not_end_the_training(tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Notes(Listener):
        def note(self, text):
            notes.append(text)

    notes, workspace = [], tracked(digits_workspace(tmp_path), "tensorboard")
    monkeypatch.setattr(RecordWriter, "write", full)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # TensorBoard's thread prints its error too
    (run,) = workspace.runs
    train_run(workspace, run, listener=Notes())
    assert not open_workspace("digits", tmp_path).runs[0].stale
    assert notes[1:] == ["TensorBoard stops, and the training goes on: No space left on device"]


def test_training_again_replaces_the_curve_of_tensorboard(tmp_path):
    workspace = digits_workspace(tmp_path)
    workspace = tracked(workspace, "tensorboard")
    train(workspace, epochs=1)
    train(workspace, epochs=1)
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1" / "train"
    assert len(list(folder.iterdir())) == 1


def test_a_training_without_trackers_keeps_an_earlier_curve_of_tensorboard(tmp_path):
    workspace = digits_workspace(tmp_path)
    curve = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1" / "train" / "events"
    curve.parent.mkdir(parents=True)
    curve.write_text("an hour of training")
    train(workspace, epochs=1)
    assert curve.read_text() == "an hour of training"


class Endless:
    """A W&B run that never finishes, until the user presses Ctrl-C."""

    def finish(self, **_):
        raise KeyboardInterrupt


def test_a_tracker_that_does_not_finish_loses_no_trained_run(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    workspace = digits_workspace(tmp_path)
    workspace = tracked(workspace, "wandb")
    monkeypatch.setattr(Trackers, "log", lambda *_: None)
    monkeypatch.setattr(wandb, "init", lambda **_: Endless())
    with pytest.raises(KeyboardInterrupt):
        train(workspace, epochs=1)
    assert load_predictions(workspace.paths.predictions_file("tiny.s1")).run == "tiny.s1"


def test_wandb_that_cannot_start_is_an_error_before_anything_is_trained(tmp_path, monkeypatch):
    import wandb

    def unreachable(**_):
        raise wandb.errors.CommError("the network is down\nand more")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", unreachable)
    workspace = digits_workspace(tmp_path)
    workspace = tracked(workspace, "wandb")
    with pytest.raises(
        TrainingError,
        match=r"(?s)tiny\.s1: Weights & Biases could not be started.*the network is down\n.*WANDB_MODE=offline",
    ):
        train(workspace)
    assert not workspace.paths.predictions_file("tiny.s1").exists()


def test_each_fit_of_a_run_has_its_own_curves_and_a_refit_has_no_accuracy(tmp_path):
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2')
    workspace = tracked(workspace, "tensorboard")
    train(workspace, epochs=1, refit=True)
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1"
    assert sorted(fit.name for fit in folder.iterdir()) == ["fold-1-of-2", "fold-2-of-2", "refit"]
    assert len(curve(folder / "fold-2-of-2", "validation_accuracy")) == 1
    assert curve(folder / "refit", "train_loss")
    with pytest.raises(KeyError):
        curve(folder / "refit", "validation_accuracy")


def test_wandb_offline_writes_config_and_summary_and_changes_no_bit_of_the_logits(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    workspace = digits_workspace(tmp_path)
    plain, _ = train(workspace)
    workspace = tracked(workspace, "tensorboard", "wandb")
    tracked_predictions, history = train(workspace)
    assert np.array_equal(plain.oof_logits, tracked_predictions.oof_logits)
    sys.modules["wandb"].teardown()  # its process writes the last records when it ends
    (folder,) = (tmp_path / "reports" / "digits" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    config, summary = {}, {}
    for record in map(Record.FromString, records(file.read_bytes())):
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        for item in record.history.item:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    assert config["architecture"] == "timm:test_resnet" and config["seed"] == 1 and config["batch_size"] == 64
    assert summary["validation_accuracy"] == pytest.approx(float(history[-1]["validation_accuracy"]), abs=1e-5)
    assert summary["epoch"] == 2 and "lr_0" in summary
    printed = capfd.readouterr()
    assert printed.out == "" and "wandb" not in printed.err


def test_wandb_without_an_account_is_an_error_before_anything_is_trained(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    workspace = digits_workspace(tmp_path)
    workspace = tracked(workspace, "wandb")
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: Weights & Biases.*competition\.toml.*WANDB_MODE=offline"):
        train(workspace)
    assert not workspace.paths.history_file("tiny.s1").exists()


def test_an_unknown_tracker_is_refused(tmp_path):
    workspace = digits_workspace(tmp_path)
    file = workspace.paths.settings_file
    file.write_text('trackers = ["tensorbord"]\n' + file.read_text())
    with pytest.raises(ConfigError, match=r"trackers\[0\] = 'tensorbord'.*did you mean tensorboard\?"):
        read_competition(file.parent)
