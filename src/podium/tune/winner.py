"""The best trial as a recipe file: the recipe's text with other values and a comment that says how it was found."""

import textwrap
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import tomlkit

from podium import __version__
from podium.config.keys import COMPETITION_FILE, SEARCH_TABLE, recipe_of
from podium.config.search import set_values
from podium.errors import ConfigError
from podium.files import atomic_write
from podium.plan.names import check_recipe_name
from podium.tune.report import summary
from podium.tune.study import Tuning


def winner_file(tuning: Tuning, out: str | None) -> Path:
    """`<recipe>-tuned.toml`, or `<out>.toml`, beside the recipe; raises ConfigError for an invalid or used name."""
    name = out or f"{tuning.run.recipe_name}-tuned"
    check_recipe_name(name, tuning.recipe_file.parent)
    file = tuning.recipe_file.with_name(f"{name}.toml")
    if file.exists():
        removable = file.name != COMPETITION_FILE and file != tuning.recipe_file
        raise ConfigError(
            "The tuned recipe cannot replace an existing file.",
            file=file,
            expected="an unused name",
            fix=f"OUT=another-name{f', or rm {file}' if removable else ''}",
        )
    return file


def write_winner(tuning: Tuning, file: Path, comparison: str) -> None:
    """Write the best trial as a recipe; raises ConfigError where `file` was made meanwhile."""
    winner_file(tuning, file.stem)
    document = tomlkit.parse(tuning.recipe_file.read_text(encoding="utf-8"))
    document.pop(SEARCH_TABLE, None)
    set_values(document, tuning.values(tuning.best))
    versions = ", ".join(f"{name} {version(name)}" for name in ("optuna", "torch", "fastai"))
    sentences = (
        f"Found by `make tune RECIPE={tuning.run.recipe_name} COMPETITION={tuning.workspace.name}` on "
        f"{datetime.now(UTC).date()} with podium {__version__}, {versions}. {summary(tuning, comparison)}"
    )
    comment = textwrap.indent(textwrap.fill(sentences, 117, break_long_words=False, break_on_hyphens=False), "# ")
    text = f"{comment}\n\n{tomlkit.dumps(document).strip()}\n"
    assert recipe_of(tomllib.loads(text), file) == tuning.recipe_of(tuning.best), file
    with atomic_write(file) as stream:
        stream.write(text.encode())
