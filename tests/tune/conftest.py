"""A project with a search, and what stands for its training."""

import shutil
from contextlib import ExitStack

import numpy as np
import pytest

from podium.data.prepare import prepare
from podium.lock import read_lock
from podium.plan.paths import Project
from podium.tune import trials as trials_module
from podium.tune.task import COMPLETE, Judged
from tune_toys import RECIPE, SEARCH, SETTINGS, House


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("house")
    home = folder / "competitions" / "digits"
    home.mkdir(parents=True)
    (home / "competition.toml").write_text(SETTINGS)
    (home / "tiny.toml").write_text(RECIPE + SEARCH)
    prepare(Project.at(folder), "digits")
    return folder


@pytest.fixture
def house(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    with ExitStack() as stack:
        yield House(Project.at(tmp_path), stack)


@pytest.fixture
def judged_by_rate(monkeypatch, house):
    """Networks that are as right as their learning rate is near to 0.02; gives the tasks that were judged."""
    asked, lock = [], read_lock(house.project.lock_file("digits"))

    def judge(task):
        asked.append(task)
        labels = lock.train_labels[task.judged_rows]
        right = round(len(labels) * max(0.1, 1 - abs(np.log10(task.recipe.learning_rate / 0.02)) / 2))
        said = np.where(np.arange(len(labels)) < right, labels, (labels + 1) % 10)
        return Judged(COMPLETE, np.eye(10)[said] * 0.9 + 0.01)

    monkeypatch.setattr(trials_module, "judge", judge)
    return asked
