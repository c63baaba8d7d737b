"""A project of digits with one small recipe, for tests of searches."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from podium.tune.run import compare_with_recipe, run_trials
from podium.tune.study import open_tuning
from podium.workspace import open_workspace

SETTINGS = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
LOG_LOSS = 'metric = "log_loss"\n{}\n[submission]\nkind = "probabilities"\n'
RECIPE = """# A tiny network.
architecture = "timm:test_resnet"
seeds = [3, 4]
epochs = 2  # few
learning_rate = 0.002
stored_pixels = 16
[augment]
zoom = 1.1
"""
SEARCH = """
[search]
learning_rate = { low = 0.0002, high = 0.2, log = true }
augment.shift_pixels = { low = 0, high = 3 }
progressive_pixels = [[], [8]]
"""


@dataclass
class ToyProject:
    """A project with one recipe; `open` opens its search until the next call or the end of the test."""

    root: Path
    stack: ExitStack

    @property
    def recipe_file(self):
        return self.root / "competitions" / "digits" / "tiny.toml"

    @property
    def settings_file(self):
        return self.recipe_file.with_name("competition.toml")

    @property
    def workspace(self):
        return open_workspace("digits", self.root)

    def open(self):
        self.stack.close()
        return self.stack.enter_context(open_tuning(self.workspace, "tiny"))


def search(tuning, trials=None, minutes=None):
    """The lines that are printed while a search runs."""
    lines = []
    run_trials(tuning, trials, minutes, log=lines.append)
    return lines


def failing(error):
    """A training that raises `error`."""

    def train_run(*_, **__):
        raise error

    return train_run


def compare(tuning):
    """The comparison of the best trial with the recipe."""
    return compare_with_recipe(tuning, log=lambda line: None)
