"""The keys of competition.toml (Competition) and of a recipe (Recipe).

Every key is declared once, with its meaning, unit, default and range; `podium.config.schema` checks files against
them. Only the standard library is imported, because make reads settings before the environment exists.
"""

from dataclasses import dataclass
from typing import Literal

from podium.config.pixels import Pixels, count_pixels
from podium.config.schema import key

COMPETITION_FILE = "competition.toml"
# The table of a recipe that `make tune` reads (podium.config.search).
SEARCH_TABLE = "search"
PACKAGE_PREFIX = "package:"

# Target and kind of submission -> the metrics that score it, the usual one first.
SCORED_BY = {
    ("class", "labels"): ("accuracy", "balanced_accuracy", "macro_f1", "qwk"),
    ("class", "probability"): ("log_loss", "auc", "accuracy"),
    ("class", "probabilities"): ("log_loss", "auc", "accuracy"),
    ("class", "ranking"): ("map_at_k",),
    ("multi-label", "probabilities"): ("auc", "log_loss"),
    ("multi-label", "labels"): ("macro_f1", "micro_f1"),
    ("ordinal", "labels"): ("qwk", "accuracy", "macro_f1"),
    ("number", "number"): ("rmse", "mae", "r2"),
}
METRICS = tuple(dict.fromkeys(metric for metrics in SCORED_BY.values() for metric in metrics))
# Kaggle's names of machines with GPUs, of docs/kernels.md of its CLI, September 2026: the first has two T4s and is for
# everybody, the others for the participants of some competitions. Kaggle may replace a name that it does not know.
ACCELERATORS = ("NvidiaTeslaT4", "NvidiaL4", "NvidiaL4X1", "NvidiaTeslaA100", "NvidiaH100", "NvidiaRtxPro6000", "none")


@dataclass(frozen=True, kw_only=True)
class Data:
    """[data]: where the images are and how they are labelled."""

    source: Literal["folders", "names", "csv", "digits"] = key(
        "folders: one per class; names: classes in the file names (label_pattern); csv: a table of labels; digits"
    )
    archive: str = key("archive or folder of the images, in DATA=, $PODIUM_DATA, data/ or ../shared/data/", "")
    train: str = key("folder or archive of the labelled images; empty: the class folders are at the top", "train")
    test: str = key("as train, of the unlabelled images; equal to train: those without a label; empty: none", "test")
    extra: tuple[str, ...] = key("folders or archives of labelled images that only train", (), later=True)
    labels: str = key("the table of labels (csv)", "train.csv")
    id_column: str = key("column of image ids in the table of labels (csv)", "id")
    target: Literal["class", "multi-label", "ordinal", "number"] = key(
        "class: one per image; multi-label: any number; ordinal: integers in order; number (csv)", "class", later=True
    )
    label_column: str = key("column of class names in the table of labels (csv)", "label")
    label_columns: tuple[str, ...] = key("columns of 0 and 1, one per label, instead of label_column", (), later=True)
    label_separator: str = key("between several names in label_column, such as | (multi-label)", "", later=True)
    group_column: str = key("column of groups: rows of one group stay on one side of every split", "")
    label_pattern: str = key("regular expression with one group: the class in a file name (names)", "", later=True)
    group_pattern: str = key("regular expression with one group: the group in a file name", "", later=True)
    metadata: tuple[str, ...] = key("tables of more columns: for labelled images, for test images", (), later=True)
    sample_submission: str = key("CSV that gives the ids of a submission and their order", "")
    test_ids: Literal["names", "hash-order"] = key(
        "names: of files, without suffix; hash-order: numbers from 1, in the order of the SHA-256 of the bytes", "names"
    )
    fingerprint: str = key("SHA-256 over ids, labels and image bytes that the data must have", "")
    download: str = key("URL of the archive, used where the archive is not found", "")

    @property
    def is_mixed(self) -> bool:
        """Whether one folder has the labelled images and the test images."""
        return bool(self.test) and self.test == self.train


