"""A competition on scikit-learn's digits, and the `podium` command in it."""

import io
import shutil
import signal
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from podium.cli.app import main

COMPETITION = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPES = {
    "tiny": 'architecture = "timm:test_resnet"\nepochs = 1\nlearning_rate = 0.01\nstored_pixels = 16\n',
    "fast": """architecture = "fastnet"  # tiny
seeds = [1, 2]
epochs = 1
learning_rate = "find"
optimiser = "muon"
stored_pixels = 16

[fastnet]
widths = [16, 16]
""",
}


def run_podium(folder: Path, *arguments: str, **environment: str) -> CompletedProcess:
    """Run `podium` in a folder, in this process: torch is imported once for all tests."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    streams = redirect_stdout(stdout), redirect_stderr(stderr)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), streams[0], streams[1]:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["podium", *arguments])
        patch.setattr(signal, "signal", lambda *_: None)
        patch.setenv("COLUMNS", "200")
        patch.setenv("COMPETITION", "digits")
        patch.setenv("OPENBLAS_NUM_THREADS", "1")
        patch.delenv("PODIUM_CACHE", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
    return CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def podium():
    """Runs `podium` in a folder with the arguments that follow."""
    return run_podium


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A prepared competition with two recipes; tests that change it use `project`."""
    folder = tmp_path_factory.mktemp("digits")
    settings = folder / "competitions" / "digits"
    settings.mkdir(parents=True)
    (settings / "competition.toml").write_text(COMPETITION)
    for name, text in RECIPES.items():
        (settings / f"{name}.toml").write_text(text)
    assert run_podium(folder, "prepare").returncode == 0
    return folder


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
