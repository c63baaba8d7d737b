"""Errors that the user can fix, each printed on one screen."""

import difflib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

# Commands in a text: a goal of make, and not a path; `podium` and a verb.
MAKE_COMMAND = re.compile(r"\bmake (?=[a-z][\w.-]*(?![\w./-]))")
PODIUM_COMMAND = re.compile(r"(?<![\w./-])podium (?=[a-z])")
# In a message: of a thousand runs.
MOST_NAMES = 50
# Variables of a command of make that the next one needs too.
REPEATED = ("PYTHON", "DATA")


def examples(values: Iterable[Any], *, most: int = 3) -> str:
    """The first few values, shortened, for a message."""
    values = list(values)
    texts = [str(value) if len(str(value)) <= 40 else f"{str(value)[:37]}..." for value in values[:most]]
    return ", ".join(texts) + (", ..." if len(values) > most else "")


def pasteable(text: str) -> str:
    """A text whose commands can be pasted here: they repeat PYTHON= and DATA= of the command of make that runs now."""
    typed = re.search(r"(?:^| )-- (.*)", os.environ.get("MAKEFLAGS", ""))  # its words have \ before a space, and $$
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\\ ])+", typed[1] if typed else "")]
    values = dict(word.replace("$$", "$").split("=", 1) for word in words if "=" in word)
    repeated = [
        f"{name}={shlex.quote(values[name])} " for name in REPEATED if values.get(name) and f"{name}=" not in text
    ]
    text = MAKE_COMMAND.sub(lambda match: match[0] + "".join(repeated), text)
    return PODIUM_COMMAND.sub(lambda _: _podium_command(), text)


def _podium_command() -> str:
    """`podium `, where that is the command of this Python; else this Python with the module."""
    command, python = shutil.which("podium"), Path(sys.executable)
    if command and Path(command).resolve().parent == python.parent:
        return "podium "
    place = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    return f"{shlex.quote(str(place))} -m podium "


@dataclass(eq=False, repr=False)
class PodiumError(ValueError):
    """An error that the user can fix: what is wrong, the file, what was expected, what was found, what to type.

    `faults` lists several faults of one kind, one per line, so that all of them can be fixed at once. Whatever a file
    contains, the error is one screen: of a long line the middle is left out.
    """

    most_faults_shown, most_characters, default_fix = 20, 1500, "correct this, then repeat the command"

    what: str
    _: KW_ONLY
    file: Path | str | None = None
    expected: str | None = None
    found: str | None = None
    fix: str | None = None
    faults: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.faults = tuple(self.faults)

    def __str__(self) -> str:
        lines = [self.what]
        parts = [("file", self.file), ("expected", self.expected), ("found", self.found)]
        lines += [f"  {word + ':':<10}{value}" for word, value in parts if value is not None]
        lines += [f"  - {fault}" for fault in self.faults[: self.most_faults_shown]]
        if len(self.faults) > self.most_faults_shown:
            lines.append(f"  ... and {len(self.faults) - self.most_faults_shown} more")
        lines += f"  {'fix:':<10}{pasteable(self.fix or self.default_fix)}".split("\n")
        return "\n".join(map(self._printable, lines))

    def _printable(self, line: str) -> str:
        # Names of files and keys may contain line ends, codes of a terminal, and bytes that are not text.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        half = self.most_characters // 2
        return line if len(line) <= self.most_characters else f"{line[:half]} ... {line[-half:]}"


class ConfigError(PodiumError):
    """A setting or an argument is unknown or wrong."""


def unknown_name(kind: str, name: str, known: Sequence[str], *, option: str) -> ConfigError:
    """The error for a name that is not among the known ones, or that is missing; its fix is the nearest, as OPTION=."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4) or known[:1]
    return ConfigError(
        f"There is no {kind} '{name}'." if name else f"Which {kind}?",
        expected=f"one of {examples(known, most=MOST_NAMES)}",
        fix=f"{option}={nearest[0]}",
    )


class DataError(PodiumError):
    """Images, labels or archives are missing, damaged, or not those of the competition."""


class ChangedDataError(DataError):
    """The images or data.lock are no longer those that a training began with."""


class PredictionsError(PodiumError):
    """A predictions file is damaged, or two of them are about different rows."""


class SubmissionError(PodiumError):
    """A CSV is not a valid submission of the competition."""


class TrainingError(PodiumError):
    """A run cannot be trained with its recipe."""


class DeviceMemoryError(TrainingError):
    """The device has too little memory for a run."""


class DivergedError(TrainingError):
    """Training diverged: the loss or the logits are not finite."""


class KaggleError(PodiumError):
    """Kaggle refused a request, or could not be reached."""
