"""Strict settings: TOML tables into frozen classes, every key declared once.

An unknown key, a wrong type or a value out of range is refused by name, all faults of a file at once. Only the
standard library is imported: the Makefile asks which runs are stale before any environment exists.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from podium.errors import ConfigError


def key(
    meaning: str,
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    table: Callable | None = None,
) -> Any:
    """Declare a key of a TOML file; without a default it must be given."""
    metadata = {"meaning": meaning, "low": low, "high": high, "choices": choices}
    if table is not None:
        return dataclasses.field(default_factory=table, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def changed_keys(settings: Any) -> dict[str, Any]:
    """The keys of a frozen settings object that differ from their defaults, nested tables likewise.

    Defaults are left out so that declaring a new key does not make every trained run stale.
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
    """The settings of a `kind` in the `table` of a `file`; raises ConfigError.

    `other_tables` are read by others: not expected here, but known to whoever misspells one.
    """
    faults: list[str] = []
    settings = build(kind, table, "", faults, other_tables=other_tables)
    if faults:
        raise ConfigError("Settings that Podium does not know.", file=file, faults=faults, fix=f"edit {file}")
    return settings


def build(
    kind: type, table: dict[str, Any], prefix: str, faults: list[str], *, other_tables: Sequence[str] = ()
) -> Any:
    """The settings of a `kind` in `table`; what is wrong with them is added to `faults`, and then None comes back."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in table.keys() - fields.keys():
        faults.append(unknown_key(prefix, name, [*fields, *other_tables]))
    values = {}
    for name, field in fields.items():
        if name not in table:
            if field.default is MISSING and field.default_factory is MISSING:
                faults.append(f"{prefix}{name}: missing; expected {field.metadata['meaning']}")
            continue
        values[name] = _value(table[name], hints[name], field.metadata, prefix + name, faults)
    return None if faults else kind(**values)


def unknown_key(prefix: str, name: str, known: list[str]) -> str:
    """What to say of a key that is none of the `known`."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(known)}"
    return f"{prefix}{name}: unknown key; {hint}"


def _value(value: Any, hint: Any, metadata: Any, name: str, faults: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return build(hint, value, f"{name}.", faults)
        faults.append(f"{name} = {value!r}: expected a table [{name}]")
        return None
    if typing.get_origin(hint) is tuple:
        if isinstance(value, list):
            item = typing.get_args(hint)[0]
            return tuple(_value(one, item, metadata, f"{name}[{i}]", faults) for i, one in enumerate(value))
        faults.append(f"{name} = {value!r}: expected a list")
        return None
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in kinds and type(value) is int:
        value = float(value)
    if type(value) not in kinds:
        faults.append(f"{name} = {value!r}: expected {' or '.join(kind.__name__ for kind in kinds)}")
    elif metadata["choices"] and value not in metadata["choices"]:
        nearest = difflib.get_close_matches(str(value), metadata["choices"], n=1)
        meant = f"; did you mean {nearest[0]}?" if nearest else ""
        faults.append(f"{name} = {value!r}: expected one of {', '.join(metadata['choices'])}{meant}")
    elif type(value) in (int, float) and not _in_range(value, metadata):
        low, high = metadata["low"], metadata["high"]
        limits = "a finite number" if low is None else f"{low} to {high}" if high is not None else f"at least {low}"
        faults.append(f"{name} = {value!r}: expected {limits}")
    return value


def _in_range(value: float, metadata: Any) -> bool:
    low, high = metadata["low"], metadata["high"]
    return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
