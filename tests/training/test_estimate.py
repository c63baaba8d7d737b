"""The estimated time of a run, from timed batches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from podium.config.keys import Competition, Data, Recipe, Validation
from podium.errors import TrainingError
from podium.lock import Lock
from podium.plan.paths import Paths
from podium.plan.runs import PlannedRun
from podium.training import estimate as estimate_module
from podium.training.estimate import check_recipes, estimate_seconds, total_seconds
from podium.training.networks import architectures


def planned(**keys) -> PlannedRun:
    keys = {"architecture": "timm:test_resnet", "epochs": 2, "learning_rate": 0.1, "stored_pixels": 16} | keys
    return PlannedRun(run="tiny.s1", recipe_name="tiny", recipe=Recipe(**keys), seed=1, stamp="", stale=True)


def workspace(training: int, validation: Sequence[int] = (0, 0, 0, 0)) -> SimpleNamespace:
    """A workspace with so many rows that always train, the folds of the validation rows, and five test images."""
    count = training + len(validation)
    folds = np.array([-1] * training + list(validation))
    ids = np.arange(count).astype(str)
    lock = Lock("", ("cat", "dog"), ids, np.arange(count) % 2, folds, np.arange(5).astype(str))
    return SimpleNamespace(lock=lock, competition=None, paths=Paths("toy", Path(), Path()))


@pytest.fixture
def timed(monkeypatch) -> list[int]:
    """The number of images of each timed batch. Every batch takes a second."""
    images = []

    def one_second(function, batch):
        images.append(len(batch))
        return 1.0

    monkeypatch.setattr(estimate_module, "_seconds", one_second)
    monkeypatch.setenv("PODIUM_DEVICE", "cpu")
    return images


def test_training_and_evaluated_images_are_counted_at_their_own_speed(timed):
    # 2 epochs of 8 images in steps of 4, 1 second each: 4 s. Evaluated: 4 rows 3 times, 5 test images; 4 per second.
    assert estimate_seconds(workspace(8), [planned(batch_size=4)]) == {"tiny": [4 + 17 / 4]}
    # A refit trains on all 12 rows as well, 6 s more, and predicts the test images instead.
    assert estimate_seconds(workspace(8), [planned(batch_size=4, refit=True)]) == {"tiny": [4 + 12 / 4, 6 + 5 / 4]}


ROWS = (0,) * 4 + (-1,) * 8


@pytest.mark.parametrize(
    ("keys", "folds", "training", "evaluated"),
    [
        # 2 folds of 6 rows: 12 rows are validated after each epoch and predicted once, the test images by both fits.
        ({}, (0, 1) * 6, 2 * 2 * 6, 2 * 12 + 12 + 2 * 5),
        ({"refit": True}, (0, 1) * 6, 2 * (2 * 6 + 12), 2 * 12 + 12 + 5),
        # At most 3 rows after each epoch.
        ({}, ROWS, 2 * 8, 2 * 3 + 4 + 5),
        # The frozen epoch has images of full size, the others half of them at half the side.
        (
            {"freeze_epochs": 1, "progressive_pixels": (8,)},
            ROWS,
            8 + 2 * 8 * (1 / 4 + 1) / 2,
            3 * 3 + 4 + 5,
        ),
        # The features of all images, which are evaluated again only if the network trains.
        ({"head": "logistic", "epochs": 0}, ROWS, 0, 12 + 5),
        ({"head": "logistic"}, ROWS, 2 * 8, 12 + 5 + 2 * 3 + 4 + 5),
    ],
)
def test_folds_frozen_epochs_and_features_have_their_images(timed, monkeypatch, keys, folds, training, evaluated):
    monkeypatch.setattr(estimate_module, "EPOCH_ROWS", 12 if 1 in folds else 3)
    seconds = estimate_seconds(workspace(0, folds), [planned(**{"batch_size": 4} | keys)])
    assert sum(seconds["tiny"]) == (training + evaluated) / 4
    assert len(seconds["tiny"]) == len({fold for fold in folds if fold >= 0}) + ("refit" in keys)


def test_the_timed_network_is_that_of_the_run_without_its_weights(monkeypatch):
    def spy(function, batch):
        if isinstance(function, torch.nn.Module):
            states.append((function.training, function.precision, torch.get_num_threads()))
        return 1.0

    states = []
    monkeypatch.setattr(estimate_module, "_seconds", spy)
    monkeypatch.setattr(architectures, "pick_precision", lambda *_: torch.bfloat16)
    estimate_seconds(workspace(8), [planned(threads=3, pretrained="missing.pth")])
    assert states == [(False, torch.bfloat16, 3)]


def test_smaller_sides_take_their_share_and_each_view_its_time(timed):
    # 2 epochs of 8 images, one of them at half the side: (1/4 + 1) * 8 images.
    recipe = {"batch_size": 4, "progressive_pixels": (8,)}
    views = {"test_time_augmentation": "flip-and-shift"}
    seconds = estimate_seconds(workspace(8), [planned(**recipe, **views)])["tiny"]
    assert sum(seconds) == 10 / 4 + (2 * 4 + 6 * (4 + 5)) / 4


def test_an_epoch_with_a_hard_share_takes_that_share(timed):
    # 2 epochs of 6 of 8 images; the refit's of 9 of 12.
    whole = planned(batch_size=4, hard_share=0.75, refit=True)
    assert estimate_seconds(workspace(8), [whole]) == {"tiny": [2 * 6 / 4 + 12 / 4, 2 * 9 / 4 + 5 / 4]}


def test_a_timed_batch_has_at_most_the_training_rows_and_1024_images(timed):
    estimate_seconds(workspace(8), [planned(batch_size=10**9)])
    estimate_seconds(workspace(5_000), [planned(batch_size=10**9)])
    estimate_seconds(workspace(5_000), [planned(batch_size=64, stored_pixels=128)])
    assert timed == [8, 8, 1024, 256, 64, 32]  # training, evaluation


def test_a_timed_training_step_has_the_step_of_the_optimiser(monkeypatch):
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *arguments: steps.append(1) or step(*arguments))
    estimate_seconds(workspace(8), [planned(batch_size=4)])
    assert len(steps) == 3  # to warm up twice, and timed


HOLDOUT = Competition(title="Toy", data=Data(source="digits"))
FIVE_FOLDS = replace(HOLDOUT, validation=Validation(kind="k-fold", folds=5))


def test_runs_share_the_gpus_or_the_cores_of_the_machine(monkeypatch):
    runs, seconds = [planned(), planned(threads=2), planned(), planned(threads=99)], {"tiny": [40.0]}
    monkeypatch.setattr(estimate_module.os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert total_seconds(HOLDOUT, runs, seconds) == (80, "4 core(s)")  # the last run needs all cores
    assert total_seconds(HOLDOUT, [runs[0], runs[3]], seconds) == (80, "4 core(s)")  # and waits until all are free
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert total_seconds(HOLDOUT, runs, seconds) == (80, "2 GPU(s)")
    monkeypatch.setenv("PODIUM_DEVICE", "cuda:1")
    assert total_seconds(HOLDOUT, runs, seconds, start=2) == (4 * 42, "1 GPU(s)")


def test_folds_train_side_by_side_where_make_trains_them_so(monkeypatch):
    seconds, runs = {"tiny": [10.0] * 5}, [planned(), replace(planned(), run="tiny.s2")]
    monkeypatch.setattr(estimate_module.os, "sched_getaffinity", lambda _: range(2))
    assert total_seconds(FIVE_FOLDS, runs, seconds, start=1) == (51, "2 core(s)")  # a run for each core
    # Three folds on one of the cores, and a process that joins them.
    assert total_seconds(FIVE_FOLDS, runs[:1], seconds, start=1) == (3 * 11 + 1, "2 core(s)")
    monkeypatch.setattr(estimate_module.os, "sched_getaffinity", lambda _: range(8))
    assert total_seconds(FIVE_FOLDS, runs, seconds) == (20, "8 core(s)")


def test_the_error_for_an_unknown_architecture_names_the_recipe_and_its_file():
    with pytest.raises(TrainingError, match=r"(?s)tiny: There is no such architecture.*toy/tiny\.toml"):
        estimate_seconds(workspace(8), [planned(architecture="resnet43")])


def test_the_faults_of_all_recipes_come_at_once_and_before_any_training(tmp_path):
    faults = {
        "name": {"architecture": "resnet18"},
        "weights": {"architecture": "resnet34", "pretrained": "missing.pth"},
        "size": {"architecture": "vgg19", "stored_pixels": 16, "training_pixels": 16},
        "right": {},
    }
    runs = [replace(planned(**keys), recipe_name=name) for name, keys in faults.items()]
    with pytest.raises(TrainingError, match=r"Several recipes cannot be trained(?s:.*)toy") as error:
        check_recipes(workspace(8), runs)
    assert len(error.value.faults) == 3
    for fault, texts in zip(error.value.faults, (("timm:resnet18",), ("missing.pth",), ("too small",)), strict=True):
        assert all(text in fault for text in texts), fault
    with pytest.raises(TrainingError, match="name: There is no such architecture"):
        check_recipes(workspace(8), [runs[0], runs[3]])
    check_recipes(workspace(8), [runs[3]])
    check_recipes(workspace(8), [planned(threads=256)], here=False)  # a node of a cluster has more cores


def test_three_runs_on_two_cores_take_as_long_as_the_core_with_two(monkeypatch):
    monkeypatch.setattr(estimate_module.os, "sched_getaffinity", lambda _: range(2))
    runs = [replace(planned(), recipe_name=name) for name in ("short", "long", "last")]
    seconds = {"short": [10.0], "long": [50.0], "last": [30.0]}
    assert total_seconds(HOLDOUT, runs, seconds) == (50, "2 core(s)")
    assert total_seconds(HOLDOUT, runs, seconds | {"last": [45.0]}) == (55, "2 core(s)")


def test_two_calls_warm_up_before_the_timed_one():
    images = []
    estimate_module._seconds(lambda part: images.append(len(part)), torch.zeros(6, 3, 2, 2))
    assert images == [2, 6, 6]
