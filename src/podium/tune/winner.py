"""The best trial as a recipe file: the recipe's text with other values and a comment that says how it was found."""

import hashlib
import re
import textwrap
import tomllib
from pathlib import Path

import tomlkit

from podium.config.editing import change_values
from podium.config.keys import COMPETITION_FILE, SEARCH_TABLE, recipe_of
from podium.errors import ConfigError
from podium.files import atomic_write
from podium.plan.names import check_recipe_name
from podium.tune.study import Tuning
from podium.tune.text import Comparison, origin, summary

SIGNATURE = re.compile(r"# sha256 of the lines above: ([0-9a-f]{64})\n\Z")


def winner_file(tuning: Tuning, out: str | None) -> Path:
    """`<recipe>-tuned.toml`, or `<out>.toml`, beside the recipe.

    Raises ConfigError for an invalid name, and for a file that no search wrote or that was edited afterwards.
    """
    name = out or f"{tuning.run.recipe_name}-tuned"
    check_recipe_name(name, tuning.recipe_file.parent)
    file = tuning.recipe_file.with_name(f"{name}.toml")
    if file.name == COMPETITION_FILE or file == tuning.recipe_file:
        raise ConfigError("The tuned recipe cannot replace this file.", file=file, fix="OUT=another-name")
    if file.exists() and not _is_unedited(file.read_text(encoding="utf-8", errors="replace")):
        raise ConfigError(
            "A recipe exists that no search wrote, or that was edited afterwards.",
            file=file,
            expected="an unused name",
            fix=f"OUT=another-name, or rm {file}",
        )
    return file


def write_winner(tuning: Tuning, file: Path, comparison: Comparison) -> None:
    """Write the best trial as a recipe; raises ConfigError where `file` was edited meanwhile."""
    winner_file(tuning, file.stem)
    document = tomlkit.parse(tuning.recipe_file.read_text(encoding="utf-8"))
    document.pop(SEARCH_TABLE, None)
    values = tuning.values(tuning.best)
    change_values(document, values)
    sentences = " ".join([origin(tuning), *summary(tuning, comparison)])
    comment = textwrap.indent(textwrap.fill(sentences, 117, break_long_words=False, break_on_hyphens=False), "# ")
    body = f"{comment}\n\n{tomlkit.dumps(document).strip()}\n"
    assert recipe_of(tomllib.loads(body), file) == tuning.recipe_with(values), file
    with atomic_write(file) as stream:
        stream.write(f"{body}# sha256 of the lines above: {hashlib.sha256(body.encode()).hexdigest()}\n".encode())


def _is_unedited(text: str) -> bool:
    signature = SIGNATURE.search(text)
    return bool(signature) and hashlib.sha256(text[: signature.start()].encode()).hexdigest() == signature[1]
