"""A competition without images, and a Kaggle on loopback that the real kaggle CLI talks to."""

import json
import os

import numpy as np
import pytest
from fake.server import FakeServer
from fake.state import Graded, State
from starter import Starter

from podium.kaggle import client
from podium.kaggle.account import Account
from podium.kaggle.ledger import read_ledger
from podium.kaggle.session import Session
from podium.kaggle.waiting import Patience
from podium.lock import Lock, write_lock
from podium.plan.stamp import file_sha256
from podium.workspace import open_workspace

SLUG = "birds-and-others"
CLASSES = ("bird", "cat", "dog")
COMPETITION = f"""
title = "Birds"
[data]
source = "folders"
[validation]
rows = 6
[kaggle]
competition = "{SLUG}"
"""
ANSWERS = {str(row): CLASSES[row % 3] for row in range(30)}


def csv_text(wrong=0):
    """A submission with this number of wrong rows; its class shares are usual."""
    rows = [f"{row},{CLASSES[(i + (i < wrong)) % 3]}" for i, row in enumerate(ANSWERS)]
    return "\n".join(["id,label", *rows]) + "\n"


def grade(content):
    """Accuracy by the answers: the first 15 rows are public."""
    labels = dict(line.split(",") for line in content.decode().splitlines()[1:])
    is_correct = [labels[row] == name for row, name in ANSWERS.items()]
    return Graded(f"{sum(is_correct[:15]) / 15:.5f}", f"{sum(is_correct[15:]) / 15:.5f}")


class KaggleProject:
    """A project with one competition, its CSV, and sessions with the fake Kaggle of `state`."""

    def __init__(self, folder, server):
        self.folder, self.server, self.state, self.lines = folder, server, server.state, []
        settings = folder / "competitions" / "birds"
        settings.mkdir(parents=True)
        (settings / "competition.toml").write_text(COMPETITION)
        train = np.array([f"t{row}" for row in range(30)])
        lock = Lock("data", CLASSES, train, np.arange(30) % 3, np.arange(30) % 5, np.array(list(ANSWERS)))
        write_lock(settings / "data.lock", lock)
        self.environment = server.environment(os.environ, folder / "home")
        self.csv = folder / "submissions" / "birds" / "ensemble.csv"
        self.write(0)

    def write(self, wrong):
        """Write the CSV, and the JSON that records what made it."""
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        self.csv.write_text(csv_text(wrong))
        honest = {"score": 1 - wrong / 30, "interval": [0.8, 1.0]}
        description = {"csv_sha256": file_sha256(self.csv), "honest_score": honest, "runs": []}
        self.csv.with_suffix(".json").write_text(json.dumps(description))

    def session(self, *, timeout_seconds=20, wait_seconds=5, retry_seconds=(0.1,), grace_seconds=1, **changes):
        """A session with short waits; `changes` go into the CLI's environment."""
        environment = {name: value for name, value in (self.environment | changes).items() if value is not None}
        kaggle = Account(SLUG, environment, timeout_seconds, retry_seconds)
        patience = Patience(0.1, 0.1, wait_seconds, grace_seconds)
        workspace = open_workspace("birds", self.folder)
        return Session(workspace, kaggle, self.lines.append, patience)

    @property
    def ledger(self):
        """The ledger's entries."""
        return read_ledger(self.csv.parent / "ledger.csv")


@pytest.fixture(scope="session")
def starter():
    with Starter() as starter:
        yield starter


@pytest.fixture(autouse=True)
def quick_cli(starter, monkeypatch):
    """The kaggle CLI runs in a fork of a process that has imported what it imports."""
    monkeypatch.setattr(client, "subprocess", starter)


@pytest.fixture
def project(tmp_path, monkeypatch):
    with FakeServer(State(SLUG, grade)) as server:
        project = KaggleProject(tmp_path, server)
        # No command may reach Kaggle with the credentials of the person who runs the tests.
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            monkeypatch.delenv(name)
        for name, value in project.environment.items():
            monkeypatch.setenv(name, value)
        yield project
