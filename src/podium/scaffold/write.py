"""Writes the folder of a new competition: competition.toml with the guessed settings, and recipes to begin with."""

import json
import os
import shutil
import tempfile
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

from podium.config.competition import read_competition
from podium.errors import ConfigError
from podium.plan.names import check_recipe_name
from podium.plan.paths import Paths
from podium.plan.runs import read_recipes
from podium.scaffold.guess import CompetitionGuess

# Up to this median of the shorter sides, images are small.
SMALL_PIXELS = 64
# Up to so many labelled photos, a CPU trains at the size of the published weights within minutes.
FEW_PHOTOS = 1000


def check_new_name(paths: Paths) -> None:
    """Raise ConfigError if the competition exists already or cannot have this name."""
    check_recipe_name(paths.name, paths.folder)
    if paths.folder.exists():
        raise ConfigError(
            f"The competition '{paths.name}' exists already.",
            file=paths.folder,
            fix="make new COMPETITION=<another name>, with KAGGLE=<slug> or DATA=<folder or archive>",
        )


def write_competition(paths: Paths, guess: CompetitionGuess, *, slug: str = "", gpu: bool | None = None) -> list[Path]:
    """Write `competitions/<name>/`, all files or none, and return the files; raises ConfigError.

    `gpu` says whether the recipes are for a GPU; None: if this machine has one.
    """
    check_new_name(paths)
    gpu = shutil.which("nvidia-smi") is not None if gpu is None else gpu
    paths.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.folder.parent, prefix=".new-") as temporary:
        folder = Path(temporary) / paths.name
        folder.mkdir()
        texts = {"competition": competition_text(guess, slug), **recipe_texts(guess, gpu=gpu)}
        for name, text in texts.items():
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        read_competition(folder)
        read_recipes(folder)
        os.replace(folder, paths.folder)
    return sorted(paths.folder.iterdir())


def competition_text(guess: CompetitionGuess, slug: str) -> str:
    """The text of competition.toml; a comment gives the meaning of each key."""
    competition = guess.competition
    lines = [f"title = {_toml(competition.title)}", *_key_lines(competition, ["metric"])]
    for table in ("data", "validation", "submission"):
        settings = getattr(competition, table)
        reason = [f"# The kind: {guess.format_reason}."] if table == "submission" else []
        shown = [
            key.name for key in fields(settings) if key.name == "kind" or getattr(settings, key.name) != key.default
        ]
        lines += ["", f"[{table}]", *reason, *_key_lines(settings, shown)]
    lines += ["", "[ensemble]", 'select = "all"  # every run is a member; the strategy finds the weights']
    if slug:
        lines += ["", "[kaggle]", f"competition = {_toml(slug)}"]
    lines += ["", "# Podium guessed these settings. Please check:", *(f"# - {item}" for item in guess.to_check)]
    return "\n".join(lines) + "\n"


def recipe_texts(guess: CompetitionGuess, *, gpu: bool) -> dict[str, str]:
    """Recipe name -> text: two recipes for the size and number of the images, and for the device.

    Photos get 224 pixels, for which the weights were made, where a CPU can afford it.
    """
    side = guess.median_side
    is_small = side <= SMALL_PIXELS
    full_size = gpu or len(guess.listing.rows) <= FEW_PHOTOS
    stored_pixels = max(16, side) if is_small else min(side, 256 if full_size else 160)
    batch_size = max(64, min(500, len(guess.listing.rows) // 40))
    values = {
        "median_side": side,
        "stored_pixels": stored_pixels,
        "training_pixels": min(stored_pixels, 224 if full_size else 128),
        "feature_pixels": min(side, 224),
        "batch_size": batch_size,
        "small_batch_size": min(128, batch_size),
    }
    names = ("fastnet", "resnet34") if is_small else ("lite0-logistic", "lite0")
    folder = files("podium.scaffold") / "recipes"
    return {name: (folder / f"{name}.toml").read_text(encoding="utf-8").format(**values) for name in names}


def _key_lines(settings: object, names: list[str]) -> list[str]:
    """A TOML line for each key; its meaning follows as a comment."""
    meanings = {field.name: field.metadata["meaning"] for field in fields(settings)}
    return [f"{name} = {_toml(getattr(settings, name))}  # {meanings[name]}" for name in names]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
