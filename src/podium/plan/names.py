"""Names of competitions, recipes and runs, and their checks."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from podium.errors import ConfigError, examples

# A name becomes a file name, a make target and an argument of a command line.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
CHARACTERS = "letters, digits, and _ . + - between them"
RUN_SUFFIX = re.compile(r".*\.s[0-9]+")
# Names that the Makefile uses for itself, beside its targets.
MOST_KNOWN = 60  # in a message: all targets of the Makefile, and some of a thousand runs
RESERVED = {"Makefile", "FORCE", "demo-all", "environment.mk"}


def run_name(recipe_name: str, seed: int) -> str:
    """`resnet34.s1`: the recipe `resnet34` with seed 1."""
    return f"{recipe_name}.s{seed}"


def check_recipe_name(name: str, file: Path) -> None:
    """Raise ConfigError if make or a file system would misread the name of a recipe or a competition."""
    if not NAME.fullmatch(name) or RUN_SUFFIX.fullmatch(name) or name in RESERVED:
        what = f"'{name}' cannot be the name of a recipe or a competition."
        raise ConfigError(what, file=file, expected=f"{CHARACTERS}; no seed as in .s1", fix="rename it")


def check_run_name(name: str, taken: Sequence[str]) -> None:
    """Raise ConfigError if an imported run cannot have this name; `taken` are the names of the runs of recipes."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' cannot be the name of a run.", expected=CHARACTERS, fix="vit.s1")
    if name in taken:
        what, fix = f"'{name}' is already the name of a recipe's run.", f"podium import other.{name}"
        raise ConfigError(what, expected="another name", fix=fix)


def check_goals(goals: Sequence[str], targets: Sequence[str], names: Sequence[str]) -> None:
    """Raise ConfigError, with the nearest spelling, for goals that make does not know.

    `targets` are those of the Makefile, `names` the recipes and runs. Goals with a slash are files, which make checks.
    """
    if conflicts := sorted(set(targets) & set(names)):
        raise ConfigError(f"The recipe '{conflicts[0]}' has the name of a make target.", fix="rename its file")
    known = [*targets, *names]
    unknown = [goal for goal in goals if goal not in known and "/" not in goal]
    if not unknown:
        return
    nearest = [name for goal in unknown for name in difflib.get_close_matches(goal, known, n=1)]
    raise ConfigError(
        f"make does not know {', '.join(repr(goal) for goal in unknown)}.",
        expected=f"one of {examples(known, most=MOST_KNOWN)}",
        fix="; ".join(dict.fromkeys(f"make {name}" for name in nearest)) or "make help",
    )
