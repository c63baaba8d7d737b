"""Reads a recipe, refuses keys that contradict each other or have no effect, and gives defaults for fine-tuning."""

from pathlib import Path
from typing import Any

from podium.config.keys import PACKAGE_PREFIX, SEARCH_TABLE, Recipe
from podium.config.pixels import height_and_width
from podium.config.schema import changed_keys, read_table, settings_of
from podium.errors import ConfigError

# The keys of a recipe that have an effect where no layer is trained.
WITHOUT_EPOCHS = (
    *("architecture", "seeds", "stem", "pretrained", "head", "stored_pixels", "training_pixels", "shape"),
    *("interpolation", "test_time_augmentation", "precision", "threads", "deterministic", "refit", "pseudo_labels"),
)
# The keys by which pretrained layers keep their weights or statistics.
FROZEN = ("freeze_epochs", "frozen_stages", "frozen_norms")
# The keys that only timm's architectures have.
TIMM = ("drop_path", "layer_decay", "frozen_stages", "gradient_checkpointing")


def read_recipe(file: Path) -> Recipe:
    """Read one recipe, without its search ranges; raises ConfigError."""
    table = read_table(file)
    table.pop(SEARCH_TABLE, None)
    return recipe_of(table, file)


def recipe_of(table: dict[str, Any], file: Path) -> Recipe:
    """The recipe in a `table` of keys, from a TOML file or from the predictions `file` of a run; raises ConfigError."""
    recipe = settings_of(Recipe, fine_tuning_defaults(table) | table, file, other_tables=[SEARCH_TABLE])
    if faults := _recipe_faults(recipe):
        raise ConfigError("A recipe that cannot be trained.", file=file, faults=faults, fix=f"edit {file}")
    return recipe


def fine_tuning_defaults(table: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a recipe's `table` with pretrained weights that differ from the keys' own (docs/training.md)."""
    if not table.get("pretrained"):
        return {}
    head = {} if table.get("freeze_epochs") else {"head": "logistic"}
    return head | ({"batch_size": 32, "learning_rate": 0.0003} if table.get("epochs") else {})


def _recipe_faults(recipe: Recipe) -> list[str]:
    """Keys that contradict each other or have no effect."""
    changed, pretrained, ratio = changed_keys(recipe), recipe.pretrained, recipe.discriminative_ratio
    rate, seeds, head = recipe.learning_rate, list(recipe.seeds), f'head = "{recipe.head}"'
    others = [name for name in TIMM if name in changed and not recipe.architecture.startswith("timm:")]
    is_balanced = recipe.sampling == "balanced"
    frozen = "without pretrained: only pretrained layers can stay frozen"
    names = [name for name in changed if name not in WITHOUT_EPOCHS or (name == "seeds" and len(seeds) > 1)]
    faults = {
        f'learning_rate = "{rate}": expected a number or "find"': isinstance(rate, str) and rate != "find",
        'learning_rate: missing; expected more than 0, or "find"': recipe.epochs and rate == 0,
        'epochs: missing; expected 1 or more, or head = "logistic"': not recipe.epochs and not recipe.fits_features,
        f"epochs without effect: {head} trains no layer": recipe.epochs and recipe.head == "boosting",
        **{f"{name} without effect: expected epochs of 1 or more": not recipe.epochs for name in names},
        f"{head} without pretrained: only then are features useful": recipe.fits_features and not pretrained,
        f"freeze_epochs without effect: {head} fits the head first": recipe.fits_features and recipe.freeze_epochs,
        f"seeds = {seeds}: expected one or more, each once": not seeds or len(set(seeds)) < len(seeds),
        **{f"{name} {frozen}": name in changed and not pretrained for name in FROZEN},
        f'pretrained = "{PACKAGE_PREFIX}": expected the name of a package after it': pretrained == PACKAGE_PREFIX,
        f'[fastnet] without effect: expected architecture = "fastnet", found "{recipe.architecture}"': (
            "fastnet" in changed and recipe.architecture != "fastnet"
        ),
        'muon_rate without effect: expected optimiser = "muon"': "muon_rate" in changed and recipe.optimiser != "muon",
        "fastnet.widths = []: expected one or more": not recipe.fastnet.widths,
        **{f'{name} without effect: expected architecture = "timm:<name>"': True for name in others},
        "interpolation with augment.crop: random crops are bilinear": (
            recipe.interpolation != "bilinear" and recipe.augment.crop < 1
        ),
        "discriminative_ratio and layer_decay: expected one of them": ratio > 1 > recipe.layer_decay,
        "augment.rand_augment and augment.trivial_augment: expected one of them": (
            recipe.augment.rand_augment and recipe.augment.trivial_augment
        ),
        "stored_pixels, training_pixels and progressive_pixels: expected sides, or [height, width] in each": (
            len({type(pixels) for pixels in (recipe.stored_pixels, *recipe.stage_pixels)}) > 1
        ),
        f"training_pixels = {recipe.training_pixels}: expected at least 1": not all(
            height_and_width(recipe.network_pixels)
        ),
        'sampling = "balanced" and class_weights: expected one of them': is_balanced and "class_weights" in changed,
        'sampling = "balanced" and hard_share: expected one of them': is_balanced and recipe.hard_share < 1,
    }
    return [fault for fault, applies in faults.items() if applies]


def target_faults(recipe: Recipe, target: str) -> list[str]:
    """Keys of a recipe that have no effect with a target."""
    names = [] if target == "class" else ["class_weights", "focal_gamma", "sampling", "pseudo_labels"]
    names += ["label_smoothing"] if target in ("ordinal", "number") else []
    boosting = ['head = "boosting"'] if target != "class" and recipe.head == "boosting" else []
    names = [name for name in names if name in changed_keys(recipe)] + boosting
    return [f'{name} is for target = "class", found "{target}"' for name in names]
