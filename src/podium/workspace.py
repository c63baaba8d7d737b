"""Everything a command knows about its competition: paths, settings, recipes, runs and the lock of the data.

A command opens one workspace and hands it down. Each file is read at most once, when it is first needed: `podium
check` works in a competition that has no recipe, `podium prepare` in one that has no lock.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from podium.errors import DataError
from podium.lock import Lock, read_lock
from podium.plan.runs import Plan, read_plan


class Workspace(Plan):
    """A plan, and the lock of the competition's data."""

    @cached_property
    def lock(self) -> Lock:
        """Ids, labels and folds; raises DataError where the data are not prepared, or for another target."""
        lock, target = read_lock(self.paths.lock_file), self.competition.data.target
        if lock.target_name != target:
            raise DataError(
                "The data were prepared for another target.",
                file=self.paths.lock_file,
                expected=f'[data] target = "{target}"',
                found=f'"{lock.target_name}"',
                fix=f"make prepare COMPETITION={self.name}",
            )
        return lock

    def with_lock(self, lock: Lock) -> "Workspace":
        """The same workspace with another lock instead of the one in its file."""
        workspace = replace(self)
        vars(workspace)["lock"] = lock
        return workspace


def open_workspace(name: str, root: Path | str = ".") -> Workspace:
    """The workspace of the competition `name` below `root`; raises ConfigError if it does not exist, or is wrong."""
    return read_plan(name, root, kind=Workspace)