@dataclass(frozen=True, kw_only=True)
class Validation:
    """[validation]: which labelled rows are held out to score a model."""

    kind: Literal["holdout", "k-fold", "folder"] = key("holdout: one part; k-fold: every row once; folder", "holdout")
    rows: int = key("number of rows held out (holdout)", 0, low=0)
    folds: int = key("number of folds (k-fold)", 5, low=2, high=100)
    seed: int = key("seed of the split", 0, low=0)
    folder: str = key("folder or archive of the images that are held out, such as val (folder)", "", later=True)
    groups: Literal["given", "duplicates"] = key(
        "given: those of [data]; duplicates: near-duplicates stay together as well", "given", later=True
    )


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """[ensemble]: which runs are members and how they are weighted."""

    select: Literal["rule", "all"] = key(
        "rule: the threshold, and the best of each architecture; all: every run", "rule"
    )
    threshold: float = key("every run with a higher score is a member; not with log_loss", 0.95, low=0, high=1)
    best_per_architecture: int = key("number of runs of each architecture that are members in any case", 1, low=0)
    strategy: Literal["auto", "best", "uniform", "accuracy", "log-loss", "greedy", "stack"] = key(
        "how members are weighted; auto: log-loss, unless another is ahead by a standard error", "auto"
    )
    average: Literal["probabilities", "logits"] = key("logits: a geometric mean of probabilities", "probabilities")
    run_temperatures: Literal["auto", "always", "never"] = key(
        "fit a temperature to each run before blending; auto: if smoothing, mixing, loss or sampling differ", "auto"
    )
    cross_fit_parts: int = key("parts of the validation rows; each is scored by a blend fitted on the others", 5, low=2)
    cross_fit_repeats: int = key("number of random divisions into parts", 2, low=1)
    seed: int = key("seed of the parts, the random subsets of greedy, and the bootstrap", 0, low=0)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """[submission]: the format of the CSV."""

    kind: Literal["labels", "probabilities", "probability", "ranking", "number"] = key(
        "labels: class names; probabilities: a column per class; probability: of one class; ranking: names", "labels"
    )
    id_column: str = key("name of the id column", "id")
    label_column: str = key("name of the column of labels, probabilities (probability) or numbers", "label")
    positive_class: str = key("class whose probability is written (probability); empty: the second of the two", "")
    most: int = key("number of class names in a cell (ranking), the k of map_at_k", 0, low=1, high=100)
    separator: str = key("between class names in a cell (ranking, labels of multi-label); empty: a space", "")


@dataclass(frozen=True, kw_only=True)
class Kaggle:
    """[kaggle]: the competition on kaggle.com."""

    competition: str = key("slug, as in kaggle.com/competitions/<slug>", "")
    files: tuple[str, ...] = key("names of the files to download, each by itself; empty: all, as one zip", ())
    notebook_parameters: bool = key("whether make kernel downloads parameters too; make notebook needs them", True)
    notebook_hours: float = key("hours after which Kaggle ends a session", 12, low=1)
    notebook_accelerator: Literal[*ACCELERATORS] = key(
        "GPUs of a session, by Kaggle's names for a machine; none: its CPU", ACCELERATORS[0]
    )
    notebook_image: str = key("latest, original (that of the notebook's first version), or a docker image", "latest")


@dataclass(frozen=True, kw_only=True)
class Competition:
    """competition.toml: labelled images, unlabelled images, a metric and a submission format."""

    title: str = key("a title of one line")
    metric: Literal[*METRICS] = key("metric of the leaderboard", "accuracy")
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = key("they record it too", ())
    checkpoint_minutes: float = key("minutes between the checkpoints of a run within an epoch", 5.0, low=0.1)
    data: Data = key("where the images are")
    validation: Validation = key("the split", Validation())
    ensemble: Ensemble = key("the blend", Ensemble())
    submission: Submission = key("the CSV", Submission())
    kaggle: Kaggle = key("the competition on Kaggle", Kaggle())


