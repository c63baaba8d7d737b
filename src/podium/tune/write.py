"""What a search found, as a recipe file that says how it was found."""

import hashlib
import json
import re
import textwrap
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from podium import __version__
from podium.config.keys import COMPETITION_FILE, read_recipe
from podium.config.search import changed_table
from podium.errors import ConfigError
from podium.files import atomic_write
from podium.plan.names import check_recipe_name
from podium.tune.history import finished, state_word
from podium.tune.tuning import Tuning

SIGNATURE = re.compile(r"# sha256 of the lines below: ([0-9a-f]{64})\n")


def winner_file(tuning: Tuning, out: str | None) -> Path:
    """Where the winner is written: `<recipe>-tuned.toml`, or `<out>.toml`, beside the recipe.

    Raises ConfigError for a name that cannot be a recipe's, and for a file that a search did not write or that
    was edited since.
    """
    name = out or f"{tuning.recipe_name}-tuned"
    check_recipe_name(name, tuning.recipe_file.parent)
    file = tuning.recipe_file.with_name(f"{name}.toml")
    if file.name == COMPETITION_FILE or file == tuning.recipe_file:
        raise ConfigError("The winner cannot be written over that.", file=file, fix="OUT=another-name")
    if file.exists() and not _is_untouched(file.read_text(encoding="utf-8", errors="replace")):
        raise ConfigError(
            "There is a recipe that a search did not write, or that was edited since.",
            file=file,
            expected="a name that is free",
            fix=f"OUT=another-name, or rm {file}",
        )
    return file


def write_winner(tuning: Tuning, file: Path, again: dict[str, Any] | None) -> None:
    """Write the best trial as a complete recipe; raises ConfigError where `file` was edited meanwhile."""
    values = tuning.values(tuning.best)
    winner_file(tuning, file.stem)
    told = textwrap.wrap(" ".join(told_lines(tuning, again)), 117, break_long_words=False, break_on_hyphens=False)
    body = "".join(
        f"{line}\n" for line in [*(f"# {line}" for line in told), *_toml_lines(changed_table(tuning.recipe, values))]
    )
    digest = hashlib.sha256(body.encode()).hexdigest()
    with atomic_write(file) as stream:
        stream.write(f"# sha256 of the lines below: {digest}\n{body}".encode())
    assert read_recipe(file) == tuning.recipe_with(values), file


def told_lines(tuning: Tuning, again: dict[str, Any] | None) -> list[str]:
    """How the best trial was found and what to believe of it, in sentences."""
    best, own, metric = tuning.best, tuning.own, tuning.metric_name
    trials = finished(tuning.study)
    counts = {word: sum(state_word(one) == word for one in trials) for word in ("pruned", "failed")}
    some = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    today = datetime.now(UTC).date().isoformat()
    own_score = f"{own.user_attrs['score']:.4f}" if own and "score" in own.user_attrs else "no score"
    versions = ", ".join(f"{name} {version(name)}" for name in ("optuna", "torch", "fastai"))
    return [
        f"Found by `make tune RECIPE={tuning.recipe_name} COMPETITION={tuning.competition_name}` on {today}:",
        f"the best of {len(trials)} trials{f' ({some})' if some else ''} is number {best.number},",
        f"{tuning.split.words}.",
        f"Its {metric} there is {best.user_attrs['score']:.4f}; {tuning.recipe_name} as it is has {own_score}.",
        again_sentence(tuning, again),
        f"Made with podium {__version__}, {versions}.",
    ]


def again_sentence(tuning: Tuning, again: dict[str, Any] | None) -> str:
    """What the second look says: the best of many trials looks better than it is."""
    if again is None:
        return "It is the recipe as it was."
    told = "The best of many trials looks better than it is: "
    scores = [f"{again[name]:.4f}" if again[name] is not None else "no score" for name in ("found", "own")]
    told += f"on {again['rows']:,} other inner rows, with other seeds, it has {scores[0]} against {scores[1]}"
    if again["difference"] is None:
        return f"{told}."
    error = "" if again["error"] is None else f" ± {again['error']:.4f}"
    return f"{told}, {again['difference']:+.4f}{error}: {verdict(again)}."


def verdict(again: dict[str, Any]) -> str:
    """Whether the second look bears the first out, in words."""
    if again["error"] is None:
        return "better there too" if again["difference"] > 0 else "not better there"
    if abs(again["difference"]) <= 2 * again["error"]:
        return "no difference beyond noise"
    return "better beyond the noise of the rows" if again["difference"] > 0 else "it is worse"


def _is_untouched(text: str) -> bool:
    signed = SIGNATURE.match(text)
    return bool(signed) and hashlib.sha256(text[signed.end() :].encode()).hexdigest() == signed[1]


def _toml_lines(table: dict[str, Any], name: str = "") -> list[str]:
    """A table as TOML; plain keys before tables, as TOML wants it."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = ["", f"[{name}]"] if name else []
    # JSON's texts, numbers, booleans and lists are TOML's.
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key in (key for key in table if key not in plain):
        lines += _toml_lines(table[key], f"{name}.{key}" if name else key)
    return lines
