"""A competition on scikit-learn's digits, and the `podium` command in it."""

import shutil
from pathlib import Path

import pytest

from command_toys import run_podium
from digits_toys import prepare_digits

COMPETITION = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
FILES = {
    "competition.toml": COMPETITION,
    "tiny.toml": 'architecture = "timm:test_resnet"\nepochs = 1\nlearning_rate = 0.01\nstored_pixels = 16\n',
    "fast.toml": """architecture = "fastnet"  # tiny
seeds = [1, 2]
epochs = 1
learning_rate = "find"
optimiser = "muon"
stored_pixels = 16

[fastnet]
widths = [16, 16]
""",
}


@pytest.fixture(scope="session")
def podium():
    """Runs `podium` in a folder with the arguments that follow."""
    return run_podium


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A prepared competition with two recipes; tests that change it use `project`."""
    return prepare_digits(tmp_path_factory.mktemp("digits"), "digits", FILES).paths.root


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared competition."""
    return shutil.copytree(prepared, tmp_path / "project")


@pytest.fixture
def without_recipes(tmp_path: Path) -> Path:
    """A competition that has only settings."""
    folder = tmp_path / "competitions" / "digits"
    folder.mkdir(parents=True)
    (folder / "competition.toml").write_text(COMPETITION)
    return tmp_path
