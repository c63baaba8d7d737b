"""A search to try things on: a project of digits with one recipe."""

from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass

from podium.errors import PodiumError
from podium.plan.paths import Project
from podium.tune.trials import Onlooker
from podium.tune.tuning import open_tuning

SETTINGS = 'title = "digits"\n[data]\nsource = "digits"\n[validation]\nrows = 297\n'
RECIPE = """
architecture = "timm:test_resnet"
seeds = [3, 4]
epochs = 2
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


class Inline(Executor):
    """Does at once what it is given."""

    def submit(self, work, /, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except PodiumError as error:
            future.set_exception(error)
        return future


class Remembering(Onlooker):
    def __init__(self):
        self.numbers, self.looks = [], 0

    def finished(self, tuning, trial):
        self.numbers.append(trial.number)

    def look(self, tuning):
        self.looks += 1


@dataclass
class House:
    """A project with one recipe; `open` opens its search until the test ends."""

    project: Project
    stack: ExitStack

    @property
    def recipe_file(self):
        return self.project.root / "competitions" / "digits" / "tiny.toml"

    def open(self, **keys):
        self.stack.close()
        return self.stack.enter_context(open_tuning(self.project, "digits", "tiny", **keys))
