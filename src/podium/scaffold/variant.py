"""SET=: other values of some keys, and the variant of a recipe that has them, for one experiment."""

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from podium.config.editing import changed_text
from podium.config.keys import Competition, Recipe
from podium.config.recipe import read_recipe, recipe_of
from podium.config.schema import flat_keys, settings_of, unknown_key
from podium.config.search import value_of
from podium.errors import ConfigError
from podium.files import write_file
from podium.plan.cost import Rental
from podium.plan.runs import Plan, check_recipe_name, find_run, run_name

EXAMPLES = {
    Recipe: "epochs=5 augment.shift_pixels=4",
    Competition: "data.group_column=patient",
    Rental: "runs=[9,100] price=2",
}


def write_variant(plan: Plan, name: str, assignments: str) -> list[str]:
    """Write `<recipe>-<key><value>.toml` beside the recipe of a run (or recipe) `name`; returns the names of its runs.

    `assignments` is the text of SET=: words such as `epochs=5`. The variant has the seed of the run, or all seeds of
    the recipe. Raises ConfigError, and then writes nothing.
    """
    run = find_run(plan.trainable_runs, name, option="RUN")
    values = parse_assignments(assignments, Recipe)
    seeds = run.recipe.seeds if name == run.recipe_name else (run.seed,)
    source, target = (plan.paths.recipe_file(stem) for stem in (run.recipe_name, variant_name(run.recipe_name, values)))
    check_recipe_name(target.stem, target)
    known = read_recipe(target) if target.exists() else None
    all_seeds = sorted({*seeds, *(known.seeds if known else ())})
    command = f"`make train RUN={name} SET={shlex.quote(assignments)} COMPETITION={plan.name}`"
    reason = f"Made by {command}. All else, comments too, is a copy of {source.name}."
    text = changed_text(source, values | {"seeds": all_seeds}, recipe=run.recipe, reason=reason)
    try:
        recipe = recipe_of(tomllib.loads(text), target, target=plan.competition.data.target)
    except ConfigError as error:
        raise _set_error(Recipe, error.faults) from None
    same = [key for key in values if value_of(recipe, key) == value_of(run.recipe, key)]
    if same or not values:
        raise _set_error(Recipe, [f"{key}={values[key]}: without effect, as the recipe has this value" for key in same])
    if known and replace(known, seeds=recipe.seeds) != recipe:
        raise ConfigError(
            "There is another recipe with the name of this variant.",
            file=target,
            expected=f"the values of {source.name}, and {assignments}",
            fix=f"make train RUN={target.stem}, which trains that recipe; or rm {target}",
        )
    if known != recipe:
        write_file(target, text.encode())
    return [run_name(target.stem, seed) for seed in seeds]


def settings_from(text: str, kind: type) -> Any:
    """The settings of the class `kind` with the values in the text of SET=; raises ConfigError."""
    try:
        return settings_of(kind, parse_assignments(text, kind), Path())
    except ConfigError as error:
        raise _set_error(kind, error.faults) from None


def parse_assignments(text: str, kind: type) -> dict[str, Any]:
    """Key -> value of each `key=value` in the text of SET=; the keys are those of `kind`, one of EXAMPLES.

    Values need no quotes. Raises ConfigError for unknown keys; values are not checked.
    """
    known, values, faults = flat_keys(kind), {}, []
    for word in filter(None, re.split(r"\s+(?=[\w.]+=)", text.strip())):
        name, equals, value = word.partition("=")
        if not equals:
            faults.append(f"{word}: expected <key>=<value>")
        elif name not in known:
            faults.append(unknown_key("", name, list(known)))
        elif name == "seeds":
            faults.append("seeds: RUN= names the run and so its seed")
        elif name in values:
            faults.append(f"{name}: two values")
        else:
            parsed = _toml_value(value)
            values[name] = value if known[name].type is str and not isinstance(parsed, str) else parsed
    if faults:
        raise _set_error(kind, faults)
    return values


def variant_name(recipe_name: str, values: Mapping[str, Any]) -> str:
    """`resnet34-epochs5-optimiser-sgd`: the recipe, and each key with its value."""
    parts = [recipe_name]
    for name, value in values.items():
        word = re.sub(r"[^A-Za-z0-9_.+]+", "-", str(value)).strip("-")
        parts.append(f"{name}{word}" if type(value) in (int, float) else f"{name}-{word}".lower())
    return "-".join(parts)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _set_error(kind: type, faults: list[str]) -> ConfigError:
    fix = f"correct SET=, as in SET='{EXAMPLES[kind]}'"
    return ConfigError("SET= does not give other values of keys.", faults=faults, fix=fix)
