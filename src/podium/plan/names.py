"""What competitions, recipes and runs may be called."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from podium.errors import ConfigError

# Names become file names, make targets and words of a command line.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LIKE_A_RUN = re.compile(r".*\.s[0-9]+")
# Names that mean something to make, besides its targets.
MAKES_OWN = {"Makefile", "FORCE", "demo-all", "environment.mk"}


def run_name(recipe_name: str, seed: int) -> str:
    """`resnet34.s1`: the recipe `resnet34` with seed 1."""
    return f"{recipe_name}.s{seed}"


def check_recipe_name(name: str, file: Path) -> str:
    """The name of a recipe or a competition; raises ConfigError for one that make or the file system would misread."""
    if not NAME.fullmatch(name) or LIKE_A_RUN.fullmatch(name) or name in MAKES_OWN:
        raise ConfigError(
            f"'{name}' cannot be the name of a recipe or a competition.",
            file=file,
            expected="letters, digits, and _ . + - between them; not the end of a run's name, as in .s1",
            fix="rename it",
        )
    return name


def check_run_name(name: str, taken: Sequence[str]) -> None:
    """Refuse a name that no run from elsewhere may have; raises ConfigError."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"'{name}' cannot be the name of a run.", expected="letters, digits, and _ . + - between them"
        )
    if name in taken:
        raise ConfigError(
            f"'{name}' is a run of a recipe here.", expected="another name", fix=f"podium import other.{name}"
        )


def check_goals(goals: Sequence[str], targets: Sequence[str], names: Sequence[str]) -> None:
    """Refuse what make cannot make, with the nearest spelling; raises ConfigError.

    `names` are the recipes and runs beside make's `targets`. A goal with a slash is a file: make decides.
    """
    if taken := sorted(set(targets) & set(names)):
        raise ConfigError(
            f"`make {taken[0]}` means something else than the recipe '{taken[0]}'.", fix="rename its file"
        )
    known = [*targets, *names]
    unknown = [goal for goal in goals if goal not in known and "/" not in goal]
    if not unknown:
        return
    nearest = [difflib.get_close_matches(goal, known, n=1) for goal in unknown]
    fixes = [f"make {one[0]}" for one in nearest if one]
    raise ConfigError(
        f"There is nothing called {', '.join(repr(goal) for goal in unknown)} to make.",
        expected=f"one of {', '.join(known)}",
        fix="; ".join(dict.fromkeys(fixes)) or "make help",
    )
