"""Edit recipe files by tomlkit: comments and layout stay as a person wrote them."""

import os
import re
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

LR_FIND_COMMENT = re.compile(r"# lr_find's [a-z]+, [0-9-]+, batch [0-9,]+, [0-9,]+ rows\s*")


def write_learning_rate(file: Path, rate: float, reason: str) -> None:
    """Write `rate`, rounded to two digits, into a recipe's file, with `reason` before the key's comment.

    A `reason` that an earlier call wrote is replaced. Raises ConfigError where the file cannot be written.
    """
    check_writable(file)
    document = tomlkit.parse(file.read_bytes().decode())
    document["learning_rate"] = float(f"{rate:.2g}")
    trivia = document["learning_rate"].trivia
    comment = LR_FIND_COMMENT.sub("", trivia.comment)
    trivia.comment_ws, trivia.comment = "  ", f"# {reason}  {comment}".rstrip()
    target = file.resolve()  # a symbolic link stays a link
    with atomic_write(target) as stream:
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
        stream.write(tomlkit.dumps(document).encode())


def check_writable(file: Path) -> None:
    """Raise ConfigError for a recipe that is write-protected, before minutes are spent on a value for it."""
    if not (file.stat().st_mode & stat.S_IWUSR and os.access(file, os.W_OK)):
        raise ConfigError(
            "The recipe is write-protected.", file=file, expected="a file that you can write", fix=f"chmod u+w {file}"
        )


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
