"""Trackers write what the history says, and do not change the results."""

import csv
import errno
import json
import struct
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from digits_toys import digits_workspace
from podium.config.competition import read_competition
from podium.errors import ConfigError, TrainingError
from podium.training.progress import Listener
from podium.training.run import train_fit, train_run
from podium.training.trackers import Tracker, Trackers
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


def test_a_fit_that_trains_alone_replaces_its_own_curve_and_no_other(tmp_path):
    workspace = tracked(digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2'), "tensorboard")
    folder = tmp_path / "reports" / "digits" / "tensorboard"
    for name in ("fold-1-of-2", "freeze-fold-1-of-2", "freeze-fold-2-of-2", "fold-3-of-3"):
        (folder / "tiny.s1" / name).mkdir(parents=True)
    (run,) = workspace.runs
    train_fit(workspace, replace(run, recipe=replace(run.recipe, epochs=1)), "fold0", listener=Listener())
    assert sorted(path.name for path in folder.glob("*/*")) == ["fold-1-of-2", "freeze-fold-2-of-2"]
    assert len(list((folder / "tiny.s1" / "fold-1-of-2").iterdir())) == 1


class Server:
    """What MLflow and trackio keep between trainings, and as much of their modules as Podium calls.

    Their packages are not installed with the tests: `benchmarks/trackers.py` trains with the real ones.
    """

    def __init__(self, monkeypatch):
        self.rows, self.runs, self.finished, self.down = {"mlflow": [], "trackio": []}, [], [], False
        errors = SimpleNamespace(MlflowException=type("MlflowException", (Exception,), {}))
        mlflow = SimpleNamespace(
            set_tracking_uri=lambda uri: None,
            set_experiment=lambda name: SimpleNamespace(experiment_id=name),
            MlflowClient=lambda: self,
            log_metrics=self.log_metrics,
            exceptions=errors,
            __path__=[],
        )
        trackio = SimpleNamespace(init=self.init, finish=lambda: print("* Run finished."))
        self.error = errors.MlflowException
        for name, module in (("mlflow", mlflow), ("mlflow.exceptions", errors), ("trackio", trackio)):
            monkeypatch.setitem(sys.modules, name, module)

    def search_runs(self, folders, query):
        assert folders == ["podium-digits"]
        return [run for run in self.runs if repr(run.tags["podium.training"]) in query]

    def create_run(self, folder, *, run_name, tags):
        run = SimpleNamespace(info=SimpleNamespace(run_id=run_name), data=SimpleNamespace(params={}), tags=tags)
        self.runs.append(run)
        return run

    def log_param(self, run_id, key, value):
        assert key not in self.runs[-1].data.params
        self.runs[-1].data.params[key] = value

    def get_metric_history(self, run_id, name):
        return [SimpleNamespace(step=step) for step, values in self.rows["mlflow"] if name in values]

    def set_terminated(self, run_id, status):
        self.finished.append(status)

    def log_metrics(self, values, *, step, run_id):
        if self.down:
            raise self.error("the server is gone\nand more")
        self.rows["mlflow"].append((step, values))

    def init(self, *, resume, **_):
        print("* Trackio project initialized")
        rows = self.rows["trackio"]
        rows[:] = rows if resume == "allow" else []
        last = max((step for step, _ in rows), default=-1)
        return SimpleNamespace(log=lambda values, *, step: rows.append((step, values)), _next_step=last + 1)


class Interrupting(Listener):
    def epoch(self, report):
        if report.epoch == 2:
            raise KeyboardInterrupt


def test_a_training_that_goes_on_records_no_epoch_a_second_time(tmp_path, monkeypatch, capsys):
    server, workspace = Server(monkeypatch), tracked(digits_workspace(tmp_path), "mlflow", "trackio")
    with pytest.raises(KeyboardInterrupt):
        train_run(workspace, *workspace.runs, listener=Interrupting())
    train_run(workspace, *workspace.runs)
    for name, rows in server.rows.items():
        assert [(step, values["epoch"]) for step, values in rows if "epoch" in values] == [(1001, 1), (2001, 2)], name
    steps = [step for step, _ in server.rows["trackio"]]
    assert len(steps) == 2 * (16 + 1) and steps == sorted(set(steps))
    assert len(server.runs) == 1 and server.runs[0].data.params["architecture"] == "timm:test_resnet"
    assert server.finished == ["FAILED", "FINISHED"] and capsys.readouterr().out == ""


def test_a_server_that_fails_is_noted_once_and_the_others_go_on(monkeypatch):
    server, notes, rows = Server(monkeypatch), [], []
    server.down, trackers = True, Trackers(notes.append)
    trackers["mlflow"] = Tracker(lambda stage, step, place, values: server.log_metrics(values, step=place, run_id=""))
    trackers["trackio"] = Tracker(lambda *row: rows.append(row))
    for step in (1, 2):
        trackers.log("train", step, 64 * step, {"train_loss": 1.0})
    assert notes == ["MLflow stops, and the training goes on: the server is gone"] and len(rows) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_trained(tmp_path, monkeypatch, name):
    for module in [
        name,
        *(module for module in sys.modules if module.startswith(("torch.utils.tensorboard", "wandb."))),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
    workspace = tracked(digits_workspace(tmp_path), name)
    with pytest.raises(TrainingError, match=rf"(?s)nothing was trained.*pip install 'podium\[{name}\]'"):
        train(workspace)


def test_there_are_no_trackers_in_a_notebook_of_kaggle(tmp_path, monkeypatch):
    monkeypatch.setenv("PODIUM_NO_TRACKERS", "1")
    train(tracked(digits_workspace(tmp_path), "tensorboard", "wandb", "mlflow", "trackio"), epochs=1)
    assert not (tmp_path / "reports" / "digits" / "tensorboard").exists()


class Endless:
    """A W&B run that never finishes, until the user presses Ctrl-C."""

    step = 0

    def finish(self, **_):
        raise KeyboardInterrupt


def test_a_tracker_that_does_not_finish_loses_no_trained_fit(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    workspace = digits_workspace(tmp_path)
    workspace = tracked(workspace, "wandb")
    monkeypatch.setattr(Trackers, "log", lambda *_: None)
    monkeypatch.setattr(wandb, "init", lambda **_: Endless())
    with pytest.raises(KeyboardInterrupt):
        train(workspace, epochs=1)
    train(workspace, epochs=1)  # without W&B, as nothing is left to train


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
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1"
    (folder / "train").mkdir(parents=True)  # of the same run, when there were no folds
    train(workspace, epochs=1, refit=True)
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
