"""The [search] table of a recipe: for each key that `make tune` searches, a range or a list of values.

    [search]
    learning_rate = { low = 0.0005, high = 0.02, log = true }
    batch_size = [32, 64, 128]
    augment.shift_pixels = { low = 0, high = 4 }

Only `make tune` reads it; training does not depend on it.
"""

import operator
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from podium.config.keys import SEARCH_TABLE, Recipe
from podium.config.recipe import recipe_of
from podium.config.schema import changed_keys, flat_keys, key, read_table, refuse, settings_of, unknown_key
from podium.errors import ConfigError

# Keys that cannot be searched, and why.
NOT_SEARCHED = {
    "seeds": "every trial has the recipe's first seed",
    "processes": "it changes the time, and how many images a batch norm sees",
    "threads": "it changes only the time and the last bits",
    "refit": "a refit has no validation rows",
    "pseudo_labels": "trials have none, because their blend has seen the rows that a trial is scored on",
}
# Default ranges reach from the recipe's own value divided by this factor to the value times this factor.
RATE_FACTOR, DECAY_FACTOR = 5, 10


@dataclass(frozen=True, kw_only=True)
class Range:
    """{ low, high, log }: every number from low to high; integers only, if low and high are integers."""

    low: int | float = key("the smallest value")
    high: int | float = key("the largest value")
    log: bool = key("draw the logarithm evenly: for rates, of which 0.001 to 0.01 matter as much as 0.01 to 0.1", False)


Search = dict[str, Range | tuple]  # a tuple holds the values to choose from


def read_search(file: Path, recipe: Recipe) -> Search:
    """The ranges in the [search] table of a recipe's file, by key (`augment.shift_pixels`), or else default ones.

    Raises ConfigError.
    """
    table = read_table(file).get(SEARCH_TABLE, {})
    if not isinstance(table, dict):
        raise ConfigError("Not a table.", file=file, expected=f"[{SEARCH_TABLE}]", found=f"{SEARCH_TABLE} = {table!r}")
    ranges, search, faults, known = {}, {}, [], list(flat_keys(Recipe))
    for name, value in table.items():
        is_table = is_dataclass(getattr(recipe, name, None)) and isinstance(value, dict)
        ranges |= {f"{name}.{inner}": value[inner] for inner in value} if is_table else {name: value}
    for name, value in ranges.items():
        if name not in known:
            faults.append(unknown_key(f"{SEARCH_TABLE}.", name, known))
        elif name in NOT_SEARCHED:
            faults.append(f"{SEARCH_TABLE}.{name}: cannot be searched; {NOT_SEARCHED[name]}")
        else:
            try:
                search[name] = _range_or_choices(value, name, recipe, file)
            except ConfigError as error:
                faults += [f"{SEARCH_TABLE}.{name}: {fault}" for fault in error.faults]
    refuse(faults, "Ranges that cannot be searched.", file=file)
    return search or default_search(recipe)


def _range_or_choices(value: Any, name: str, recipe: Recipe, file: Path) -> Range | tuple:
    """A range or a list of values for a key of a recipe, in the key's type; raises ConfigError."""
    limits = settings_of(Range, value, file) if isinstance(value, dict) else None
    given = [limits.low, limits.high] if limits else value if isinstance(value, list) else [value]
    values = [value_of(changed_recipe(recipe, {name: item}, file), name) for item in given]
    own = value_of(recipe, name)
    if limits:
        low, high = values
        result, holds_own = Range(low=low, high=high, log=limits.log), type(own) in (int, float) and low <= own <= high
        rules = {"low < high": low < high, "a low above 0 with log = true": low > 0 or not limits.log}
    else:
        result, holds_own = tuple(values), own in values
        is_list = len(values) > 1 and all(values.count(item) == 1 for item in values)
        rules = {"{ low = ..., high = ... } or a list of two or more values, each once": is_list}
    rules[f"to hold the recipe's own {own!r}, which is tried first"] = holds_own
    wrong = [f"expected {expected}, found {value!r}" for expected, is_right in rules.items() if not is_right]
    refuse(wrong[:1], "Not a range.", file=file)
    return result


def default_search(recipe: Recipe) -> Search:
    """Ranges for a recipe without [search], around its own values; raises ConfigError if it trains no layer."""
    if not recipe.epochs:
        what, expected = "The recipe has nothing to tune.", "epochs of 1 or more"
        raise ConfigError(what, expected=expected, found="no layer is trained")
    rate, muon_rate = recipe.learning_rate, recipe.muon_rate if recipe.optimiser == "muon" else 0
    decay, batch = recipe.weight_decay, recipe.batch_size
    search = {} if isinstance(rate, str) else {"learning_rate": _around(rate, RATE_FACTOR)}
    search |= {"muon_rate": _around(muon_rate, RATE_FACTOR)} if muon_rate else {}
    if recipe.pretrained and recipe.head != "logistic":
        search["freeze_epochs"] = Range(low=0, high=max(2, recipe.freeze_epochs))
    search["weight_decay"] = _around(decay, DECAY_FACTOR) if decay else Range(low=0.0, high=0.1)
    search["dropout"] = Range(low=0.0, high=max(0.5, recipe.dropout))
    return search | {"batch_size": tuple(sorted({max(2, batch // 2), batch, batch * 2}))}


def value_of(recipe: Recipe, name: str) -> Any:
    """The recipe's own value of a key such as `augment.zoom`; lists for tuples, as in TOML."""
    value = operator.attrgetter(name)(recipe)
    return list(value) if isinstance(value, tuple) else value


def changed_recipe(recipe: Recipe, values: Mapping[str, Any], file: Path) -> Recipe:
    """The recipe with other values of some keys, checked as if it were read from `file`; raises ConfigError."""
    table = {name: value_of(recipe, name) for name in ("head", "batch_size")} | changed_keys(recipe)
    set_values(table, values)
    return recipe_of(table, file)


def set_values(table: MutableMapping, values: Mapping[str, Any]) -> None:
    """Set keys such as `epochs` or `augment.zoom` in a recipe's table; a document of tomlkit keeps its comments."""
    for name, value in values.items():
        inner, _, last = name.rpartition(".")
        (table.setdefault(inner, {}) if inner else table)[last] = value


def _around(value: float, factor: float) -> Range:
    return Range(low=value / factor, high=value * factor, log=True)
