"""A killed training goes on from its checkpoint, and its results are those of one that was left alone."""

import csv
import errno
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from digits_toys import RECIPE, digits_workspace
from podium.config.keys import Augment
from podium.data import image_file
from podium.errors import ConfigError, DataError, DivergedError
from podium.plan.runs import fit_names
from podium.predictions.artefact import load_predictions
from podium.training import checkpoint as checkpoint_module
from podium.training import lr_find as lr_find_module
from podium.training import run as run_module
from podium.training import session as session_module
from podium.training.checkpoint import Checkpoint
from podium.training.inference import logits_of
from podium.training.learner import fit_network
from podium.training.progress import Listener, ProgressRecorder
from podium.training.run import train_fit, train_run
from podium.training.session import unfinished_fits
from training_toys import FAST, TINY, data_of, save_weights

TIMES = ("created", "seconds", "images_per_second")


class KilledError(BaseException):
    """Ends a training as a signal does: no handler of the training catches it."""


class Killer(Listener):
    """Ends the training at a step, counted from 1 over all fits; with 0 it never does."""

    def __init__(self, step: int = 0):
        self.left, self.steps, self.notes = step, 0, []

    def note(self, text):
        self.notes.append(text)

    def step(self, share_done, images_per_second):
        self.steps += 1
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.fixture
def save_each_step(monkeypatch):
    """Save after each step, however long that takes."""
    monkeypatch.setattr(checkpoint_module, "MOST_SHARE", float("inf"))


def fitted(recipe, folder, *, killed_at=()):
    """Logits, parameters and history of a training that is killed at these steps, each counted from its start."""
    torch.set_num_threads(1)
    data, file = data_of(), folder / "checkpoints" / "run.pt"
    images, steps = recipe.images_per_epoch(80) * (recipe.epochs + recipe.freeze_epochs), 0
    for step in (*killed_at, 0):
        checkpoint, listener = Checkpoint(file, {"recipe": "tiny"}), Killer(step)
        progress = ProgressRecorder(listener, images=images, checkpoint=checkpoint)
        torch.manual_seed(step)  # another process has another random state
        with suppress(KilledError):
            network = fit_network(recipe, data, root=folder, progress=progress)
        steps += listener.steps
    assert progress.images_done == images
    assert steps <= images // 20 + len(killed_at)  # a kill costs the step in which it comes
    file.unlink()
    logits = logits_of(network, data.store, data.validation_rows)
    history = [(row.stage, row.epoch, row.training_loss, row.validation_accuracy) for row in progress.epochs]
    return logits, network.state_dict(), history


@pytest.mark.parametrize(
    "recipe",
    [
        replace(TINY, dropout=0.3, ema_decay=0.9),
        replace(TINY, optimiser="sgd", gradient_clip=1.0, hard_share=0.5, epochs=4),
        replace(FAST, epochs=4, hard_share=0.5, progressive_pixels=(8, 12)),
        replace(TINY, mixup=0.2, cutmix=0.5, sampling="balanced", progressive_pixels=(8,)),
        replace(TINY, augment=Augment(trivial_augment=True, erase=0.5, crop=0.5, zoom=1.2, cutout_pixels=4)),
        replace(TINY, freeze_epochs=2, accumulate=2, dropout=0.3, head="linear"),
        replace(TINY, head="logistic", learning_rate=0.001),
        replace(FAST, epochs=4, hard_share=0.5, mixup=0.2, shuffle="blocks", progressive_pixels=(8,)),
    ],
    ids=["adamw-ema", "sgd-hard", "muon-sizes", "mixup-balanced", "torchvision", "freeze", "logistic", "blocks"],
)
def test_a_killed_training_ends_with_the_bits_of_one_that_was_left_alone(tmp_path, monkeypatch, save_each_step, recipe):
    monkeypatch.setattr(image_file, "BLOCK_BYTES", 5 * 16 * 16 * 3)  # five images
    monkeypatch.setattr(image_file, "WINDOW_BYTES", 20 * 16 * 16 * 3)
    if recipe.freeze_epochs or recipe.head == "logistic":
        recipe = replace(recipe, pretrained=save_weights(tmp_path))
    logits, parameters, history = fitted(recipe, tmp_path)
    again, same_parameters, same_history = fitted(recipe, tmp_path, killed_at=(2, 4, 2, 2))
    assert np.array_equal(again, logits) and same_history == history
    assert all(torch.equal(value, same_parameters[name]) for name, value in parameters.items())


def history_of(workspace):
    with workspace.paths.history_file("tiny.s1").open() as file:
        return [(row["stage"], row["epoch"], row["training_loss"]) for row in csv.DictReader(file)]


