"""Edit recipe files by tomlkit: comments and layout stay as a person wrote them."""

import os
import stat
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from podium.config.keys import SEARCH_TABLE, Recipe
from podium.config.search import set_values
from podium.errors import ConfigError
from podium.files import atomic_write


def write_learning_rate(file: Path, rate: float, reason: str) -> None:
    """Write `rate`, rounded to two digits, into a recipe's file; `reason` replaces the comment behind the old value.

    Raises ConfigError where the file cannot be written.
    """
    check_writable(file)
    document = tomlkit.parse(file.read_bytes().decode())
    document["learning_rate"] = float(f"{rate:.2g}")
    document["learning_rate"].comment(reason)
    target = file.resolve()  # a symbolic link stays a link
    with atomic_write(target) as stream:
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
        stream.write(tomlkit.dumps(document).encode())


def check_writable(file: Path) -> None:
    """Raise ConfigError for a recipe that is write-protected, before minutes are spent on a value for it."""
    if not (file.stat().st_mode & stat.S_IWUSR and os.access(file, os.W_OK)):
        what, expected = "The recipe is write-protected.", "a file that you can write"
        raise ConfigError(what, file=file, expected=expected, fix=f"chmod u+w {file}")


def changed_text(file: Path, values: Mapping[str, Any], *, recipe: Recipe, reason: str) -> str:
    """The text of a `recipe`'s file with other `values` of keys such as `augment.zoom`, without [search].

    `reason` becomes a comment before it.
    """
    document = tomlkit.parse(file.read_text(encoding="utf-8"))
    document.pop(SEARCH_TABLE, None)
    head = {"head": recipe.head} if "freeze_epochs" in values else {}  # its default depends on that
    set_values(document, head | values)
    comment = textwrap.indent(textwrap.fill(reason, 117, break_long_words=False, break_on_hyphens=False), "# ")
    return f"{comment}\n\n{tomlkit.dumps(document).strip()}\n"
