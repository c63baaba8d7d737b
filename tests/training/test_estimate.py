"""How long a run will take: timed on a step's images, told of each recipe by name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from podium.config.keys import Recipe
from podium.errors import TrainingError
from podium.lock import Lock
from podium.plan.runs import PlannedRun
from podium.training import estimate as estimate_module
from podium.training.estimate import estimate_seconds


def planned(**keys) -> PlannedRun:
    keys = {"architecture": "timm:test_resnet", "epochs": 2, "learning_rate": 0.1, "stored_pixels": 16} | keys
    return PlannedRun(run="tiny.s1", recipe_name="tiny", recipe=Recipe(**keys), seed=1, stamp="", stale=True)


def rows(training: int) -> Lock:
    """So many rows that always train, four that are held out, and five test images."""
    count = training + 4
    folds = np.repeat([-1, 0], [training, 4])
    ids = np.arange(count).astype(str)
    return Lock("", ("cat", "dog"), ids, np.arange(count) % 2, folds, np.arange(5).astype(str))


@pytest.fixture
def timed(monkeypatch) -> list[int]:
    """Images of each timed batch; every piece of work takes a second."""
    seen = []

    def second(work, batch):
        seen.append(len(batch))
        return 1.0

    monkeypatch.setattr(estimate_module, "_seconds", second)
    return seen


def test_training_and_judged_images_are_counted_at_their_own_speed(timed):
    # 2 epochs of 8 images in steps of 4, 1 second each: 4 s. Judged: 4 rows 3 times and 5 test images, 4 a second.
    assert estimate_seconds([planned(batch_size=4)], rows(8), root=Path()) == {"tiny": 4 + 17 / 4}
    # A refit trains on all 12 rows as well: 6 s more.
    assert estimate_seconds([planned(batch_size=4, refit=True)], rows(8), root=Path()) == {"tiny": 10 + 17 / 4}


def test_smaller_sides_cost_their_share_and_each_view_a_look(timed):
    # 2 epochs of 8 images, one of them at half the side: (1/4 + 1) * 8 images.
    recipe = {"batch_size": 4, "progressive_pixels": (8,)}
    views = {"test_time_augmentation": "flip-and-shift"}
    seconds = estimate_seconds([planned(**recipe, **views)], rows(8), root=Path())["tiny"]
    assert seconds == 10 / 4 + (2 * 4 + 6 * (4 + 5)) / 4


def test_an_epoch_of_a_hard_share_costs_that_share(timed):
    # 2 epochs of 6 of 8 images; the refit's of 9 of 12.
    whole = planned(batch_size=4, hard_share=0.75, refit=True)
    assert estimate_seconds([whole], rows(8), root=Path()) == {"tiny": 2 * (6 + 9) / 4 + 17 / 4}


def test_a_batch_is_timed_on_no_more_images_than_train_or_fill_a_device(timed):
    estimate_seconds([planned(batch_size=10**9)], rows(8), root=Path())
    estimate_seconds([planned(batch_size=10**9)], rows(5_000), root=Path())
    assert timed == [8, 8, 1024, 1024]


def test_a_recipe_that_cannot_be_timed_is_named_with_its_file():
    with pytest.raises(TrainingError, match=r"(?s)tiny: There is no such architecture.*digits/tiny\.toml"):
        estimate_seconds([planned(architecture="resnet43")], rows(8), root=Path(), folder=Path("competitions/digits"))
    with pytest.raises(TrainingError, match=r"tiny\.toml"):
        estimate_seconds([planned(architecture="resnet43")], rows(8), root=Path())


def test_a_cpu_prepares_on_two_images_before_the_clock_counts():
    seen = []
    estimate_module._seconds(lambda part: seen.append(len(part)), torch.zeros(6, 3, 2, 2))
    assert seen == [2, 6]