@dataclass(frozen=True, kw_only=True)
class Augment:
    """[augment]: random changes of training images, in whole batches on the device."""

    flip: Literal["none", "horizontal", "alternating"] = key(
        "horizontal: with probability 1/2; alternating: half of the images in even epochs, the rest in odd ones", "none"
    )
    shift_pixels: int = key("largest shift in each direction, in stored pixels; edges are mirrored", 0, low=0)
    rotate_degrees: float = key("largest rotation in each direction, degrees", 0.0, low=0, high=180)
    zoom: float = key("largest factor of enlargement or reduction", 1.0, low=1, high=4)
    crop: float = key("smallest share of the area of random crops; shape 3:4 to 4:3; 1: off", 1.0, low=0.01, high=1)
    cutout_pixels: int = key("side of a square that is filled with the mean colour, in training pixels", 0, low=0)
    brightness: float = key("largest change, as a share of the full range", 0.0, low=0, high=1)
    contrast: float = key("largest relative change", 0.0, low=0, high=1)
    saturation: float = key("largest relative change", 0.0, low=0, high=1)
    hue: float = key("largest change, as a share of the circle of colours", 0.0, low=0, high=0.5)
    rand_augment: int = key("RandAugment's magnitude (arXiv:1909.13719): two operations; 0: off", 0, low=0, high=30)
    trivial_augment: bool = key("TrivialAugment (arXiv:2103.10158): one operation of a random magnitude", False)
    erase: float = key("probability that a box gets the mean colour (arXiv:1708.04896)", 0.0, low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class FastNet:
    """[fastnet]: the size of the architecture fastnet."""

    widths: tuple[int, ...] = key("channels of each group of convolutions", (64, 256, 256), low=1, high=4096)
    depth: int = key("convolutions per group; all but the first two are in a residual branch", 2, low=2, high=16)
    feature_scale: float = key("factor that multiplies the features before the classifier", 1 / 9, low=1e-6, high=1e6)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """<recipe>.toml: how one architecture is trained."""

    architecture: str = key("fastnet, vgg19, resnet34, densenet121, efficientnet_b0, or timm:<name>")
    fastnet: FastNet = key("size of the fastnet", FastNet())
    seeds: tuple[int, ...] = key("one run per seed", (1,), low=0)
    stem: Literal["standard", "small"] = key("small: without early downsampling, for 32 to 64 pixels", "standard")
    pretrained: bool | str = key("false, true (ImageNet weights, downloaded), a local file, or package:<name>", False)
    head: Literal["linear", "fastai", "logistic", "boosting"] = key(
        "linear: one layer; fastai: two; logistic: linear, starts as logistic regression; boosting: trees", "linear"
    )
    metadata_columns: tuple[str, ...] = key("columns of [data] metadata that a head on features gets too", ())
    dropout: float = key("probability that a feature is dropped before the classifier", 0.0, low=0, high=0.99)
    drop_path: float = key("largest probability that a residual branch is dropped (timm)", 0.0, low=0, high=0.9)

    epochs: int = key("epochs in which every layer is trained; 0 with the heads logistic and boosting only", 0, low=0)
    freeze_epochs: int = key("epochs before them in which only the head is trained", 0, low=0)
    frozen_stages: int = key("first stages of the body, the stem included, that keep their weights (timm)", 0, low=0)
    frozen_norms: bool = key("whether the batch norms of the body keep the statistics of the pretraining", False)
    batch_size: int = key("images per batch", 128, low=2)
    accumulate: int = key("batches per step, which takes their mean gradient in the memory of one", 1, low=1)
    gradient_checkpointing: bool = key("save memory: compute features again for their gradients (timm)", False)
    learning_rate: float | str = key('peak of the schedule, or "find": the suggestion of fastai\'s lr_find', 0.0, low=0)
    discriminative_ratio: float = key("learning rate of the head divided by that of the first layers", 1.0, low=1)
    layer_decay: float = key("learning rate of a layer divided by that of the next one (timm)", 1.0, low=0.1, high=1)
    schedule: Literal["one-cycle", "cosine", "flat-cosine", "triangular", "constant"] = key(
        "schedule of the learning rate over all steps", "one-cycle"
    )
    warm_up: float = key("share of the steps before the peak (one-cycle, triangular)", 0.25, low=0.01, high=0.9)
    optimiser: Literal["adamw", "sgd", "muon"] = key("adamw, sgd, or muon for filters and sgd for all else", "adamw")
    muon_rate: float = key("peak learning rate of the filters (muon); all others use learning_rate", 0.1, low=0)
    bias_ratio: float = key("learning rate of biases and norms divided by that of the weights", 1.0, low=0)
    momentum: float = key("Nesterov momentum (sgd, muon) or beta 1 (adamw)", 0.9, low=0, high=0.999)
    weight_decay: float = key("decay of weights; biases and norms do not decay", 0.01, low=0)
    gradient_clip: float = key("largest norm of the whole gradient; 0: no limit", 0.0, low=0)
    label_smoothing: float = key("share of the target that is spread over all classes", 0.0, low=0, high=0.9)
    mixup: float = key("mix two images: alpha of the Beta distribution of the share; 0: off", 0.0, low=0)
    cutmix: float = key("paste a part of another image: alpha of the Beta distribution of its size; 0: off", 0.0, low=0)
    class_weights: Literal["none", "balanced"] = key("balanced: loss times rows / (classes * rows of class)", "none")
    focal_gamma: float = key("multiply the loss by (1 - probability)^gamma (arXiv:1708.02002); 0: off", 0.0, low=0)
    sampling: Literal["all", "balanced"] = key("balanced: an epoch has equally many rows of each class", "all")
    shuffle: Literal["rows", "blocks"] = key(
        "blocks: rows near each other in the file are used near each other, for data beyond memory", "rows"
    )
    hard_share: float = key("share of rows that train: largest losses (arXiv:1511.06343)", 1.0, low=0.05, high=1)
    ema_decay: float = key("decay of an exponential moving average of the parameters; 0: off", 0.0, low=0, high=0.99999)

    stored_pixels: Pixels = key("side of the decoded images, or [height, width]", 32, low=8, high=2048)
    shape: Literal["crop", "squash", "pad"] = key("for other shapes: crop the centre, squash, or pad by mirror", "crop")
    stored_format: Literal["pixels", "jpeg"] = key("jpeg: of quality 95, decoded again for each batch", "pixels")
    training_pixels: Pixels = key("side, or [height, width], for the network; 0: as stored", 0, low=0, high=2048)
    interpolation: Literal["bilinear", "bicubic"] = key("how stored images get the size of the network", "bilinear")
    progressive_pixels: tuple[Pixels, ...] = key("sizes in earlier stages, which are equally long", (), low=8)
    augment: Augment = key("augmentation of the training images", Augment())
    test_time_augmentation: Literal["none", "flip", "flip-and-shift"] = key("views whose logits are averaged", "none")

    precision: Literal["auto", "float32", "bfloat16"] = key(
        "auto: bfloat16 if it is faster for this architecture, float16 on an older GPU, else float32", "auto"
    )
    threads: int = key("CPU threads of a process; another number changes the last bits of results", 1, low=1, high=256)
    processes: int = key("processes that train a network, on a GPU each; batch_size is that of all", 1, low=1, high=64)
    deterministic: bool = key("on a GPU, use only operations that repeat bit for bit; on a CPU all do", False)
    pseudo_labels: str = key("table of test images and labels that train in every fold, as make pseudo writes it", "")
    refit: bool = key("train again on training and validation rows; that network makes the test logits", False)

    @property
    def network_pixels(self) -> Pixels:
        """Size of the images in the last training stage, and at validation and test."""
        return self.training_pixels or self.stored_pixels

    @property
    def storage(self) -> tuple[Pixels, str, str]:
        """Size of the stored images, how other shapes get it, and the format."""
        return self.stored_pixels, self.shape, self.stored_format

    @property
    def stage_pixels(self) -> list[Pixels]:
        """Size of the images in each training stage."""
        return [*self.progressive_pixels, self.network_pixels]

    @property
    def pixels_per_row(self) -> float:
        """Pixels that a training row contributes in all epochs."""
        areas = [count_pixels(pixels) for pixels in self.stage_pixels]
        return self.epochs * self.hard_share * sum(areas) / len(areas)

    @property
    def images_per_step(self) -> int:
        """Images whose mean gradient makes one step of the optimiser."""
        return self.batch_size * self.accumulate

    @property
    def cores(self) -> int:
        """CPU cores that a run uses, or waits for."""
        return self.threads * self.processes

    @property
    def fits_features(self) -> bool:
        """Whether the head is first fitted to the features of the pretrained body."""
        return self.head in ("logistic", "boosting")

    @property
    def weights_package(self) -> str:
        """The installed package that has the pretrained weights; empty if it is none."""
        place = self.pretrained if isinstance(self.pretrained, str) else ""
        return place.removeprefix(PACKAGE_PREFIX) if place.startswith(PACKAGE_PREFIX) else ""

    def images_per_epoch(self, rows: int) -> int:
        """Number of images in an epoch over `rows` training rows; at least two, because batch norm needs two."""
        return min(rows, max(2, round(self.hard_share * rows)))

    @property
    def architecture_and_size(self) -> str:
        """The architecture; fastnets of different sizes count as different architectures."""
        size = f"-{'-'.join(map(str, self.fastnet.widths))}x{self.fastnet.depth}"
        return self.architecture + (size if self.architecture == "fastnet" else "")


def published_name(architecture: str) -> str:
    """File name of an architecture's published weights, for machines that cannot download them."""
    return f"{architecture.replace(':', '-')}.safetensors"
