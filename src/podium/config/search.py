"""The [search] table of a recipe: for each key that `make tune` searches, a range or a list of values.

    [search]
    learning_rate = { low = 0.0005, high = 0.02, log = true }
    batch_size = [32, 64, 128]
    augment.shift_pixels = { low = 0, high = 4 }

Only the standard library is imported, because make plans before an environment exists.
"""

import dataclasses
import operator
import typing
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config.keys import SEARCH_TABLE, Recipe
from podium.config.recipe import recipe_of
from podium.config.schema import build, changed_keys, key, unknown_key
from podium.errors import ConfigError

# Keys that cannot be searched, and why.
NOT_SEARCHED = {
    "seeds": "every trial has the recipe's first seed",
    "threads": "it changes only the time and the last bits",
    "refit": "a refit has no validation rows",
    "pseudo_labels": "trials have none, because their blend has seen the rows that a trial is scored on",
}
# Default ranges reach from the recipe's own value divided by this factor to the value times this factor.
RATE_FACTOR, DECAY_FACTOR = 5, 10


@dataclass(frozen=True, kw_only=True)
class Range:
    """{ low, high, log }: every number from low to high."""

    low: float = key("the smallest value")
    high: float = key("the largest value")
    log: bool = key("draw the logarithm evenly: for rates, of which 0.001 to 0.01 matter as much as 0.01 to 0.1", False)


@dataclass(frozen=True, kw_only=True)
class WholeRange(Range):
    """{ low, high, log } of a key whose values are integers."""

    low: int = key("the smallest value")
    high: int = key("the largest value")


Search = dict[str, Range | tuple]  # a tuple holds the values to choose from


def search_of(table: Any, recipe: Recipe, file: Path) -> Search:
    """The ranges in the [search] `table` of a recipe's `file`, by key (`augment.shift_pixels`); raises ConfigError."""
    faults: list[str] = []
    if isinstance(table, dict):
        search = _parse(Recipe, table, "", faults)
    else:
        search = {}
        faults.append(f"{SEARCH_TABLE} = {table!r}: expected a table [{SEARCH_TABLE}]")
    for name, values in search.items():
        faults += _value_faults(recipe, name, values, file)
    if faults:
        raise ConfigError("Ranges that cannot be searched.", file=file, faults=faults, fix=f"edit {file}")
    return search


def default_search(recipe: Recipe) -> Search:
    """Ranges for a recipe without [search], around its own values; raises ConfigError if it trains no layer."""
    if not recipe.epochs:
        raise ConfigError(
            "The recipe has nothing to tune.", expected="epochs of 1 or more", found="no layer is trained"
        )
    search: Search = {}
    if isinstance(recipe.learning_rate, float | int):
        search["learning_rate"] = _around(recipe.learning_rate, RATE_FACTOR)
    if recipe.optimiser == "muon" and recipe.muon_rate:
        search["muon_rate"] = _around(recipe.muon_rate, RATE_FACTOR)
    if recipe.pretrained and recipe.head != "logistic":
        search["freeze_epochs"] = WholeRange(low=0, high=max(2, recipe.freeze_epochs))
    decay, batch = recipe.weight_decay, recipe.batch_size
    search["weight_decay"] = _around(decay, DECAY_FACTOR) if decay else Range(low=0.0, high=0.1)
    search["dropout"] = Range(low=0.0, high=max(0.5, recipe.dropout))
    search["batch_size"] = tuple(sorted({max(2, batch // 2), batch, batch * 2}))
    return search


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
        *tables, last = name.split(".")
        inner = table
        for part in tables:
            inner = inner.setdefault(part, {})
        inner[last] = value


def _around(value: float, factor: float) -> Range:
    return Range(low=value / factor, high=value * factor, log=True)


def _parse(kind: type, table: dict[str, Any], prefix: str, faults: list[str]) -> Search:
    """The ranges of the keys that the class `kind` declares; adds to `faults`."""
    hints, search = typing.get_type_hints(kind), {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        if name not in hints:
            faults.append(unknown_key(f"{SEARCH_TABLE}.{prefix}", name, list(hints)))
        elif path in NOT_SEARCHED:
            faults.append(f"{SEARCH_TABLE}.{path}: cannot be searched; {NOT_SEARCHED[path]}")
        elif not dataclasses.is_dataclass(hints[name]):
            search[path] = _range_or_choices(value, hints[name], f"{SEARCH_TABLE}.{path}", faults)
        elif isinstance(value, dict):
            search |= _parse(hints[name], value, f"{path}.", faults)
        else:
            faults.append(f"{SEARCH_TABLE}.{path} = {value!r}: expected a table of the keys in [{path}]")
    return {name: values for name, values in search.items() if values is not None}


def _range_or_choices(value: Any, hint: Any, name: str, faults: list[str]) -> Range | tuple | None:
    if isinstance(value, list):
        if len(value) < 2 or any(item in value[:index] for index, item in enumerate(value)):
            faults.append(f"{name} = {value!r}: expected two or more values, each once")
        return tuple(value)
    accepted = () if typing.get_origin(hint) is tuple else typing.get_args(hint) or (hint,)
    is_number = int in accepted or float in accepted
    if not isinstance(value, dict) or not is_number:
        expected = "{ low = ..., high = ... } or a list of values" if is_number else "a list of values"
        faults.append(f"{name} = {value!r}: expected {expected}")
        return None
    own_faults: list[str] = []
    limits = build(WholeRange if int in accepted else Range, value, f"{name}.", own_faults)
    if limits and not limits.low < limits.high:
        own_faults.append(f"{name}: expected low < high, found {limits.low} and {limits.high}")
    elif limits and limits.log and limits.low <= 0:
        own_faults.append(f"{name}: log = true needs a low above 0, found {limits.low}")
    faults += own_faults
    return None if own_faults else limits


def _value_faults(recipe: Recipe, name: str, values: Range | tuple, file: Path) -> list[str]:
    """Faults of the limits as values of the recipe, or of ranges without the recipe's own value."""
    faults = []
    for value in values if isinstance(values, tuple) else (values.low, values.high):
        try:
            changed_recipe(recipe, {name: value}, file)
        except ConfigError as error:
            faults += [f"{SEARCH_TABLE}.{name}: {fault}" for fault in error.faults]
    own = value_of(recipe, name)
    if isinstance(values, tuple):
        is_held = own in values
    else:
        is_held = isinstance(own, int | float) and values.low <= own <= values.high
    if not faults and not is_held:
        faults.append(f"{SEARCH_TABLE}.{name}: expected to hold the recipe's own {own!r}, which is tried first")
    return list(dict.fromkeys(faults))
