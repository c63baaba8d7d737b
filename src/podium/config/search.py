"""What a recipe's [search] may say: for each of the recipe's own keys, a range or a list of values to try.

    [search]
    learning_rate = { low = 0.0005, high = 0.02, log = true }
    batch_size = [32, 64, 128]
    augment.shift_pixels = { low = 0, high = 4 }

Only the standard library is imported: the Makefile reads recipes before any environment exists.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config.keys import SEARCH_TABLE, Recipe, recipe_of
from podium.config.schema import build, changed_keys, key, read_table, unknown_key
from podium.errors import ConfigError

# Keys that a search cannot try, and why.
NOT_SEARCHED = {
    "seeds": "every trial has the recipe's first seed",
    "threads": "it changes time and last bits alone",
    "refit": "a refit is judged on no row",
}
# How far from the recipe's own rate a search goes that was told no range.
RATE_FACTOR, DECAY_FACTOR = 5, 10


@dataclass(frozen=True, kw_only=True)
class Range:
    """{ low, high, log }: every number from low to high."""

    low: float = key("the smallest value")
    high: float = key("the largest value")
    log: bool = key("draw the logarithm evenly: for rates, of which 0.001 to 0.01 matter as much as 0.01 to 0.1", False)

    @property
    def ends(self) -> tuple:
        """Values that must be sound so that all are."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Whether a search over the range can find `value`."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class WholeRange(Range):
    """{ low, high, log } of a key whose values are whole numbers."""

    low: int = key("the smallest value")
    high: int = key("the largest value")


@dataclass(frozen=True)
class Choices:
    """[a, b, c]: one of these values."""

    values: tuple

    @property
    def ends(self) -> tuple:
        """Values that must be sound so that all are."""
        return self.values

    def holds(self, value: Any) -> bool:
        """Whether a search over the choices can find `value`."""
        return value in self.values


Search = dict[str, Range | Choices]


def read_search(file: Path) -> Search:
    """The ranges of a recipe's [search]; raises ConfigError, also where the recipe itself is not sound."""
    table = read_table(file)
    ranges = table.pop(SEARCH_TABLE, {})
    return search_of(ranges, recipe_of(table, file), file)


def search_of(table: Any, recipe: Recipe, file: Path) -> Search:
    """The ranges in the [search] `table` of a recipe's `file`, by key (`augment.shift_pixels`); raises ConfigError."""
    faults: list[str] = []
    search = _searched(Recipe, table, "", faults) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        faults.append(f"{SEARCH_TABLE} = {table!r}: expected a table [{SEARCH_TABLE}]")
    for name, values in search.items():
        faults += _value_faults(recipe, name, values, file)
    if faults:
        raise ConfigError("Ranges that cannot be searched.", file=file, faults=faults, fix=f"edit {file}")
    return search


def default_search(recipe: Recipe) -> Search:
    """Ranges for a recipe without a [search]: around its own rates and batches, and how much is dropped and frozen."""
    search: Search = {}
    if isinstance(recipe.learning_rate, float | int):
        search["learning_rate"] = _around(recipe.learning_rate, RATE_FACTOR)
    if recipe.optimiser == "muon" and recipe.muon_rate:
        search["muon_rate"] = _around(recipe.muon_rate, RATE_FACTOR)
    if recipe.pretrained:
        search["freeze_epochs"] = WholeRange(low=0, high=max(2, recipe.freeze_epochs))
    decay = recipe.weight_decay
    search["weight_decay"] = _around(decay, DECAY_FACTOR) if decay else Range(low=0.0, high=0.1)
    search["dropout"] = Range(low=0.0, high=max(0.5, recipe.dropout))
    search["batch_size"] = Choices(
        tuple(sorted({max(2, recipe.batch_size // 2), recipe.batch_size, recipe.batch_size * 2}))
    )
    return search


def value_of(recipe: Recipe, name: str) -> Any:
    """The recipe's own value under a key such as `augment.zoom`; lists for tuples, as in TOML."""
    value: Any = recipe
    for part in name.split("."):
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


def changed_recipe(recipe: Recipe, values: Mapping[str, Any], file: Path) -> Recipe:
    """The recipe with other values under some keys, checked like one that is read from `file`; raises ConfigError."""
    return recipe_of(changed_table(recipe, values), file)


def changed_table(recipe: Recipe, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe's file says: its keys that are not defaults, and `values` whether they are or not."""
    table = changed_keys(recipe)
    for name, value in values.items():
        *outer, last = name.split(".")
        inside = table
        for part in outer:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return table


def _around(value: float, factor: float) -> Range:
    return Range(low=value / factor, high=value * factor, log=True)


def _searched(kind: type, table: dict[str, Any], prefix: str, faults: list[str]) -> Search:
    hints, search = typing.get_type_hints(kind), {}
    for name, value in table.items():
        path = f"{prefix}{name}"
        if name not in hints:
            faults.append(unknown_key(f"{SEARCH_TABLE}.{prefix}", name, list(hints)))
        elif path in NOT_SEARCHED:
            faults.append(f"{SEARCH_TABLE}.{path}: cannot be searched; {NOT_SEARCHED[path]}")
        elif dataclasses.is_dataclass(hints[name]):
            if isinstance(value, dict):
                search |= _searched(hints[name], value, f"{path}.", faults)
            else:
                faults.append(f"{SEARCH_TABLE}.{path} = {value!r}: expected a table of the keys in [{path}]")
        elif found := _range_or_choices(value, hints[name], path, faults):
            search[path] = found
    return search


def _range_or_choices(value: Any, hint: Any, name: str, faults: list[str]) -> Range | Choices | None:
    if isinstance(value, list):
        if len(value) < 2 or any(one in value[:place] for place, one in enumerate(value)):
            faults.append(f"{SEARCH_TABLE}.{name} = {value!r}: expected two or more values, each once")
        return Choices(tuple(value))
    kinds = typing.get_args(hint) or (hint,)
    numbers = [kind for kind in (int, float) if kind in kinds and typing.get_origin(hint) is not tuple]
    if not isinstance(value, dict) or not numbers:
        expected = "{ low = ..., high = ... } or a list of values" if numbers else "a list of values"
        faults.append(f"{SEARCH_TABLE}.{name} = {value!r}: expected {expected}")
        return None
    own: list[str] = []
    found = build(WholeRange if int in numbers else Range, value, f"{SEARCH_TABLE}.{name}.", own)
    if found and not found.low < found.high:
        own.append(f"{SEARCH_TABLE}.{name}: expected low < high, found {found.low} and {found.high}")
    elif found and found.log and found.low <= 0:
        own.append(f"{SEARCH_TABLE}.{name}: log = true needs a low above 0, found {found.low}")
    faults += own
    return None if own else found


def _value_faults(recipe: Recipe, name: str, values: Range | Choices, file: Path) -> list[str]:
    """What is wrong with the ends of a range as values of the recipe, or with leaving its own value out."""
    faults = []
    for value in values.ends:
        try:
            changed_recipe(recipe, {name: value}, file)
        except ConfigError as error:
            faults += [f"{SEARCH_TABLE}.{name}: {fault}" for fault in error.faults]
    own = value_of(recipe, name)
    if not faults and not values.holds(own):
        faults.append(f"{SEARCH_TABLE}.{name}: expected to hold the recipe's own {own!r}, which is tried first")
    return list(dict.fromkeys(faults))
