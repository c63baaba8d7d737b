"""What the TOML files may say: Competition and Recipe, frozen and strict.

Every key is declared once, with its type, its default, its range and what it means; `podium.config.schema` holds
files to that. Only the standard library is imported: the Makefile asks which runs are stale before any environment
exists.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podium.config.schema import build, changed_keys, key, read_table, settings_of
from podium.errors import ConfigError

COMPETITION_FILE = "competition.toml"
# A recipe's table of ranges for `make tune` (podium.config.search): it says nothing of how a run is trained.
SEARCH_TABLE = "search"


@dataclass(frozen=True, kw_only=True)
class Data:
    """[data]: where the images are and how they are labelled."""

    source: str = key(
        "folders: one folder a class; csv: a table of labels beside a flat folder; digits: bundled",
        choices=("folders", "csv", "digits"),
    )
    archive: str = key("file or folder looked for in DATA=, $PODIUM_DATA, data/ and ../shared/data/", "")
    train: str = key("folder or archive of the labelled images", "train")
    test: str = key("folder or archive of the unlabelled images", "test")
    labels: str = key("the table of labels (csv)", "train.csv")
    id_column: str = key("column of the table of labels that names the image (csv)", "id")
    label_column: str = key("column of the table of labels that names the class (csv)", "label")
    group_column: str = key("column whose equal values must stay on one side of a split (csv)", "")
    sample_submission: str = key("CSV whose ids and order every submission follows", "")
    test_ids: str = key(
        "names: a test image's id is its file name without suffix; hash-order: test images are numbered from 1 "
        "in the order of the SHA-256 of their bytes",
        "names",
        choices=("names", "hash-order"),
    )
    fingerprint: str = key("SHA-256 over ids, labels and image bytes that the data must have", "")
    download: str = key("address of the archive, used where it is not found", "")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """[validation]: which labelled rows judge a model that never saw them."""

    kind: str = key("holdout: one stratified part; k-fold: every row once", "holdout", choices=("holdout", "k-fold"))
    rows: int = key("rows held out (holdout)", 0, low=0)
    folds: int = key("number of folds (k-fold)", 5, low=2, high=100)
    seed: int = key("seed of the split", 0, low=0)


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """[ensemble]: which runs are members and how they are weighted."""

    select: str = key(
        "rule: runs above the threshold, and the best of each architecture; all: every run",
        "rule",
        choices=("rule", "all"),
    )
    threshold: float = key("every run with a validation accuracy above this is a member", 0.95, low=0, high=1)
    best_per_architecture: int = key("runs of each architecture that are members anyway", 1, low=0)
    strategy: str = key(
        "how members are weighted; auto: the simplest that is as good as the best, where it beats the best run",
        "accuracy",
        choices=("auto", "best", "uniform", "accuracy", "log-loss", "greedy", "stack"),
    )
    average: str = key(
        "what is averaged: probabilities, or logits (the geometric mean of probabilities)",
        "probabilities",
        choices=("probabilities", "logits"),
    )
    run_temperatures: str = key(
        "a temperature of each run before it is blended; auto: where runs were not smoothed alike",
        "auto",
        choices=("auto", "always", "never"),
    )
    cross_fit_parts: int = key("parts of the validation rows; a blend is scored on each, fitted on the rest", 5, low=2)
    cross_fit_repeats: int = key("times that the rows are dealt into parts anew", 2, low=1)
    seed: int = key("seed of the parts, the bags and the bootstrap", 0, low=0)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """[submission]: the form of the CSV."""

    kind: str = key(
        "labels: one class name a row; probabilities: one column a class",
        "labels",
        choices=("labels", "probabilities"),
    )
    id_column: str = key("name of the id column", "id")
    label_column: str = key("name of the label column (labels)", "label")


@dataclass(frozen=True, kw_only=True)
class Kaggle:
    """[kaggle]: the competition's name on kaggle.com."""

    competition: str = key("slug, as in kaggle.com/competitions/<slug>", "")


