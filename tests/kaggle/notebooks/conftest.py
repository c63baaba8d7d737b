"""A competition whose runs a notebook trains, at a Kaggle on loopback."""

import os

import pytest
from fake.server import FakeServer
from fake.state import State

from notebook_toys import NotebookToy


@pytest.fixture
def toy(tmp_path, monkeypatch):
    with FakeServer(State("", lambda _: None)) as server:
        toy = NotebookToy(tmp_path, server)
        for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
            monkeypatch.delenv(name)
        for name, value in toy.environment.items():  # no process of these tests can reach Kaggle
            monkeypatch.setenv(name, value)
        yield toy
