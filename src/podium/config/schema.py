"""A strict reader of settings: TOML tables become frozen dataclasses, and every key is declared once.

An unknown key, a wrong type, a value out of range and a key without effect are refused by name, with all faults of a
file in one message. Only the standard library is imported, because make plans before an environment exists.
"""

import dataclasses
import difflib
import json
import operator
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

from podium.errors import ConfigError
from podium.files import os_error_as

Rules = Iterable[tuple[str, object, str]]
"""Names of keys with blanks between them; whether their values are right; what is expected if they are not."""


def key(meaning: str, default: Any = MISSING, *, low: float = -inf, high: float = inf, later: bool = False) -> Any:
    """Declare a key of a TOML file; a key without a default is required. `Literal` types have its valid values.

    `later`: it was declared after runs were trained, so at its default it is not in a stamp (`stamped_keys`).
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "later": later})


def stamped_keys(settings: Any) -> dict[str, Any]:
    """The keys of a settings object as a table; keys that were declared `later` only if they are changed."""
    fields = {field.name: field for field in dataclasses.fields(settings)}
    table = dataclasses.asdict(settings)
    return {k: v for k, v in table.items() if not fields[k].metadata["later"] or v != fields[k].default}


def changed_keys(settings: Any) -> dict[str, Any]:
    """The keys of a settings object that differ from their defaults, as a table; nested tables too.

    Stamps hash this table, so that declaring a new key does not make trained runs stale.
    """
    changed = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            value = changed_keys(value) if is_dataclass(value) else value
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return changed


def flat_keys(kind: type) -> dict[str, dataclasses.Field]:
    """The keys that the class `kind` declares, as in `epochs` and `augment.flip`, with their fields."""
    keys = {}
    for field in dataclasses.fields(kind):
        inner = flat_keys(field.type) if is_dataclass(field.type) else {}
        keys |= {f"{field.name}.{name}": inner[name] for name in inner} or {field.name: field}
    return keys


def check_keys(settings: Any, rules: Rules, *, required: Rules, file: Path) -> None:
    """Raise ConfigError where the settings in a `file` break a rule.

    A rule is about those of its keys that differ from their default; a table stands for all of its keys. A `required`
    rule is about one key, whatever its value.
    """
    keys = flat_keys(type(settings))
    values = {name: operator.attrgetter(name)(settings) for name in keys}
    changed = [name for name in keys if values[name] != keys[name].default]
    broken = [(name, expected) for name, is_right, expected in required if not is_right]
    for names, is_right, expected in rules:
        concerned = [] if is_right else [name for name in changed if {name, name.split(".")[0]} & {*names.split()}]
        broken += [(name, expected) for name in concerned]
    texts = {name: f" = {json.dumps(values[name], ensure_ascii=False)}:" for name, _ in broken}
    texts |= {name: ": missing;" for name in keys if not values[name] and name not in changed}
    faults = [f"{name}{texts[name]} expected {expected}" for name, expected in broken]
    refuse(faults, "Settings that are missing, contradict each other, or have no effect.", file=file)


def quoted(names: Iterable[str]) -> str:
    """The names in quotation marks, with `or` between them."""
    return " or ".join(f'"{name}"' for name in names)


def refuse(faults: Sequence[str], what: str, *, file: Path) -> None:
    """Raise ConfigError if the settings in a `file` have faults."""
    if faults:
        raise ConfigError(what, file=file, faults=faults, fix=f"edit {file}")


def read_table(file: Path) -> dict[str, Any]:
    """The content of a TOML file, unchecked; raises ConfigError."""
    with os_error_as(ConfigError, "A settings file cannot be read.", file=file, fix="ls competitions/"):
        content = file.read_bytes()
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError("Not a TOML file.", file=file, found=str(error), fix=f"edit {file}") from None


def settings_of(kind: type, table: dict[str, Any], file: Path, *, other_tables: Sequence[str] = ()) -> Any:
    """A settings object of the class `kind` from the `table` of a `file`; raises ConfigError.

    `other_tables` of the file are ignored, but they are suggested where a key is misspelled.
    """
    faults: list[str] = []
    settings = build(kind, table, "", faults, other_tables=other_tables)
    refuse(faults, "Settings that are unknown, missing or wrong.", file=file)
    return settings


def build(
    kind: type, table: dict[str, Any], prefix: str, faults: list[str], *, other_tables: Sequence[str] = ()
) -> Any:
    """A settings object of the class `kind` from `table`; adds to `faults` and returns None if anything is wrong."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    known = [*fields, *other_tables]
    faults += [unknown_key(prefix, name, known) for name in table if name not in known]
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _checked_value(table[name], field.type, field.metadata, prefix + name, faults)
        elif field.default is MISSING:
            faults.append(f"{prefix}{name}: missing; expected {field.metadata['meaning']}")
    return None if faults else kind(**values)


def unknown_key(prefix: str, name: str, known: Sequence[str]) -> str:
    """The fault of a key that is not among the `known` ones."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return f"{prefix}{name}: unknown key; {hint}"


def _checked_value(value: Any, hint: Any, limits: Mapping[str, Any], name: str, faults: list[str]) -> Any:
    """`value` in the type that `hint` asks for; adds to `faults` if it has another type or is out of range."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, dict):
            return build(kind, value, f"{name}.", faults)
        if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
            item, *others = typing.get_args(kind)
            if others != [...] and len(value) != len(others) + 1:
                faults.append(f"{name} = {list(value)}: expected {len(others) + 1} values")
            return tuple(_checked_value(v, item, limits, f"{name}[{i}]", faults) for i, v in enumerate(value))
    if type(value) is int and float in kinds and int not in kinds and abs(value) < 1e300:
        value = float(value)
    if expected := _expected(value, kinds, limits):
        faults.append(f"{name} = {value!r}: expected {expected}")
    return value


def _expected(value: Any, kinds: Sequence[Any], limits: Mapping[str, Any]) -> str:
    """What is expected instead of `value`; empty if it is right."""
    if typing.get_origin(kinds[0]) is Literal:
        choices = typing.get_args(kinds[0])
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return "" if value in choices else f"one of {', '.join(choices)}{hint}"
    if type(value) not in kinds:
        names = {"tuple": "a list" if len(kinds) > 1 else f"a list, such as [{value!r}]"}
        return " or ".join("a table" if is_dataclass(k) else names.get(k.__name__, k.__name__) for k in kinds)
    if isinstance(value, str) and "\0" in value:
        return "text without a null character"
    low, high = limits["low"], limits["high"]
    if type(value) not in (int, float) or (low <= value <= high and abs(value) < inf):
        return ""
    return "a finite number" if low == -inf else f"at least {low}" if high == inf else f"{low} to {high}"
