"""Writes the reference pages from the code: settings.md, cli.md and files.md; `make docs` runs it.

The pages are committed, so that they can be read where no site is built; a test compares them with the code.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from inspect import getdoc, getsource
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from typer import main
from typer.testing import CliRunner

import podium.kaggle.ledger as ledger
import podium.lock as lock
from podium.cli.app import app
from podium.config.keys import Competition, Recipe
from podium.plan.cost import Rental
from podium.plan.stamp import ABOUT_MEMBER
from podium.predictions.artefact import ABOUT_KEYS, ARRAYS, REQUIRED_KEYS, Predictions

HEAD = "<!-- Written by docs/make_reference.py: edit the code, then type make docs. -->\n\n"
TYPES = {str: "text", int: "integer", float: "number", bool: "true or false"}


def text(words: str) -> str:
    """Words as Markdown that can be a cell of a table."""
    return re.sub(r"([<>|*])", r"\\\1", words)


def type_words(hint: Any) -> str:
    """What a value of a key may be."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if isinstance(hint, UnionType):
        return " or ".join(dict.fromkeys(type_words(kind) for kind in get_args(hint)))
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        return f"list of: {type_words(kinds[0])}" if kinds[1:] == (...,) else f"{len(kinds)} of: {type_words(kinds[0])}"
    return TYPES[hint]


def default_words(value: Any) -> str:
    """The default of a key as TOML has it; a key without one is required."""
    return "required" if value is MISSING else f"`{json.dumps(round(value, 4) if isinstance(value, float) else value)}`"


def key_rows(kind: type) -> list[str]:
    """The table of the keys of one class; its tables follow in sections of their own."""
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for field in (field for field in fields(kind) if not is_dataclass(field.type)):
        low, high = field.metadata["low"], field.metadata["high"]
        limits = "" if low == -inf else f", {low:g} or more" if high == inf else f", {low:g} to {high:g}"
        cells = (type_words(field.type) + limits, default_words(field.default), text(field.metadata["meaning"]))
        rows.append(f"| `{field.name}` | {' | '.join(cells)} |")
    return rows


def settings_page() -> str:
    """Every key of competition.toml, of a recipe, and of `make plan-cost SET=`."""
    lines = [
        "# Settings",
        "",
        "Podium refuses a key that it does not know, a value outside the range, and a key without",
    ]
    lines += ["effect on the task. What differs by task is explained in [own competitions](competitions.md)."]
    for file, kind in (("competition.toml", Competition), ("A recipe", Recipe), ("make plan-cost", Rental)):
        lines += ["", f"## {file}", "", text((getdoc(kind) or "").partition(": ")[2].capitalize()), "", *key_rows(kind)]
        for field in (field for field in fields(kind) if is_dataclass(field.type)):
            what = (getdoc(field.type) or "").partition(": ")[2]
            lines += ["", f"### [{field.name}]", "", text(what[0].upper() + what[1:]), "", *key_rows(field.type)]
    return HEAD + "\n".join(lines) + "\n"


def cli_page() -> str:
    """What `podium COMMAND --help` prints, for every command."""
    parts = ["# The podium command\n\nWhat `--help` prints, for scripts; [make](commands.md) types these commands."]
    for name in main.get_command(app).commands:
        shown = CliRunner().invoke(app, [name, "--help"], prog_name="podium", env={"COLUMNS": "90", "TERM": "dumb"})
        usage = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in shown.stdout.splitlines())).strip()
        parts.append(f"## podium {name}\n\n```text\n{usage}\n```")
    return HEAD + "\n\n".join(parts) + "\n"


def files_page() -> str:
    """The formats of the files that one step hands to the next."""
    arrays = table("array", "shape and type", commented(Predictions, ARRAYS))
    about = table("key", "value", [(key, words) for key, words in ABOUT_KEYS.items() if key in REQUIRED_KEYS])
    columns = table("column", "meaning", commented(ledger.Entry, ledger.COLUMNS))
    parts = ["# File formats\n\n## oof/COMPETITION/RUN.npz: predictions of a run"]
    parts += [
        "A zip archive that `numpy.load(file, allow_pickle=False)` reads. Rows are joined by id, never by position."
    ]
    parts += [arrays, f"`{ABOUT_MEMBER}` in it says how they were made. It has at least these keys:", about]
    parts += [
        "## competitions/COMPETITION/data.lock",
        (getdoc(lock) or "").partition("\n\n")[2].split(" Only NumPy")[0],
    ]
    parts += ["## submissions/COMPETITION/ledger.csv", (getdoc(ledger) or "").partition("\n\n")[2], columns]
    return HEAD + "\n\n".join(parts) + "\n"


def table(first: str, second: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and what they are."""
    return "\n".join([f"| {first} | {second} |", "| --- | --- |", *(f"| `{a}` | {text(b)} |" for a, b in rows)])


def commented(kind: type, names: Iterable[str]) -> list[tuple[str, str]]:
    """The named fields of a class, with the comments beside them."""
    comments = dict(re.findall(r"^ +(\w+): .*?  # (.*)$", getsource(kind), re.MULTILINE))
    return [(name, comments[name]) for name in names]


PAGES = {"settings.md": settings_page, "cli.md": cli_page, "files.md": files_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page())
