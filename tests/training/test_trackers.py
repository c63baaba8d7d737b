"""Trackers: what they write is what the history says, and a tracked run gives the same bits."""

import csv
import json
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest

from digits_toys import digits_project
from podium.config.keys import read_competition
from podium.errors import ConfigError, TrainingError
from podium.plan.runs import list_runs
from podium.predictions.artefact import load_predictions
from podium.training.run import train_run
from podium.training.trackers import Trackers


@pytest.fixture(autouse=True)
def own_wandb():
    """W&B reads its environment once a process."""
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def tracked(project, *names):
    """Have the competition tracked by these, without another stamp for its run."""
    file = project.competition_folder("digits") / "competition.toml"
    before = [run.stamp for run in list_runs(project, "digits")]
    lines = [line for line in file.read_text().splitlines() if not line.startswith("trackers")]
    file.write_text("\n".join([f"trackers = {json.dumps(names)}", *lines]))
    assert [run.stamp for run in list_runs(project, "digits")] == before


def train(project, **keys):
    (run,) = list_runs(project, "digits")
    predictions = train_run(project, "digits", replace(run, recipe=replace(run.recipe, **keys)))
    with project.history_file("digits", run.run).open() as file:
        return predictions, list(csv.DictReader(file))


def curve(folder, name):
    """(step, value) of a curve in TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def records(content):
    """What is in a file of W&B's: a LevelDB log: blocks of 32 KiB with parts of CRC, length, kind, data."""
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


def test_tensorboard_has_the_historys_accuracies_and_the_logits_are_the_same_bits(tmp_path, capsys):
    project = digits_project(tmp_path)
    plain, _ = train(project)
    tracked(project, "tensorboard")
    seen, history = train(project)
    assert np.array_equal(plain.oof_logits, seen.oof_logits) and np.array_equal(plain.test_logits, seen.test_logits)
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


def test_training_again_leaves_one_curve_and_not_two_over_each_other(tmp_path):
    project = digits_project(tmp_path)
    tracked(project, "tensorboard")
    train(project, epochs=1)
    train(project, epochs=1)
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1" / "train"
    assert len(list(folder.iterdir())) == 1


class Endless:
    """A W&B that never sends what it has, until somebody loses patience."""

    def finish(self, **_):
        raise KeyboardInterrupt


def test_a_tracker_that_does_not_end_costs_no_trained_run(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    project = digits_project(tmp_path)
    tracked(project, "wandb")
    monkeypatch.setattr(Trackers, "callbacks", lambda *_: [])
    monkeypatch.setattr(wandb, "init", lambda **_: Endless())
    with pytest.raises(KeyboardInterrupt):
        train(project, epochs=1)
    assert load_predictions(project.predictions_file("digits", "tiny.s1")).run == "tiny.s1"


def test_a_wandb_that_cannot_be_reached_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    import wandb

    def unreachable(**_):
        raise wandb.errors.CommError("the network is down\nand more")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", unreachable)
    project = digits_project(tmp_path)
    tracked(project, "wandb")
    with pytest.raises(
        TrainingError, match=r"(?s)tiny\.s1: Weights & Biases could not.*the network is down\n.*WANDB_MODE=offline"
    ):
        train(project)
    assert not project.predictions_file("digits", "tiny.s1").exists()


def test_each_fit_of_a_run_has_curves_of_its_own_and_a_refit_no_accuracy(tmp_path):
    project = digits_project(tmp_path, validation='kind = "k-fold"\nfolds = 2')
    tracked(project, "tensorboard")
    train(project, epochs=1, refit=True)
    folder = tmp_path / "reports" / "digits" / "tensorboard" / "tiny.s1"
    assert sorted(one.name for one in folder.iterdir()) == ["fold-1-of-2", "fold-2-of-2", "refit"]
    assert len(curve(folder / "fold-2-of-2", "validation_accuracy")) == 1
    assert curve(folder / "refit", "train_loss")
    with pytest.raises(KeyError):
        curve(folder / "refit", "validation_accuracy")


def test_wandb_offline_leaves_a_run_with_its_config_and_summary_and_the_same_bits(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    project = digits_project(tmp_path)
    plain, _ = train(project)
    tracked(project, "tensorboard", "wandb")
    seen, history = train(project)
    assert np.array_equal(plain.oof_logits, seen.oof_logits)
    (folder,) = (tmp_path / "reports" / "digits" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    config, summary = {}, {}
    for record in map(Record.FromString, records(file.read_bytes())):
        config |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
        for one in record.history.item:
            summary[one.key or ".".join(one.nested_key)] = json.loads(one.value_json)
    assert config["architecture"] == "timm:test_resnet" and config["seed"] == 1 and config["batch_size"] == 64
    assert summary["validation_accuracy"] == pytest.approx(float(history[-1]["validation_accuracy"]), abs=1e-5)
    assert summary["epoch"] == 2 and "lr_0" in summary
    said = capfd.readouterr()
    assert said.out == "" and "wandb" not in said.err


def test_wandb_without_an_account_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    project = digits_project(tmp_path)
    tracked(project, "wandb")
    with pytest.raises(TrainingError, match=r"(?s)tiny\.s1: Weights & Biases.*competition\.toml.*WANDB_MODE=offline"):
        train(project)
    assert not project.history_file("digits", "tiny.s1").exists()


def test_a_tracker_that_is_none_is_refused_by_name(tmp_path):
    project = digits_project(tmp_path)
    file = project.competition_folder("digits") / "competition.toml"
    file.write_text('trackers = ["tensorbord"]\n' + file.read_text())
    with pytest.raises(ConfigError, match=r"trackers\[0\] = 'tensorbord'.*did you mean tensorboard\?"):
        read_competition(file.parent)
