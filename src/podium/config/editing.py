"""One value of a recipe's file, changed in its line: every other byte stays as a person wrote it."""

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from podium.errors import ConfigError
from podium.files import atomic_write

KEY = "learning_rate"
# The key's line, in whatever spelling: the key, the value, and a comment. Which line it is, TOML decides.
LINE = re.compile(rf"""^([ \t]*["']?{KEY}["']?[ \t]*=[ \t]*)([^\s#]+)([^\r\n]*)""", re.MULTILINE)
OWN_COMMENT = re.compile(r"[ \t]*# lr_find's [a-z]+, [0-9-]+, batch [0-9,]+, [0-9,]+ rows")


def write_learning_rate(file: Path, rate: float, reason: str) -> None:
    """Put `rate`, to two digits, into a recipe's file, with `reason` as a comment; a person's comment stays.

    Raises ConfigError where the file cannot be changed, or not without changing anything else.
    """
    text = _checked_text(file)
    changed = _changed(text, f"{rate:.2g}", reason)
    if changed is None:
        raise ConfigError(
            f"{KEY} is not written in a line of its own.",
            file=file,
            expected=f"{KEY} = {rate:.2g}  # {reason}",
            fix="write that line into the file by hand",
        )
    target = file.resolve()  # what a link leads to, not the link
    with atomic_write(target) as stream:
        os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
        stream.write(changed.encode())


def check_editable(file: Path) -> None:
    """Raise the ConfigError of `write_learning_rate` before minutes are spent on the value."""
    text = _checked_text(file)
    if _changed(text, "0.5", "") is None:
        raise ConfigError(
            f"{KEY} is not written in a line of its own.",
            file=file,
            expected=f"a line such as: {KEY} = 0.1",
            fix=f"edit {file}",
        )


def _checked_text(file: Path) -> str:
    if not (file.stat().st_mode & stat.S_IWUSR and os.access(file, os.W_OK)):
        raise ConfigError(
            "The recipe may not be written.", file=file, expected="a file with leave to write", fix=f"chmod u+w {file}"
        )
    return file.read_bytes().decode()


def _changed(text: str, value: str, reason: str) -> str | None:
    """The text with another value, which parses to the same but for that; None where there is no such text."""
    expected = tomllib.loads(text) | {KEY: _number(value)}
    for found in LINE.finditer(text):
        comment = OWN_COMMENT.sub("", found[3], count=1).lstrip()
        told = "  ".join(part for part in (f"{found[1]}{value}", f"# {reason}", comment) if part)
        changed = text[: found.start()] + told + text[found.end() :]
        if _parsed(changed) == expected:
            return changed
    return None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _number(text: str) -> int | float:
    return tomllib.loads(f"x = {text}")["x"]
