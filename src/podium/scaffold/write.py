"""Writes the folder of a new competition: competition.toml with the guessed settings, and recipes to begin with."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

from podium.config.competition import read_competition
from podium.data.listing import numbers_in
from podium.errors import ConfigError
from podium.plan.names import check_recipe_name
from podium.plan.paths import Paths
from podium.plan.runs import read_recipes
from podium.scaffold.guess import CompetitionGuess

# Up to this median of the shorter sides, images are small.
SMALL_PIXELS = 64
# Up to so many labelled photos, a CPU trains at the size of the published weights within minutes.
FEW_PHOTOS = 1000
# Side of the images that a CPU trains on within hours, where there are more of them, or where small ones are enlarged.
CPU_PIXELS = 128
# Measured with EfficientNet-Lite0 at 128 pixels, on one core with AVX-512: images per second.
TRAINED_PER_SECOND, PREDICTED_PER_SECOND = 52, 264
LITE_EPOCHS = 4
SMALL_RECIPES, PHOTO_RECIPES = ("fastnet", "resnet34", "lite0"), ("lite0-logistic", "lite0", "lite1", "lite2")


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
    """Recipe name -> text: three or four recipes for the size and number of the images, and for the device.

    Photos get 224 pixels, for which the weights were made, where a CPU can afford it. Small images are also enlarged
    for pretrained weights.
    """
    side, rows = guess.median_side, len(guess.listing.rows)
    is_small = side <= SMALL_PIXELS
    full_size = gpu or (rows <= FEW_PHOTOS and not is_small)
    stored_pixels = max(16, side) if is_small else min(side, 256 if full_size else 160)
    training_pixels = CPU_PIXELS if is_small else min(stored_pixels, 224 if full_size else CPU_PIXELS)
    batch_size = max(64, min(500, rows // 40))
    values = {
        "median_side": side,
        "stored_pixels": stored_pixels,
        "training_pixels": training_pixels,
        "feature_pixels": min(side, 224),
        "batch_size": batch_size,
        "small_batch_size": min(128, batch_size),
    }
    times = {
        "lite0": _time_text(guess, epochs=LITE_EPOCHS, pixels=training_pixels),
        "lite0-logistic": _time_text(guess, epochs=0, pixels=min(side, 224)),
    }
    names = SMALL_RECIPES if is_small else PHOTO_RECIPES if full_size else PHOTO_RECIPES[:3]
    folder, texts, data = files("podium.scaffold") / "recipes", {}, guess.competition.data
    may_be_ordered = data.source == "csv" and len(numbers_in(guess.listing.classes)) > 2
    for name in names:
        text = (folder / f"{name}.toml").read_text(encoding="utf-8").format(**values, time=times.get(name))
        if data.target == "number" or may_be_ordered:  # then there is no share to spread over classes
            text = re.sub("(?m)^label_smoothing = .*\n", "", text)
        texts[name] = text
    return texts


def _time_text(guess: CompetitionGuess, *, epochs: int, pixels: int) -> str:
    """How long EfficientNet-Lite0 takes on one CPU core, from the measured speeds, whose cost grows with the area."""
    rows, tests, validation = len(guess.listing.rows), len(guess.listing.test_images), guess.competition.validation
    folds = validation.folds if validation.kind == "k-fold" else 1
    trained, views = epochs * rows * max(folds - 1, 1), 2
    predicted = views * (rows + tests * folds + rows) if epochs else views * (rows + tests)
    seconds = (trained / TRAINED_PER_SECOND + predicted / PREDICTED_PER_SECOND) * (pixels / 128) ** 2
    duration = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"
    return (
        f"about {duration} of one core, from {TRAINED_PER_SECOND} trained and {PREDICTED_PER_SECOND} predicted images/s"
    )


def _key_lines(settings: object, names: list[str]) -> list[str]:
    """A TOML line for each key; its meaning follows as a comment."""
    meanings = {field.name: field.metadata["meaning"] for field in fields(settings)}
    return [f"{name} = {_toml(getattr(settings, name))}  # {meanings[name]}" for name in names]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
