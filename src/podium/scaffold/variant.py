"""Write a variant of a recipe for one experiment: the same file with other values of some keys."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from podium.config.editing import changed_text
from podium.config.keys import Recipe
from podium.config.recipe import read_recipe, recipe_of
from podium.config.schema import flat_keys, unknown_key
from podium.config.search import value_of
from podium.errors import ConfigError
from podium.files import write_file
from podium.plan.names import check_recipe_name, run_name
from podium.plan.runs import Plan, find_run

# A longer name is cut and gets a hash: file systems allow 255 bytes, of which `.s1.safetensors` and others need some.
MOST_CHARACTERS = 120
FIX = "correct SET=, as in SET='epochs=5 augment.shift_pixels=4'"


def write_variant(plan: Plan, name: str, assignments: str) -> list[str]:
    """Write `<recipe>-<key><value>.toml` beside the recipe of a run (or recipe) `name`; returns the names of its runs.

    `assignments` is the text of SET=: words such as `epochs=5`. The variant has the seed of the run, or all seeds of
    the recipe. Raises ConfigError, and then writes nothing.
    """
    run = find_run(plan.trainable_runs, name, option="RUN")
    values = parse_assignments(assignments, run.recipe)
    seeds = run.recipe.seeds if name == run.recipe_name else (run.seed,)
    source, target = (plan.paths.recipe_file(stem) for stem in (run.recipe_name, variant_name(run.recipe_name, values)))
    check_recipe_name(target.stem, target)
    known = read_recipe(target) if target.exists() else None
    all_seeds = sorted({*seeds, *(known.seeds if known else ())})
    command = f"`make train RUN={name} SET='{assignments}' COMPETITION={plan.name}`"
    reason = f"Made by {command}. All else, comments too, is a copy of {source.name}."
    text = changed_text(source, values | {"seeds": all_seeds}, recipe=run.recipe, reason=reason)
    recipe = _checked(text, target, assignments)
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


def parse_assignments(text: str, recipe: Recipe) -> dict[str, Any]:
    """Key -> value of each word such as `learning_rate=0.001`; text needs no quotes. Raises ConfigError."""
    known, values, faults = list(flat_keys(Recipe)), {}, []
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            faults.append(f"{word}: expected <key>=<value> without blanks")
        elif name not in known:
            faults.append(unknown_key("", name, known))
        elif name == "seeds":
            faults.append("seeds: RUN= names the run and so its seed")
        elif name in values:
            faults.append(f"{name}: two values")
        else:
            values[name] = _toml_value(value)
            if values[name] == value_of(recipe, name):
                faults.append(f"{name} = {value}: without effect, as the recipe has this value")
    if faults or not values:
        raise ConfigError("SET= does not give other values of keys.", faults=faults, fix=FIX)
    return values


def variant_name(recipe_name: str, values: Mapping[str, Any]) -> str:
    """`resnet34-epochs5-optimiser-sgd`: the recipe, and each key with its value."""
    parts = [recipe_name]
    for name, value in values.items():
        word = re.sub(r"[^A-Za-z0-9_.+]+", "-", str(value)).strip("-")
        parts.append(f"{name}{word}" if type(value) in (int, float) else f"{name}-{word}".lower())
    full_name = "-".join(parts)
    if len(full_name) <= MOST_CHARACTERS:
        return full_name
    return f"{full_name[: MOST_CHARACTERS - 9]}-{hashlib.sha256(full_name.encode()).hexdigest()[:8]}"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(text: str, file: Path, assignments: str) -> Recipe:
    """The recipe in a variant's text; raises ConfigError with the faults of SET=."""
    try:
        return recipe_of(tomllib.loads(text), file)
    except ConfigError as error:
        raise ConfigError(error.what, found=f"SET='{assignments}'", faults=error.faults, fix=FIX) from None