def train(workspace, *, killed_at=0, **keys):
    (run,) = workspace.runs
    listener = Killer(killed_at)
    workspace = replace(workspace, competition=replace(workspace.competition, checkpoint_minutes=0.0))
    return train_run(workspace, replace(run, recipe=replace(run.recipe, **keys)), listener=listener), listener


def test_a_finished_fit_is_not_trained_again_and_the_files_are_those_of_an_undisturbed_run(
    tmp_path, monkeypatch, save_each_step
):
    monkeypatch.setattr(lr_find_module, "STEPS", 40)
    undisturbed, workspace = (digits_workspace(tmp_path / name) for name in ("undisturbed", "killed"))
    keys = {"epochs": 1, "learning_rate": "find", "refit": True}
    expected, _ = train(undisturbed, **keys)
    find, found = run_module.find_learning_rate, []
    monkeypatch.setattr(run_module, "find_learning_rate", lambda *a, **k: found.append(1) or find(*a, **k))
    steps = -(-1000 // 64)
    file = workspace.paths.checkpoint_file("tiny.s1", "fold0")
    for killed_at in (steps - 1, steps):  # before the end of the first fit, and in the refit
        with pytest.raises(KilledError):
            train(workspace, killed_at=killed_at, **keys)
        assert file.is_file() and not workspace.paths.predictions_file("tiny.s1").exists()
    predictions, listener = train(workspace, **keys)
    assert len(found) == 2  # one for each fit
    assert any(note.startswith("goes on from its checkpoint, ") for note in listener.notes)
    assert np.array_equal(predictions.oof_logits, expected.oof_logits)
    assert np.array_equal(predictions.test_logits, expected.test_logits)
    assert history_of(workspace) == history_of(undisturbed)
    parameters = [load_file(space.paths.parameters_file("tiny.s1")) for space in (workspace, undisturbed)]
    assert all(torch.equal(value, parameters[1][name]) for name, value in parameters[0].items())
    assert not list(file.parent.iterdir())


def compared_files(workspace):
    """Logits, parameters, history, the curve of lr_find and the description, without times, of the only run."""
    paths = workspace.paths
    predictions = load_predictions(paths.predictions_file("tiny.s1"))
    about = {key: value for key, value in predictions.about.items() if key not in TIMES}
    arrays = predictions.oof_logits.tobytes() + predictions.test_logits.tobytes()
    curve = (paths.lr_find_folder / "tiny.s1.csv").read_bytes()
    parameters = load_file(paths.parameters_file("tiny.s1"))
    return arrays, about, history_of(workspace), curve, {name: value.tolist() for name, value in parameters.items()}


def test_fits_trained_alone_are_joined_to_the_files_of_a_run_trained_in_sequence(tmp_path, monkeypatch):
    monkeypatch.setattr(lr_find_module, "STEPS", 40)
    recipe = RECIPE.replace("epochs = 2\nlearning_rate = 0.01", 'epochs = 1\nlearning_rate = "find"\nrefit = true')
    settings = {"validation": 'kind = "k-fold"\nfolds = 2', "recipe": recipe}
    in_sequence, workspace = (digits_workspace(tmp_path / name, **settings) for name in ("sequence", "alone"))
    train_run(in_sequence, in_sequence.runs[0])
    (run,) = workspace.runs
    assert fit_names(workspace.competition, run.recipe) == ["fold0", "fold1", "refit"]
    for name in ("refit", "fold1"):
        train_fit(workspace, run, name, listener=Killer())
    again = Killer()
    train_fit(workspace, run, "refit", listener=again)
    assert again.steps == 0
    joining = Killer()
    train_run(workspace, run, listener=joining)
    assert joining.steps > 0 and {"fold1 is trained", "refit is trained"} <= {*joining.notes}
    assert compared_files(workspace) == compared_files(in_sequence)
    assert not list(workspace.paths.checkpoint_file("tiny.s1", "fold0").parent.iterdir())


def test_a_fit_of_another_recipe_is_not_joined(tmp_path):
    workspace = digits_workspace(tmp_path)
    (run,) = workspace.runs
    train_fit(workspace, replace(run, recipe=replace(run.recipe, weight_decay=0.1)), "fold0", listener=Killer())
    _, listener = train(workspace)
    assert listener.steps == 2 * -(-1000 // 64)


def test_a_fit_that_came_back_from_another_device_is_not_trained_again_and_the_run_repeats_on_no_device(
    tmp_path, monkeypatch
):
    recipe = RECIPE.replace("epochs = 2", "epochs = 1")
    workspace = digits_workspace(tmp_path, validation='kind = "k-fold"\nfolds = 2', recipe=recipe)
    (run,) = workspace.runs
    with monkeypatch.context() as patch:
        for module in (session_module, run_module):
            patch.setattr(module, "device_name", lambda _: "cpu, another")
        train_fit(workspace, run, "fold0", listener=Killer())
    content = workspace.paths.checkpoint_file("tiny.s1", "fold0").read_bytes()
    listener = Killer()
    train_fit(workspace, run, "fold0", listener=listener)
    assert listener.notes == ["fold0 is trained"] and listener.steps == 0
    assert workspace.paths.checkpoint_file("tiny.s1", "fold0").read_bytes() == content
    train_run(workspace, run)
    about = load_predictions(workspace.paths.predictions_file("tiny.s1")).about
    assert about["device"].startswith("cpu, ") and "cpu, another" in about["device"] and not about["deterministic"]


def test_a_fit_is_kept_where_the_disk_was_full_for_a_while(tmp_path, monkeypatch, save_each_step):
    save, calls = checkpoint_module.torch.save, []

    def full_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(checkpoint_module.torch, "save", full_once)
    workspace = digits_workspace(tmp_path)
    train_fit(workspace, workspace.runs[0], "fold0", listener=Killer())
    assert len(calls) == 2 and unfinished_fits(workspace, workspace.runs[0]) == []


def test_a_fit_that_a_run_does_not_have_is_refused(tmp_path):
    workspace = digits_workspace(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)has no fit 'fold1'.*one of fold0"):
        train_fit(workspace, workspace.runs[0], "fold1", listener=Killer())


def test_a_fit_that_cannot_be_kept_is_an_error(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module.torch, "save", no_space)
    workspace = digits_workspace(tmp_path)
    with pytest.raises(DataError, match="trained fit could not be written"):
        train_fit(workspace, workspace.runs[0], "fold0", listener=Killer())


@pytest.mark.parametrize("change", ["recipe", "versions", "damage"])
def test_a_checkpoint_of_something_else_is_not_used(tmp_path, monkeypatch, save_each_step, change):
    workspace = digits_workspace(tmp_path)
    with pytest.raises(KilledError):
        train(workspace, killed_at=20)
    keys = {"weight_decay": 0.1} if change == "recipe" else {}
    if change == "versions":
        monkeypatch.setattr(session_module, "training_versions", lambda: {"torch": "0"})
    if change == "damage":
        file = workspace.paths.checkpoint_file("tiny.s1", "fold0")
        file.write_bytes(file.read_bytes()[:-100])
    _, listener = train(workspace, **keys)
    assert listener.steps == 2 * -(-1000 // 64) and not any("checkpoint" in note for note in listener.notes)


def test_a_training_that_diverged_leaves_no_checkpoint(tmp_path, save_each_step):
    workspace = digits_workspace(tmp_path)
    with pytest.raises(DivergedError):
        train(workspace, learning_rate=1e30, optimiser="sgd")
    assert not list(workspace.paths.checkpoint_file("tiny.s1", "fold0").parent.glob("*"))


def test_a_full_disk_stops_the_checkpoints_and_not_the_training(tmp_path, monkeypatch, save_each_step):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    workspace = digits_workspace(tmp_path)
    expected, _ = train(workspace)
    monkeypatch.setattr(checkpoint_module.torch, "save", no_space)
    predictions, listener = train(workspace)
    notes = [note for note in listener.notes if "No space left" in note]
    note = "no checkpoint could be written, and the training goes on: No space left on device"
    assert notes == [note, note]  # in the training, and at its end
    assert np.array_equal(predictions.oof_logits, expected.oof_logits)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "run.pt"
    file.mkdir()
    with pytest.raises(DataError, match=r"(?s)checkpoint cannot be read.*run\.pt"):
        Checkpoint(file, {"recipe": "tiny"})


@pytest.mark.parametrize(
    ("cost", "age", "epoch_ends", "saves"),
    [
        (0.0, 0, True, True),
        (0.0, 290, False, False),  # within an epoch, checkpoint_minutes are not over
        (0.0, 310, False, True),
        (8.0, 390, True, False),  # saving took 8 seconds: at most 2 % of the time is 400 seconds
        (8.0, 410, True, True),
        (8.0, 390, False, False),
    ],
)
def test_saving_takes_a_small_share_of_the_time_and_within_an_epoch_waits_for_the_minutes(
    tmp_path, cost, age, epoch_ends, saves
):
    checkpoint = Checkpoint(tmp_path / "run.pt", minutes=5)
    checkpoint.cost, checkpoint.saved_at = cost, time.perf_counter() - age
    assert checkpoint.is_due(epoch_ends=epoch_ends) == saves


def test_a_memory_that_is_full_does_not_make_a_run_start_anew(tmp_path, monkeypatch):
    Checkpoint(tmp_path / "run.pt", {"recipe": "tiny"}).save(learner={}, progress={})

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(checkpoint_module.torch, "load", full)
    with pytest.raises(MemoryError):
        Checkpoint(tmp_path / "run.pt", {"recipe": "tiny"})