@dataclass(frozen=True, kw_only=True)
class Competition:
    """competition.toml: labelled images, unlabelled images, a metric and a submission format."""

    title: str = key("one line for people")
    metric: str = key(
        "what the leaderboard ranks by",
        "accuracy",
        choices=("accuracy", "log_loss", "macro_f1", "qwk", "auc"),
    )
    trackers: tuple[str, ...] = key(
        "what else training is told to, beside reports/<competition>/history/; it changes no run",
        (),
        choices=("tensorboard", "wandb"),
    )
    data: Data = key("where the images are")
    validation: Validation = key("the split", table=Validation)
    ensemble: Ensemble = key("the blend", table=Ensemble)
    submission: Submission = key("the CSV", table=Submission)
    kaggle: Kaggle = key("the competition on Kaggle", table=Kaggle)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """[augment]: what training images go through, in whole batches on the device."""

    flip: str = key(
        "mirror half of the images: drawn anew, or the other half in every second epoch",
        "none",
        choices=("none", "horizontal", "alternating"),
    )
    shift_pixels: int = key("largest shift in each direction, in stored pixels, edges mirrored", 0, low=0)
    rotate_degrees: float = key("largest rotation either way, degrees", 0.0, low=0, high=180)
    zoom: float = key("largest factor of enlargement or shrinking", 1.0, low=1, high=4)
    cutout_pixels: int = key("side of a square set to the mean, in training pixels", 0, low=0)
    brightness: float = key("largest change, as a share of the full range", 0.0, low=0, high=1)
    contrast: float = key("largest relative change", 0.0, low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class FastNet:
    """[fastnet]: the size of the architecture of that name."""

    widths: tuple[int, ...] = key("channels of each group of convolutions", (64, 256, 256), low=1, high=4096)
    depth: int = key("convolutions a group; a shortcut leads around all but the first two", 2, low=2, high=16)
    feature_scale: float = key("factor of the features before the classifier", 1 / 9, low=1e-6, high=1e6)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """<recipe>.toml: how one architecture is trained."""

    architecture: str = key("fastnet, vgg19, resnet34, densenet121, efficientnet_b0, or timm:<name>")
    fastnet: FastNet = key("size of the fastnet", table=FastNet)
    seeds: tuple[int, ...] = key("one run a seed", (1,), low=0)
    stem: str = key(
        "standard: as published, for 224 pixels; small: no early shrinking, for 32 to 64 pixels",
        "standard",
        choices=("standard", "small"),
    )
    pretrained: bool | str = key("false, true (ImageNet weights of torchvision or timm), or a local file", False)
    head: str = key(
        "linear: pooling, dropout, one layer; fastai: its two-layer head",
        "linear",
        choices=("linear", "fastai"),
    )
    dropout: float = key("share of features dropped before the classifier", 0.0, low=0, high=0.99)

    epochs: int = key("passes over the training rows, with every layer learning", low=1)
    freeze_epochs: int = key("passes before them in which only the head learns", 0, low=0)
    batch_size: int = key("images a step", 128, low=2)
    learning_rate: float | str = key('peak of the schedule, or "find": what fastai\'s lr_find suggests')
    discriminative_ratio: float = key("learning rate of the head over that of the first layers", 1.0, low=1)
    schedule: str = key(
        "course of the learning rate over all steps",
        "one-cycle",
        choices=("one-cycle", "cosine", "flat-cosine", "triangular", "constant"),
    )
    warm_up: float = key("share of the steps before the peak (one-cycle, triangular)", 0.25, low=0.01, high=0.9)
    optimiser: str = key("what makes steps of gradients", "adamw", choices=("adamw", "sgd", "muon"))
    muon_rate: float = key("peak learning rate of the filters (muon); learning_rate is of all else, by sgd", 0.1, low=0)
    bias_ratio: float = key("learning rate of biases and norms over that of the weights", 1.0, low=0)
    momentum: float = key("momentum (sgd and muon, with Nesterov) or beta 1 (adamw)", 0.9, low=0, high=0.999)
    weight_decay: float = key("decay of weights; biases and norms are left alone", 0.01, low=0)
    gradient_clip: float = key("largest norm of all gradients together; 0: no limit", 0.0, low=0)
    label_smoothing: float = key("share of the target spread over all classes", 0.0, low=0, high=0.9)
    mixup: float = key("alpha of the Beta distribution that mixes pairs of images; 0: off", 0.0, low=0)
    cutmix: float = key("alpha of the Beta distribution that swaps rectangles of pairs; 0: off", 0.0, low=0)
    hard_share: float = key(
        "share of the training rows that an epoch learns from: those whose loss was largest when last seen; 1: all",
        1.0,
        low=0.05,
        high=1,
    )
    ema_decay: float = key("average the parameters over steps with this decay; 0: off", 0.0, low=0, high=0.99999)

    stored_pixels: int = key("side of the decoded images", 32, low=8, high=2048)
    shape: str = key(
        "how other shapes become square: crop the middle, squash, or pad with mirrored edges",
        "crop",
        choices=("crop", "squash", "pad"),
    )
    training_pixels: int = key("side that the network sees; 0: as stored", 0, low=0, high=2048)
    progressive_pixels: tuple[int, ...] = key("sides of equal stages of training before the last", (), low=8)
    augment: Augment = key("augmentation of the training images", table=Augment)
    test_time_augmentation: str = key(
        "views whose logits are averaged", "none", choices=("none", "flip", "flip-and-shift")
    )

    precision: str = key(
        "auto: bfloat16 where the device multiplies it faster and the architecture gains, else float32",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int = key("CPU threads of a run; part of the recipe because it changes the last bits", 1, low=1, high=256)
    deterministic: bool = key("kernels that repeat bit for bit on a GPU too, even if slower; on a CPU all do", False)
    refit: bool = key("train once more on train + validation; its logits are the test logits", False)

    @property
    def network_pixels(self) -> int:
        """Side of the images that the network sees last, and at validation and test."""
        return self.training_pixels or self.stored_pixels

    def images_an_epoch(self, rows: int) -> int:
        """How many of `rows` training rows an epoch learns from; batch norm cannot learn from one."""
        return min(rows, max(2, round(self.hard_share * rows)))

    @property
    def architecture_and_size(self) -> str:
        """The architecture, told from others of its family by what the recipe says of its size."""
        if self.architecture != "fastnet":
            return self.architecture
        return f"fastnet-{'-'.join(map(str, self.fastnet.widths))}x{self.fastnet.depth}"


def published_name(architecture: str) -> str:
    """The file that holds an architecture's published weights where they cannot be downloaded."""
    return f"{architecture.replace(':', '-')}.safetensors"


def read_competition(folder: Path) -> Competition:
    """Read `competition.toml` of a competition's folder; raises ConfigError."""
    file = folder / COMPETITION_FILE
    competition = settings_of(Competition, read_table(file), file)
    if not (competition.data.train and competition.data.test):
        raise ConfigError("Images without a place.", file=file, expected="[data] train and test that are not empty")
    if competition.validation.kind == "holdout" and competition.validation.rows == 0:
        raise ConfigError(
            "The holdout has no rows.",
            file=file,
            expected="[validation] rows = how many labelled rows to hold out",
        )
    return competition


def read_recipe(file: Path) -> Recipe:
    """Read one recipe, without its ranges for a search; raises ConfigError."""
    table = read_table(file)
    table.pop(SEARCH_TABLE, None)
    return recipe_of(table, file)


def recipe_of(table: dict[str, Any], file: Path) -> Recipe:
    """The recipe in a `table` of keys, such as a trained run's `file` has; raises ConfigError."""
    return _checked(settings_of(Recipe, table, file, other_tables=[SEARCH_TABLE]), file)


def _checked(recipe: Recipe, file: Path) -> Recipe:
    faults = []
    if isinstance(recipe.learning_rate, str) and recipe.learning_rate != "find":
        faults.append(f'learning_rate = "{recipe.learning_rate}": expected a number or "find"')
    if not isinstance(recipe.learning_rate, str) and recipe.learning_rate <= 0:
        faults.append(f"learning_rate = {recipe.learning_rate}: expected more than 0")
    if not recipe.seeds or len(set(recipe.seeds)) < len(recipe.seeds):
        faults.append(f"seeds = {list(recipe.seeds)}: expected one or more, each once")
    if recipe.freeze_epochs and not recipe.pretrained:
        faults.append("freeze_epochs without pretrained: layers that know nothing cannot stay frozen")
    if recipe.architecture != "fastnet" and recipe.fastnet != FastNet():
        faults.append(f'[fastnet] without effect: expected architecture = "fastnet", found "{recipe.architecture}"')
    if recipe.optimiser != "muon" and "muon_rate" in changed_keys(recipe):
        faults.append(f'muon_rate without effect: expected optimiser = "muon", found "{recipe.optimiser}"')
    if not recipe.fastnet.widths:
        faults.append("fastnet.widths = []: expected one or more")
    if faults:
        raise ConfigError("A recipe that cannot be trained.", file=file, faults=faults, fix=f"edit {file}")
    return recipe


def changed_ensemble(settings: Ensemble, changes: dict[str, Any]) -> Ensemble:
    """The settings with some keys changed, checked like those of a file; raises ConfigError."""
    faults: list[str] = []
    changed = build(Ensemble, dataclasses.asdict(settings) | changes, "", faults)
    if faults:
        raise ConfigError("Not a way to blend.", faults=faults, fix="correct STRATEGY= or THRESHOLD=")
    return changed


def recipe_files(folder: Path) -> dict[str, Path]:
    """Recipe name -> file, sorted by name, for the competition in `folder`."""
    files = [file for file in sorted(folder.glob("*.toml")) if not file.name.startswith(".#")]  # an editor's lock
    return {file.stem: file for file in files if file.name != COMPETITION_FILE}
