"""A new competition's folder: settings as they were found, and recipes to begin with, both with their reasons."""

import json
import os
import shutil
import tempfile
from dataclasses import fields
from pathlib import Path

from podium.config.keys import read_competition, read_recipe
from podium.errors import ConfigError
from podium.plan.names import NAME
from podium.plan.paths import Project
from podium.scaffold.guess import Looked

SMALL_PIXELS = 64
LARGE_PIXELS = 160
CPU_PIXELS = 128

FASTNET = """# A small network for small images that learns in minutes, also on a CPU.
architecture = "fastnet"
epochs = 18
batch_size = {batch_size}
optimiser = "muon"
muon_rate = 0.12
learning_rate = 0.4
bias_ratio = 64
momentum = 0.7
weight_decay = 0.0025
label_smoothing = 0.2
schedule = "triangular"
warm_up = 0.1
stored_pixels = {stored_pixels}  # the shorter sides here have a median of {median_side}

[augment]
flip = "horizontal"  # not for digits, letters or anything else whose mirror image is another thing
shift_pixels = 2
"""
FROM_SCRATCH = """# From scratch, without the early shrinking that is made for large images.
architecture = "resnet34"
stem = "small"
epochs = 30
batch_size = {batch_size}
learning_rate = 0.003
label_smoothing = 0.1
stored_pixels = {stored_pixels}  # the shorter sides here have a median of {median_side}

[augment]
flip = "horizontal"  # not for digits, letters or anything else whose mirror image is another thing
shift_pixels = 2
"""
FINE_TUNED = """# From ImageNet weights (downloaded): the head alone first, then everything, early layers more slowly.
architecture = "{architecture}"
pretrained = true
head = "fastai"
dropout = 0.5
freeze_epochs = 1
epochs = 5
batch_size = 64
learning_rate = 0.002
discriminative_ratio = 100
stored_pixels = {stored_pixels}  # the shorter sides here have a median of {median_side}
training_pixels = {training_pixels}  # {device}
test_time_augmentation = "flip"

[augment]
flip = "horizontal"  # not for digits, letters or anything else whose mirror image is another thing
rotate_degrees = 10
zoom = 1.1
brightness = 0.1
contrast = 0.1
"""


def check_new(project: Project, name: str) -> Path:
    """The folder of a competition that is not there yet; raises ConfigError for a name that is taken or cannot be."""
    folder = project.root / "competitions" / name
    if not NAME.fullmatch(name):
        expected = "letters, digits, and _ . + - between them"
        raise ConfigError(f"'{name}' cannot be the name of a competition.", expected=expected)
    if folder.exists():
        raise ConfigError(
            f"There is a competition '{name}' already.",
            file=folder,
            fix="make new COMPETITION=<another name>, with KAGGLE=<slug> or DATA=<folder or archive>",
        )
    return folder


def start(project: Project, name: str, looked: Looked, *, slug: str = "", gpu: bool | None = None) -> list[Path]:
    """Write `competitions/<name>/`, whole or not at all; returns its files. Raises ConfigError.

    `gpu` is whether to fit the recipes to one; None looks.
    """
    folder = check_new(project, name)
    gpu = shutil.which("nvidia-smi") is not None if gpu is None else gpu
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        inside = Path(temporary) / name
        inside.mkdir()
        (inside / "competition.toml").write_text(competition_text(looked, slug), encoding="utf-8")
        for recipe, text in recipe_texts(looked, gpu=gpu).items():
            (inside / f"{recipe}.toml").write_text(text, encoding="utf-8")
            read_recipe(inside / f"{recipe}.toml")
        read_competition(inside)
        os.replace(inside, folder)
    return sorted(folder.iterdir())


def competition_text(looked: Looked, slug: str) -> str:
    """competition.toml with what was found, and as comments what it means."""
    settings = looked.competition
    lines = [f"title = {_toml(settings.title)}", "# " + _meaning(settings, "metric"), f'metric = "{settings.metric}"']
    for table in ("data", "validation", "submission"):
        part = getattr(settings, table)
        changed = [one for one in fields(part) if getattr(part, one.name) != one.default]
        if changed:
            lines += ["", f"[{table}]", *(_key(part, one.name) for one in changed)]
    if slug:
        lines += ["", "[kaggle]", f"competition = {_toml(slug)}"]
    lines += ["", "# What was unsure when this was written:", *(f"#   {one}" for one in looked.unsure)]
    return "\n".join(lines) + "\n"


def recipe_texts(looked: Looked, *, gpu: bool) -> dict[str, str]:
    """Recipe name -> text, by the images' size, their number, and the device."""
    rows = len(looked.listing.train_names)
    values = {"median_side": looked.median_side, "batch_size": max(64, min(500, rows // 40))}
    if looked.median_side <= SMALL_PIXELS:
        values["stored_pixels"] = max(16, looked.median_side)
        small = values | {"batch_size": min(128, values["batch_size"])}
        return {"fastnet": FASTNET.format(**values), "resnet34": FROM_SCRATCH.format(**small)}
    stored = min(looked.median_side, 256 if gpu else LARGE_PIXELS)
    training = min(stored, 224 if gpu else CPU_PIXELS)
    device = "for a GPU" if gpu else "for a CPU; 224 is better where there is a GPU"
    values |= {"stored_pixels": stored, "training_pixels": training, "device": device}
    return {name: FINE_TUNED.format(architecture=name, **values) for name in ("resnet34", "efficientnet_b0")}


def _key(part: object, name: str) -> str:
    return f"{name} = {_toml(getattr(part, name))}  # {_meaning(part, name)}"


def _meaning(part: object, name: str) -> str:
    return next(one.metadata["meaning"] for one in fields(part) if one.name == name)


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
