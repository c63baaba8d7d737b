"""Reads a recipe, refuses keys that contradict each other or have no effect, and gives defaults for fine-tuning."""

from pathlib import Path
from typing import Any

from podium.config.keys import PACKAGE_PREFIX, SEARCH_TABLE, Recipe
from podium.config.pixels import height_and_width
from podium.config.schema import check_keys, flat_keys, quoted, read_table, settings_of

# The keys of a recipe that have an effect where no layer is trained.
WITHOUT_EPOCHS = (
    *("architecture", "seeds", "stem", "pretrained", "head", "stored_pixels", "stored_format", "training_pixels"),
    *("interpolation", "test_time_augmentation", "precision", "threads", "deterministic", "refit", "pseudo_labels"),
    *("metadata_columns", "shape"),
)
# Keys that have an effect on some targets only -> these.
TARGETS_OF_KEYS = {
    "class_weights": ("class", "multi-label", "ordinal"),
    "focal_gamma": ("class", "multi-label"),
    "label_smoothing": ("class", "multi-label"),
    "sampling": ("class", "ordinal"),
}
MIXED_SIDES = "sides in all sizes, or [height, width] in all"
WITH_EPOCHS = " ".join(name for name in flat_keys(Recipe) if name not in WITHOUT_EPOCHS)


def read_recipe(file: Path, *, target: str = "class") -> Recipe:
    """Read one recipe, without its search ranges; raises ConfigError as `recipe_of` does."""
    return recipe_of(read_table(file), file, target=target)


def recipe_of(table: dict[str, Any], file: Path, *, target: str = "class") -> Recipe:
    """The recipe in a `table` of keys, from a TOML file or from the predictions `file` of a run; raises ConfigError.

    With pretrained weights, some keys have other defaults (docs/training.md). Keys without effect on a `target` of the
    data are refused too.
    """
    defaults: dict[str, Any] = {}
    if table.get("pretrained"):
        defaults |= {} if table.get("freeze_epochs") else {"head": "logistic"}
        defaults |= {"batch_size": 32, "learning_rate": 0.0003} if table.get("epochs") else {}
    recipe = settings_of(Recipe, defaults | table, file, other_tables=[SEARCH_TABLE])
    _check_keys(recipe, target, file)
    return recipe


def _check_keys(recipe: Recipe, target: str, file: Path) -> None:
    """Raise ConfigError for keys that are missing, contradict each other, or have no effect."""
    epochs, rate, head, augment = recipe.epochs, recipe.learning_rate, recipe.head, recipe.augment
    seeds, pixels, columns = recipe.seeds, (recipe.stored_pixels, *recipe.stage_pixels), recipe.metadata_columns
    is_timm = recipe.architecture.startswith("timm:")
    required = [
        ("epochs", epochs or recipe.fits_features, '1 or more, or head = "logistic"'),
        ("learning_rate", rate or not epochs, 'more than 0, or "find"'),
    ]
    rules = [
        (WITH_EPOCHS, epochs, "epochs of 1 or more"),
        ("seeds", epochs or len(seeds) == 1, "epochs of 1 or more, or one seed"),
        ("seeds", seeds and len({*seeds}) == len(seeds), "one or more, each once"),
        ("learning_rate", not isinstance(rate, str) or rate == "find", 'a number or "find"'),
        ("fastnet.widths", recipe.fastnet.widths, "one or more"),
        ("fastnet", recipe.architecture == "fastnet", 'architecture = "fastnet"'),
        ("drop_path layer_decay frozen_stages gradient_checkpointing", is_timm, 'architecture = "timm:<name>"'),
        ("pretrained", recipe.pretrained != PACKAGE_PREFIX, "the name of a package after it"),
        ("pretrained", recipe.architecture != "fastnet", "false, as fastnet has no published weights"),
        ("freeze_epochs frozen_stages frozen_norms", recipe.pretrained, "pretrained weights, which can stay frozen"),
        ("freeze_epochs", not recipe.fits_features, f'0, because head = "{head}" is fitted first'),
        ("head", recipe.pretrained or not recipe.fits_features, "pretrained weights, whose features are useful"),
        ("epochs", head != "boosting", f'0, because head = "{head}" trains no layer'),
        ("metadata_columns", not epochs, "no epochs: only a head on features can use them"),
        ("metadata_columns", len({*columns} - {""}) == len(columns), "names of columns, each once"),
        ("processes", recipe.images_per_step >= 2 * recipe.processes, "a batch_size of two images or more for each"),
        ("muon_rate", recipe.optimiser == "muon", 'optimiser = "muon"'),
        ("layer_decay", recipe.discriminative_ratio == 1, "no discriminative_ratio beside it"),
        ("class_weights hard_share shuffle", recipe.sampling == "all", 'sampling = "all"'),
        ("interpolation", augment.crop == 1, '"bilinear", because the random crops of augment.crop are'),
        ("augment.trivial_augment", not augment.rand_augment, "no augment.rand_augment beside it"),
        ("stored_pixels training_pixels progressive_pixels", len({*map(type, pixels)}) == 1, MIXED_SIDES),
        ("training_pixels", all(height_and_width(recipe.network_pixels)), "at least 1"),
    ]
    for name, targets in TARGETS_OF_KEYS.items():
        rules.append((name, target in targets, f'[data] target = {quoted(targets)}, found "{target}"'))
    check_keys(recipe, rules, required=required, file=file)
