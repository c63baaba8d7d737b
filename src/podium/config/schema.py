"""A strict reader of settings: TOML tables become frozen dataclasses, and every key is declared once.

An unknown key, a wrong type or a value out of range is refused by name, with all faults of a file in one message.
Only the standard library is imported, because make plans before an environment exists.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal

from podium.errors import ConfigError


def key(
    meaning: str, default: Any = MISSING, *, low: float | None = None, high: float | None = None, later: bool = False
) -> Any:
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
        if dataclasses.is_dataclass(value):
            nested = changed_keys(value)
            if nested:
                changed[field.name] = nested
        elif value != field.default:
            changed[field.name] = list(value) if isinstance(value, tuple) else value
    return changed


def read_table(file: Path) -> dict[str, Any]:
    """The content of a TOML file, unchecked; raises ConfigError."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("A settings file is missing.", file=file, fix="ls competitions/") from None
    except OSError as error:
        raise ConfigError("A settings file cannot be read.", file=file, found=error.strerror) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("Not a TOML file.", file=file, found=str(error), fix=f"edit {file}") from None


def settings_of(kind: type, table: dict[str, Any], file: Path, *, other_tables: Sequence[str] = ()) -> Any:
    """A settings object of the class `kind` from the `table` of a `file`; raises ConfigError.

    `other_tables` are not part of `kind`, but they are suggested where a key is misspelled.
    """
    faults: list[str] = []
    settings = build(kind, table, "", faults, other_tables=other_tables)
    if faults:
        raise ConfigError("Settings that Podium does not know.", file=file, faults=faults, fix=f"edit {file}")
    return settings


def build(
    kind: type, table: dict[str, Any], prefix: str, faults: list[str], *, other_tables: Sequence[str] = ()
) -> Any:
    """A settings object of the class `kind` from `table`; adds to `faults` and returns None if anything is wrong."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in table.keys() - fields.keys():
        faults.append(unknown_key(prefix, name, [*fields, *other_tables]))
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _checked_value(table[name], hints[name], field.metadata, prefix + name, faults)
        elif field.default is MISSING:
            faults.append(f"{prefix}{name}: missing; expected {field.metadata['meaning']}")
    return None if faults else kind(**values)


def unknown_key(prefix: str, name: str, known: list[str]) -> str:
    """The fault of a key that is not among the `known` ones."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return f"{prefix}{name}: unknown key; {hint}"


def _checked_value(value: Any, hint: Any, metadata: Any, name: str, faults: list[str]) -> Any:
    """`value` in the type that `hint` asks for; adds to `faults` if it has another type or is out of range."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return build(hint, value, f"{name}.", faults)
        faults.append(f"{name} = {value!r}: expected a table [{name}]")
        return None
    if isinstance(hint, types.UnionType) and isinstance(value, list | tuple):
        hint = next((kind for kind in typing.get_args(hint) if typing.get_origin(kind) is tuple), hint)
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            item, *others = typing.get_args(hint)
            if others != [...] and len(value) != len(others) + 1:
                faults.append(f"{name} = {list(value)}: expected {len(others) + 1} values")
            return tuple(_checked_value(v, item, metadata, f"{name}[{i}]", faults) for i, v in enumerate(value))
        faults.append(f"{name} = {value!r}: expected a list")
        return None
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            nearest = difflib.get_close_matches(str(value), typing.get_args(hint), n=1)
            suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
            faults.append(f"{name} = {value!r}: expected one of {', '.join(typing.get_args(hint))}{suggestion}")
        return value
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in accepted and type(value) is int:
        value = float(value)
    if type(value) not in accepted:
        faults.append(
            f"{name} = {value!r}: expected {' or '.join(kind.__name__.replace('tuple', 'list') for kind in accepted)}"
        )
    else:
        faults += _limit_faults(value, metadata, name)
    return value


def _limit_faults(value: Any, metadata: Any, name: str) -> list[str]:
    low, high = metadata["low"], metadata["high"]
    if type(value) not in (int, float):
        return []
    if math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high):
        return []
    limits = "a finite number" if low is None else f"{low} to {high}" if high is not None else f"at least {low}"
    return [f"{name} = {value!r}: expected {limits}"]
